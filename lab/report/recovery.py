"""How a workload recovers by the length of the pause: what its outage had beyond the pause, and what TCP's
retransmission timer had grown to, from all cycles of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from lab.core.quantities import format_magnitude
from lab.core.workload.gauges import GaugeSummary
from lab.core.workload.shipped.tcp_stream import LOST
from lab.record.model import Run
from lab.record.model_workload import WorkloadCycleRecord, WorkloadRecord
from lab.report.page import Page
from lab.report.table import Column, Piece, Table

RTO, RETRANSMITS = "rto_ns", "retransmits"
MOST_ROWS = 24
DASH: Piece = ("–", "dim")


@dataclass(frozen=True)
class RecoveryRow:
    """The cycles of one pause as it was asked for. label: the matrix's other values, or the method. patch:
    "hold 5 s"; "" for cycles without a freeze. pauses_ns: as measured."""

    label: str
    patch: str
    pauses_ns: Sequence[int]
    cycles: Sequence[WorkloadCycleRecord]

    @property
    def beyond_ns(self) -> list[int]:
        """What each outage had beyond its pause; without a freeze the whole outage."""
        measures = [one.outage if one.control else one.beyond_pause for one in self.cycles]
        return sorted(one.value_ns for one in measures if one is not None)

    @property
    def rto_ns(self) -> int | None:
        """The longest that the retransmission timer of the client's socket was, from the stop on."""
        return max((one.highest for one in self.gauges(RTO)), default=None)

    @property
    def retransmits(self) -> int | None:
        """The most segments that the client's socket sent again in one cycle, from the stop on."""
        return max((one.highest - (one.before or 0) for one in self.gauges(RETRANSMITS)), default=None)

    @property
    def lost(self) -> int:
        """Connections that were lost."""
        return sum(one.events.get(LOST, 0) for one in self.cycles)

    def gauges(self, name: str) -> list[GaugeSummary]:
        """One gauge in all cycles that have it."""
        return [gauge for one in self.cycles for gauge in one.gauges if gauge.name == name]


def recovery_of(run: Run, records: Sequence[WorkloadRecord]) -> list[RecoveryRow]:
    """The rows of a workload, by label and then by pause, those without a freeze first. [] unless cycles of
    one label had pauses of different lengths. records: the workload's, one for each cell."""
    values = {cell.id: cell.values for cell in run.cells}
    found: dict[tuple[str, str], tuple[list[int], list[WorkloadCycleRecord]]] = {}
    for record in records:
        axes = values.get(record.cell, {})
        other = ", ".join(text for axis, text in axes.items() if axis not in ("patch", "workload"))
        for cycle in record.cycles:
            of_guests = [
                one
                for guest in run.guests
                if guest.cell == record.cell
                for one in guest.cycles
                if one.index == cycle.cycle and one.frozen and one.pause is not None
            ]
            longest = max(of_guests, key=lambda one: one.pause.value_ns if one.pause else 0, default=None)
            if not cycle.control and longest is None:
                continue
            method = next((g.cycles[0].method for g in run.guests if g.cell == record.cell and g.cycles), "")
            patch = "" if cycle.control or longest is None else longest.patch
            pauses, cycles = found.setdefault((other or method, patch), ([], []))
            if not cycle.control and longest is not None and longest.pause is not None:
                pauses.append(longest.pause.value_ns)
            cycles.append(cycle)
    rows = [RecoveryRow(label, patch, *both) for (label, patch), both in found.items()]
    labels = list(dict.fromkeys(row.label for row in rows))
    if not any(sum(row.label == label and bool(row.patch) for row in rows) > 1 for label in labels):
        return []
    return sorted(rows, key=lambda row: (labels.index(row.label), min(row.pauses_ns, default=0)))


def show_recovery(page: Page, run: Run, records: Sequence[WorkloadRecord]) -> None:
    """Print them; nothing for a workload whose pauses were all of one length, nor for a search, which has a
    table of its own."""
    rows = [] if run.tolerances else recovery_of(run, records)
    if not rows:
        return
    columns: list[Column[RecoveryRow]] = []
    if len({row.label for row in rows}) > 1:
        columns.append(Column("recovery", lambda row: (row.label, "")))
    columns += [
        Column("asked for", lambda row: (row.patch or "no freeze", "" if row.patch else "dim")),
        Column("cycles", lambda row: (str(len(row.cycles)), ""), right=True, rank=2),
        Column("pause", lambda row: _median(row.pauses_ns), right=True),
        Column("beyond pause", lambda row: _median(row.beyond_ns), right=True),
    ]
    if any(len(row.cycles) > 1 for row in rows):
        columns.append(Column("at most", lambda row: _length(max(row.beyond_ns, default=None)), right=True))
    if any(row.rto_ns is not None for row in rows):
        columns.append(Column("longest RTO", lambda row: _length(row.rto_ns), right=True, rank=4))
    if any(row.retransmits is not None for row in rows):
        columns.append(Column("retransmits", _retransmits, right=True, rank=3))
    if any(row.lost for row in rows) or any(row.gauges(RTO) for row in rows):
        columns.append(Column("connections lost", _lost, right=True, rank=5))
    most = page.most(MOST_ROWS)
    page.table(Table(columns, rows[:most]))
    if len(rows) > most:
        page.labelled("", f"{len(rows) - most} more rows: freezelab report --json")


def _median(values: Sequence[int]) -> Piece:
    return _length(median_low(values) if values else None)


def _length(ns: int | None) -> Piece:
    return DASH if ns is None else (("-" if ns < 0 else "") + format_magnitude(ns), "")


def _retransmits(row: RecoveryRow) -> Piece:
    return DASH if row.retransmits is None else (str(row.retransmits), "")


def _lost(row: RecoveryRow) -> Piece:
    return str(row.lost), "magenta" if row.lost else "dim"
