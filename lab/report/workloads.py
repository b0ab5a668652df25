"""What the workloads showed: a table of their cycles, and what their configuration predicted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.core.quantities import format_at_latest, format_between, format_magnitude
from lab.core.verdict import Outcome
from lab.record.model import Run
from lab.record.model_clock import Measure
from lab.record.model_workload import StateChangeRecord, WorkloadCycleRecord, WorkloadRecord
from lab.report.cycles import VERDICTS
from lab.report.gauges import show_gauges
from lab.report.numbers import interval, size
from lab.report.page import Page
from lab.report.recovery import show_recovery
from lab.report.stamps import show_stamps
from lab.report.table import Column, Piece, Table, forms
from lab.report.text import counted
from lab.report.tolerances import show_tolerances, show_tries

MOST_ROWS = 24
MOST_CHANGES = 6
DASH: Piece = ("–", "dim")


@dataclass(frozen=True)
class _WorkloadRow:
    workload: WorkloadRecord
    cycle: WorkloadCycleRecord
    pause: Measure | None
    several: bool

    @property
    def label(self) -> str:
        kind = "control" if self.cycle.control else "freeze"
        parts = [self.workload.cell, f"{self.cycle.cycle} {kind}"]
        return ", ".join(filter(None, parts))


def show_workloads(page: Page, run: Run, tries: bool = True) -> None:
    """Print the workloads of a run; nothing without any. tries: those of searches as well."""
    names = dict.fromkeys(one.name for one in run.workloads)
    for name in names:
        if not any(one.cycles for one in run.workloads if one.name == name):
            continue
        _workload(page, run, [one for one in run.workloads if one.name == name])
    show_tolerances(page, run)
    if tries:
        show_tries(page, run)


def show_workload_totals(page: Page, run: Run, most: int) -> None:
    """Print a row for each workload, or each of its cells: the worst of its cycles. At most so many rows, the
    worst ones first then."""
    rows = [one for one in run.workloads if one.cycles]
    if not rows:
        return
    shown = rows if len(rows) <= most else sorted(rows, key=lambda one: _ORDER.index(one.outcome))[:most]
    frozen = {id(one): [cycle for cycle in one.cycles if not cycle.control] for one in rows}

    def worst(of: Callable[[WorkloadCycleRecord], Measure | None]) -> Callable[[WorkloadRecord], Piece]:
        def cell(one: WorkloadRecord) -> Piece:
            known = [found for cycle in frozen[id(one)] if (found := of(cycle)) is not None]
            return _length(max(known, key=lambda found: found.value_ns, default=None))

        return cell

    page.blank()
    columns: list[Column[WorkloadRecord]] = [
        Column("workload", lambda one: (", ".join(filter(None, [one.name, one.cell])), "bold")),
        Column("requests", lambda one: (f"{sum(c.requests for c in one.cycles)}", ""), right=True, rank=1),
        Column("failed", lambda one: _count(sum(c.failed for c in one.cycles)), right=True, rank=3),
        Column("longest outage", worst(lambda cycle: cycle.outage), right=True),
        Column("without a freeze", lambda one: _at_most(one.noise_ns), right=True, rank=2),
        Column("verdict", lambda one: VERDICTS[one.outcome]),
    ]
    page.table(Table(columns, shown))
    if len(rows) > len(shown):
        page.labelled("", f"and {counted(len(rows) - len(shown), 'workload')} more", style="dim")


_ORDER = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)


def _at_most(ns: int | None) -> Piece:
    return DASH if ns is None else (f"≤ {format_at_latest(ns)}", "dim")


def _workload(page: Page, run: Run, records: Sequence[WorkloadRecord]) -> None:
    page.blank()
    name, cycles = records[0].name, [cycle for one in records for cycle in one.cycles]
    late = [one.latencies for one in cycles if one.latencies and one.latencies.late_p50_ns is not None]
    worst = max((one.late_p50_ns or 0 for one in late), default=None)
    text = [counted(sum(one.requests for one in cycles), "request")]
    if worst is not None:
        p99 = max(one.late_p99_ns or 0 for one in late)
        text.append(
            f"its client sends {format_magnitude(worst)} late at the median, {format_magnitude(p99)} at p99"
        )
    bound = max((one.clock_bound_ns for one in cycles), default=0)
    if bound:
        text.append(f"it runs in a guest, whose clock is known to ± {format_magnitude(bound)}")
    noise = [one.noise_ns for one in records if one.noise_ns is not None]
    if noise:
        text.append(f"without a freeze its longest outage is {format_at_latest(max(noise))}")
    page.labelled("workload", "; ".join(text), before=[(f"{name}  ", "bold")])
    rows = [
        _WorkloadRow(record, cycle, longest_pause(run, record.cell, cycle.cycle), len(records) > 1)
        for record in records
        for cycle in record.cycles
    ]
    most = page.most(MOST_ROWS)
    page.table(Table(_columns(rows), rows[:most]))
    if len(rows) > most:
        page.labelled("", f"{len(rows) - most} more cycles: freezelab report --json")
    labelled = [(row.label, row.cycle) for row in rows]
    show_gauges(page, labelled)
    show_stamps(page, labelled)
    show_recovery(page, run, records)
    for row in rows[:most]:
        _changes(page, row)
    _predictions(page, rows)


def longest_pause(run: Run, cell: str, cycle: int) -> Measure | None:
    """The longest pause of the cell's guests in this cycle."""
    pauses = [
        one.pause
        for guest in run.guests
        if guest.cell == cell
        for one in guest.cycles
        if one.index == cycle and one.pause is not None and one.frozen
    ]
    return max(pauses, key=lambda one: one.value_ns, default=None)


def _columns(rows: Sequence[_WorkloadRow]) -> list[Column[_WorkloadRow]]:
    """The columns that any row has something for."""
    cycles = [row.cycle for row in rows]
    found: list[Column[_WorkloadRow]] = [
        Column("cycle", lambda row: (row.label, "")),
        Column("pause", lambda row: _length(row.pause), right=True),
    ]
    if any(one.outage for one in cycles):
        found.append(Column("outage", lambda row: _length(row.cycle.outage), right=True))
        found.append(Column("beyond pause", lambda row: _beyond(row.cycle.beyond_pause), right=True, rank=3))
    if any(one.recovery_ns is not None for one in cycles):
        found.append(
            forms(
                Column("back after", lambda row: _time(row.cycle.recovery_ns), right=True, rank=4),
            )
        )
    if any(one.requests for one in cycles):
        found.append(Column("failed", lambda row: _count(row.cycle.failed), right=True, rank=5))
    if any(one.latencies for one in cycles):
        found.append(Column("p99", _p99, right=True, rank=2))
    if any(one.ledger for one in cycles):
        found.append(Column("lost", lambda row: _of_ledger(row, "lost"), right=True, rank=7))
        found.append(Column("twice", lambda row: _of_ledger(row, "twice"), right=True, rank=6))
    if any(one.stale for one in cycles):
        found.append(Column("wrong stamps", _stale, right=True, rank=1))
    if any(one.changes or one.overlaps for one in cycles):
        found.append(Column("state", _state, rank=6))
    if any(one.events for one in cycles):
        found.append(Column("events", _events, rank=6))
    found.append(Column("", lambda row: VERDICTS[row.cycle.outcome]))
    return found


def _beyond(measure: Measure | None) -> Piece:
    """Nothing of it, where the outage was shorter than the pause: it was of a guest that is not frozen."""
    if measure is None:
        return DASH
    return ("none", "dim") if measure.high_ns <= 0 else (interval(measure), "")


def _length(measure: Measure | None) -> Piece:
    return (size(measure), "") if measure is not None else DASH


def _time(ns: int | None) -> Piece:
    return DASH if ns is None else (format_magnitude(ns), "")


def _count(count: int) -> Piece:
    return (f"{count}", "" if count else "dim")


def _p99(row: _WorkloadRow) -> Piece:
    late = row.cycle.latencies
    return DASH if late is None else (format_magnitude(late.p99_ns), "")


def _of_ledger(row: _WorkloadRow, name: str) -> Piece:
    if row.cycle.ledger is None:
        return DASH
    count = int(getattr(row.cycle.ledger, name))
    return f"{count}", "magenta" if count else "dim"


def _stale(row: _WorkloadRow) -> Piece:
    stale = row.cycle.stale
    if stale is None:
        return DASH
    if not stale.wrong:
        return "0", "dim"
    until = "" if stale.last_ns is None else f", until {format_magnitude(stale.last_ns)}"
    return f"{stale.wrong} of {stale.stamped} by {format_magnitude(abs(stale.worst_ns))}{until}", "magenta"


def _state(row: _WorkloadRow) -> Piece:
    names = dict.fromkeys(change.name for change in row.cycle.changes)
    texts = [f"{name} changed" for name in names]
    texts += [f"two {name}" for name in dict.fromkeys(one.name for one in row.cycle.overlaps)]
    return (", ".join(texts), "magenta") if texts else ("unchanged", "dim")


def _events(row: _WorkloadRow) -> Piece:
    texts = [f"{name} {count}" if count > 1 else name for name, count in row.cycle.events.items()]
    return (", ".join(texts), "magenta") if texts else DASH


def _changes(page: Page, row: _WorkloadRow) -> None:
    """Print what has changed in a cycle, and when, since the stop."""
    where = f"{row.label}: "
    for change in row.cycle.changes[:MOST_CHANGES]:
        text = _change(change, "its start" if row.cycle.control else "the stop")
        page.labelled("change", where + text)
    if len(row.cycle.changes) > MOST_CHANGES:
        page.labelled("change", f"{where}{len(row.cycle.changes) - MOST_CHANGES} more")
    for one in row.cycle.overlaps:
        between = format_between(one.length.low_ns, one.length.high_ns)
        page.labelled("both", f"{where}{' and '.join(one.holders)} were both {one.name} for {between}")
    for name, phases in row.cycle.event_phases.items():
        stepped = phases.get("after the clock's step", 0)
        if stepped:
            of = sum(phases.values())
            page.labelled("events", f"{where}{name}: {stepped} of {of} after the clock's step")
    book = row.cycle.ledger
    if book is not None and book.between:
        page.labelled("twice", f"{where}{book.between} more before the cycle began, which do not count")
    for problem in row.cycle.problems:
        page.labelled("problem", where + problem, style="yellow")


def _change(change: StateChangeRecord, since: str) -> str:
    low, high = max(0, change.at.low_ns), max(0, change.at.high_ns)
    at = format_between(low, high) if low else format_at_latest(high)
    when = f", {change.phase}" if change.phase else ""
    return f"{change.name} {change.before} → {change.after}, {at} after {since}{when}"


def _predictions(page: Page, rows: Sequence[_WorkloadRow]) -> None:
    """Print each prediction once, with the cycles that agree and those that do not."""
    texts = dict.fromkeys(one.text for row in rows for one in row.cycle.predictions)
    for text in texts:
        of = [(row, one) for row in rows for one in row.cycle.predictions if one.text == text]
        agreed = sum(one.agrees is True for _, one in of)
        against = [row for row, one in of if one.agrees is False]
        unknown = len(of) - agreed - len(against)
        parts = [f"as predicted in {counted(agreed, 'cycle')}"] if agreed else []
        if against:
            parts.append(f"NOT in {', '.join(row.label for row in against)}")
        if unknown:
            parts.append(f"undecided in {unknown}")
        page.labelled("predicted", f"{text}: {', '.join(parts)}", style="magenta" if against else "")
