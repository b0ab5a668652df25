"""Drives guests through freezes: a cycle, what guests are told before it, and a fleet domain by domain."""

from lab.controller.cycle import RESERVE_NS as RESERVE_NS
from lab.controller.cycle import Controller as Controller
from lab.controller.freezes import Freezes as Freezes
from lab.controller.notices import Told as Told
from lab.controller.reading import Subject as Subject
from lab.controller.rollout import Fleet as Fleet
from lab.controller.rollout import Stopped as Stopped
