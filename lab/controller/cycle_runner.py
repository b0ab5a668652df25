"""Announces a freeze to some of a cell's guests, if the playbook says so, and then runs their cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.controller.clock_reader import CycleGuest
from lab.controller.cycle import Controller
from lab.controller.event_lifecycle import EventLifecycle, Stage, quietly
from lab.controller.workload_reports import reported
from lab.core.plan import Cell
from lab.ports import Announcer, Clock, HostPatch, Journal, View, WorkloadClient


@dataclass(frozen=True)
class CycleRunner:
    """What all freezes of a cell have in common. announcer: None when nothing is announced. workloads:
    clients of what runs in the guests."""

    controller: Controller
    clock: Clock
    journal: Journal
    view: View
    cell: Cell
    patch: HostPatch
    announcer: Announcer | None = None
    workloads: Sequence[WorkloadClient] = ()

    def run(self, index: int, subjects: Mapping[str, CycleGuest], stage: Stage = quietly) -> None:
        """Run one cycle of these guests. When its event is cancelled, they are only watched. Raises the same
        errors as Controller.run_cycle."""
        with reported(self.workloads, self.journal, index):
            self._run(index, subjects, stage)

    def _run(self, index: int, subjects: Mapping[str, CycleGuest], stage: Stage) -> None:
        lifecycle, frozen, cycle = None, True, self.cell.cycle
        if self.announcer is not None and cycle.announce is not None:
            lifecycle = EventLifecycle(
                self.announcer,
                self.clock,
                self.journal,
                self.view,
                index=index,
                guests=list(subjects),
                tolerance_ns=self.cell.expectations.tolerance_ns,
                hold_ns=self.cell.expectations.hold_ns,
                stage=stage,
                ended=self.controller.has_ended,
            )
            frozen = lifecycle.announce(cycle.announce, cycle)
        self.controller.run_cycle(
            index,
            subjects,
            cycle,
            self.patch,
            frozen=frozen,
            lifecycle=lifecycle,
            stage=stage,
            patched=frozen,
        )
