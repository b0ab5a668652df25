"""The cells of a matrix: the result of each, and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.core import benchmark, rollout_result
from lab.core import plan as planned
from lab.core.history import CellReached, GuestBooted
from lab.core.history.run_events import Timing
from lab.core.method import FreezeMethod
from lab.core.verdict import Finding, Outcome, worst
from lab.record.event_timelines import totals_of
from lab.record.journal import History
from lab.record.model import CellRecord, Comparison, CycleRecord, EventRecord
from lab.record.statistics import bounded, median_pause, statistics

GIB = 1 << 30
METHOD, MEMORY, SAVE_TO = "method", "memory", "save_to"
"""The axes along which cells are compared, and one that has no meaning for in-place."""


@dataclass
class CellHistory:
    """The history of a cell without its cycles. boots: timings, by guest."""

    skipped: str = ""
    refused: bool = False
    boots: dict[str, dict[str, Timing]] = field(default_factory=dict)


def cell_histories(history: History) -> dict[str, CellHistory]:
    """The history of each cell, by id; "" without a matrix."""
    found: dict[str, CellHistory] = {}
    current = ""
    for entry in history.entries:
        event = entry.event
        if isinstance(event, CellReached):
            current = event.id
            cell_history = found.setdefault(current, CellHistory())
            cell_history.skipped, cell_history.refused = event.skipped, bool(event.refused)
        elif isinstance(event, GuestBooted):
            here = found.setdefault(current if event.cell is None else event.cell, CellHistory())
            here.boots[event.guest] = event.timings
    return found


def wanted(cell: planned.Cell, rollouts: Sequence[rollout_result.RolloutHistory] = ()) -> int:
    """The expected number of guests' cycles. A stopped rollout needs no more than it began."""
    return rollout_result.wanted(
        rollouts, [spec.name for spec in cell.frozen_guests], cell.repeat, cell.control
    )


def cell_findings(
    cell: planned.Cell,
    cell_history: CellHistory,
    run: int,
    rollouts: Sequence[rollout_result.RolloutHistory] = (),
) -> list[Finding]:
    """A finding, with its reason, for a cell that was not run completely: inconclusive, unless it was refused
    and may be. run: the number of its cycles."""
    many = wanted(cell, rollouts)
    if cell_history.skipped:
        shown = "refused" if cell_history.refused else "not run"
        why = f"{shown}: {cell_history.skipped}"
        if cell_history.refused and cell.may_be_refused and not run:
            return [Finding("", -1, "cell", "is run or refused", shown, Outcome.PASSED, why, cell.id)]
        return [Finding("", -1, "cell", "is run", shown, Outcome.INCONCLUSIVE, why, cell.id)]
    if run < many:
        text = f"{run} of {many} cycles"
        why = f"only {text} ran"
        return [Finding("", -1, "cycles", f"{many}", text, Outcome.INCONCLUSIVE, why, cell.id)]
    return []


def cell_of(
    cell: planned.Cell,
    cell_history: CellHistory,
    cycles: Sequence[CycleRecord],
    own: Sequence[Finding],
    events: Sequence[EventRecord],
) -> CellRecord:
    """The cell's entry in run.json. own: the cell's findings that belong to no cycle. events: the cell's."""
    first = cell.guests[0] if cell.guests else planned.GuestSpec("")
    return CellRecord(
        id=cell.id,
        values=dict(cell.values),
        outcome=worst([*(c.outcome for c in cycles), *(f.outcome for f in own)]),
        method=cell.cycle.method,
        memory_bytes=first.memory_bytes,
        vcpus=first.vcpus,
        patch=cell.cycle.patch.label,
        resync=cell.resync,
        cycles=len(cycles),
        wanted=wanted(cell),
        statistics=statistics(cycles),
        why=next((f.why for f in own), ""),
        refused=cell_history.refused,
        pause=median_pause(cycles),
        events=totals_of(events),
    )


def _without(cell: CellRecord, *axes: str) -> dict[str, str]:
    return {name: value for name, value in cell.values.items() if name not in axes}


def _slopes(cells: Sequence[CellRecord], cycles: Mapping[str, Sequence[CycleRecord]]) -> Iterator[Comparison]:
    """The slope of the pause over RAM, for each group of cells that differ only in RAM."""
    groups: dict[tuple[tuple[str, str], ...], list[CellRecord]] = {}
    for cell in cells:
        if MEMORY in cell.values:
            groups.setdefault(tuple(_without(cell, MEMORY).items()), []).append(cell)
    for common, group in groups.items():
        points = [
            (cell.memory_bytes / GIB, value) for cell in group for _, value, _ in bounded(cycles[cell.id])
        ]
        estimate = benchmark.slope(points)
        if estimate is not None:
            yield Comparison(
                "slope", dict(common), "ns/GiB", estimate.value, estimate.low, estimate.high, estimate.count
            )


def _ratios(cells: Sequence[CellRecord], cycles: Mapping[str, Sequence[CycleRecord]]) -> Iterator[Comparison]:
    """The ratio of save-restore to in-place, for each pair of cells that differ only in the method."""
    for below in cells:
        if below.method != FreezeMethod.IN_PLACE or METHOD not in below.values:
            continue
        for above in cells:
            alike = _without(above, METHOD, SAVE_TO) == _without(below, METHOD, SAVE_TO)
            if above.method != FreezeMethod.SAVE_RESTORE or not alike:
                continue
            over, under = bounded(cycles[above.id]), bounded(cycles[below.id])
            estimate = benchmark.ratio(over, under)
            if estimate is not None and min(len(over), len(under)) > 1:
                yield Comparison(
                    "ratio",
                    _without(above, METHOD),
                    "",
                    estimate.value,
                    estimate.low,
                    estimate.high,
                    estimate.count,
                )


def comparisons(
    cells: Sequence[CellRecord],
    cycles: Mapping[str, Sequence[CycleRecord]],
    machines: Mapping[str, str],
) -> tuple[Comparison, ...]:
    """Slopes first, then ratios. cycles, machines: by cell. Cells of different machines are not compared."""
    groups: dict[str, list[CellRecord]] = {}
    for cell in cells:
        groups.setdefault(machines.get(cell.id, ""), []).append(cell)
    return tuple(
        replace(one, of={**one.of, "machine": machine[:8]}) if machine else one
        for compare in (_slopes, _ratios)
        for machine, group in groups.items()
        for one in compare(group, cycles)
    )
