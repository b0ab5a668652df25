"""Drives guests through freezes: a cycle, what guests are told before it, and a fleet domain by domain.

- `cycle`: settle, measure, freeze, patch, resume, watch. `clock_reader`: guests' clocks, read in turn.
- `cycle_runner`: some of a cell's guests are announced and frozen. `event_lifecycle`: what is announced.
- `rollout`: one domain after another, with a gate after each.
"""

from lab.controller.clock_reader import CycleGuest as CycleGuest
from lab.controller.cycle import RESERVE_NS as RESERVE_NS
from lab.controller.cycle import Controller as Controller
from lab.controller.cycle_runner import CycleRunner as CycleRunner
from lab.controller.event_lifecycle import EventLifecycle as EventLifecycle
from lab.controller.rollout import RolloutRunner as RolloutRunner
from lab.controller.rollout import RolloutStop as RolloutStop
