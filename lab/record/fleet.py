"""What a history shows of a fleet as a whole: its rollouts, and how far apart guests were stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.core.fleet_clocks import as_it_is
from lab.core.fleet_placement import placed_hosts
from lab.core.history import CellReached, PartMerged, RolloutPlanned
from lab.core.one_at_a_time import Down, downs, one_at_a_time, proof_finding, skew_findings, skews
from lab.core.plan import Cell, DomainKind, Expectations, GuestSpec, Plan
from lab.core.result import CycleResult
from lab.core.rollout import set_of
from lab.core.rollout_result import RolloutHistory, rollout_findings
from lab.core.verdict import Finding
from lab.record.journal import History
from lab.record.model import CycleRecord
from lab.record.model_events import EventRecord, OneAtATime, RolloutRecord
from lab.record.parts import fleet_clocks, parts_of
from lab.record.rollout import ends_of, proof_of, rollout_of, rollouts_of


class FleetFindings:
    """The findings and entries of a plan's rollout; without a rollout, only the skew of its guests."""

    def __init__(self, history: History, plan: Plan, results: Sequence[CycleResult]) -> None:
        self._plan, self._results = plan, results
        # One host's own record, which nobody has merged, is that of its guests alone.
        self._hosts = placed_hosts(plan) if any(True for _ in history.of(PartMerged)) else ()
        self.clocks = fleet_clocks(history) if self._hosts else None
        self._onto = self.clocks.controllers if self.clocks is not None else as_it_is
        self.rollouts = rollouts_of(history, len(self._hosts), self.clocks)
        self.waves = {(w.cycle, g): w.number for one in self.rollouts for w in one.waves for g in w.guests}
        self._by = plan.rollout.by if plan.rollout is not None else None
        self._proof = None
        if self._by is not None:
            down = downs(results, plan.guests, self._by, ends_of(history), self._onto)
            if self._hosts:
                down += _without_record(history, self.rollouts, plan, self._by)
            self._proof = one_at_a_time(down, self._by)

    @property
    def announced(self) -> tuple[Cell, ...]:
        """What events are announced to: each cell, or a fleet over hosts."""
        parts = self._plan.parts
        return (replace(parts[0], id="", guests=self._plan.guests),) if self._hosts else tuple(parts)

    def findings(self, cell: Cell, results: Sequence[CycleResult]) -> list[Finding]:
        """The findings of one cell. results: its cycles. A host's guests are only a part of the fleet."""
        return [] if self._hosts else self._findings(cell.expectations, cell.guests, results, cell.id)

    def over_hosts(self) -> list[Finding]:
        """The findings of a fleet over hosts."""
        return (
            self._findings(self._plan.expectations, self._plan.guests, self._results) if self._hosts else []
        )

    def _findings(
        self,
        expect: Expectations,
        guests: Sequence[GuestSpec],
        results: Sequence[CycleResult],
        cell: str = "",
    ) -> list[Finding]:
        rollout = self._plan.rollout
        apart = skews(results, guests, self._by, self._onto)
        found = skew_findings(apart, expect.skew_ns, self._by, cell)
        if rollout is not None and self._proof is not None:
            found += rollout_findings(self.rollouts, rollout, guests, expect.rollout, cell)
            found.append(proof_finding(self._proof, rollout.by, cell))
        return found

    def members(
        self,
        cycles: Sequence[tuple[str, CycleRecord]],
        events: Sequence[EventRecord],
        found: Sequence[Finding],
    ) -> tuple[RolloutRecord, ...]:
        """The entries in run.json."""
        guests = self._plan.guests
        apart = skews(self._results, guests, self._by, self._onto)
        return tuple(rollout_of(history, guests, cycles, events, apart, found) for history in self.rollouts)

    def one_at_a_time(self) -> OneAtATime | None:
        """The entries in run.json."""
        if self._proof is None or self._by is None:
            return None
        return proof_of(self._proof, self._by)


def _without_record(
    history: History, rollouts: Sequence[RolloutHistory], plan: Plan, by: DomainKind
) -> list[Down]:
    """Guests of waves that began, on hosts of a fleet that have no record of a rollout: nobody knows for how
    long they were down."""
    known = {
        reached.id
        for _, own in parts_of(history)
        if any(True for _ in own.of(RolloutPlanned))
        for reached in own.of(CellReached)
    }
    lost = {spec.name: (cell.id, spec) for cell in plan.cells if cell.id not in known for spec in cell.guests}
    return [
        Down((set_of(spec), by.of(spec)), wave.cycle, None, None, f"host {host} has no record")
        for one in rollouts
        for wave in one.waves
        for host, spec in (lost[name] for name in wave.guests if name in lost)
    ]
