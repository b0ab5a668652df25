"""Drives guests through freezes: single cycles, their announcements, and rollouts over a fleet.

- `cycle`: settle, measure, freeze, patch, resume, watch. `clock_reader`: reads the guests' clocks in turn.
- `cycle_runner`: announces and freezes some of a cell's guests. `event_lifecycle`: a cycle's announcement.
- `rollout`: freezes one domain after another, with gates after each. `meeting`: with the controller of a
  fleet over hosts. `workload_reports`: what clients report.
"""

from lab.controller.clock_reader import CycleGuest as CycleGuest
from lab.controller.cycle import RESERVE_NS as RESERVE_NS
from lab.controller.cycle import Controller as Controller
from lab.controller.cycle_runner import CycleRunner as CycleRunner
from lab.controller.event_lifecycle import EventLifecycle as EventLifecycle
from lab.controller.rollout import RolloutRunner as RolloutRunner
from lab.controller.rollout import RolloutStop as RolloutStop
from lab.controller.workload_reports import reported as reported
