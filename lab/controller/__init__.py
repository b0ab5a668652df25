"""Drives guests through freezes: a cycle, what guests are told before it, and a fleet domain by domain."""

from lab.controller.cycle import Controller as Controller
from lab.controller.cycle import Subject as Subject
