"""Drives guests through freezes: a cycle, what guests are told before it, and a fleet domain by domain.

- `cycle`: settle, measure, freeze, patch, resume, watch. `reading`: guests' clocks, read in turn.
- `freezes`: some of a cell's guests are announced and frozen. `notices`: what is announced to them.
- `rollout`: one domain after another, with a gate after each.
"""

from lab.controller.cycle import RESERVE_NS as RESERVE_NS
from lab.controller.cycle import Controller as Controller
from lab.controller.freezes import Freezes as Freezes
from lab.controller.notices import EventLifecycle as EventLifecycle
from lab.controller.reading import Subject as Subject
from lab.controller.rollout import RolloutRunner as RolloutRunner
from lab.controller.rollout import RolloutStop as RolloutStop
