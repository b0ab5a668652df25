"""A matrix: a row for each cell, and comparisons of cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.core.quantities import format_at_latest, format_length, format_magnitude, format_ms, format_seconds
from lab.core.units import NS_PER_MS
from lab.record.model import CellRecord, Comparison, CycleRecord, Run
from lab.report.cycles import VERDICTS
from lab.report.notices import approvals, has_approvals
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, Table
from lab.report.text import counted, shortened

MOST_CELLS = 40
WORKLOAD = "workload"
"""The axis of workloads."""
_SECTION = re.compile(r"name: ([^,]+)(?:, options: \{([^{}]*)\})?(?:, .*)?")
"""A workload that is written as a section, in a cell's values."""


@dataclass(frozen=True)
class CellRow:
    """A cell, and its cycles without control cycles."""

    cell: CellRecord
    cycles: Sequence[CycleRecord]


def cycles_of(run: Run, cell: CellRecord) -> list[CycleRecord]:
    """The cell's cycles without control cycles."""
    return [c for g in run.guests if g.cell == cell.id for c in g.cycles if not c.control]


def short_values(run: Run) -> dict[str, Mapping[str, str]]:
    """The values of each cell, by axis. A workload that is written as a section is its name and options,
    "corosync, token: 3000", unless two would be called the same."""
    values: dict[str, Mapping[str, str]] = {cell.id: cell.values for cell in run.cells}
    written = {cell.values[WORKLOAD] for cell in run.cells if WORKLOAD in cell.values}
    short = {text: _short(text) for text in written}
    if len(set(short.values())) < len(short):
        return values
    return {
        cell: {axis: short[text] if axis == WORKLOAD else text for axis, text in own.items()}
        for cell, own in values.items()
    }


def _short(text: str) -> str:
    found = _SECTION.fullmatch(text)
    return text if found is None else ", ".join(filter(None, found.groups()))


def _count(row: CellRow) -> Piece:
    whole = row.cell.cycles >= row.cell.wanted  # a search for a tolerance has more
    return (
        str(row.cell.cycles) if whole else f"{row.cell.cycles} of {row.cell.wanted}"
    ), "" if whole else "yellow"


def pause_of(row: CellRow) -> Piece:
    """The cell's pause, or why there is none."""
    if not row.cycles:
        return ("refused" if row.cell.refused else "not run"), "yellow"
    if row.cell.pause is not None:
        felt = sorted(c.pause.value_ns for c in row.cycles if c.pause is not None)
        if len({c.patch for c in row.cycles}) > 1 and len(felt) > 1:  # a search has a median of no meaning
            return f"{format_length(felt[0])} to {format_length(felt[-1])}", ""
        return interval(row.cell.pause), ""
    outages = sorted(c.outage_ns for c in row.cycles if c.outage_ns is not None)
    if outages:
        return f"down {format_magnitude(outages[len(outages) // 2])}", ""
    return ("no freeze", "dim") if not any(c.frozen for c in row.cycles) else ("not measured", "yellow")


def _p95(row: CellRow) -> Piece:
    statistic = next((s for s in row.cell.statistics if (s.kind, s.metric) == ("freeze", "pause")), None)
    return ("", "") if statistic is None else (format_ms(statistic.p95.value), "")


def _regime(row: CellRow) -> Piece:
    paused = [c for c in row.cycles if c.pause is not None]
    counts: dict[str, int] = {}
    for cycle in paused:
        counts[cycle.regime or "undecided"] = counts.get(cycle.regime or "undecided", 0) + 1
    style = "yellow" if "undecided" in counts else ""
    if len(counts) == 1:
        return next(iter(counts)), style
    return ", ".join(f"{count} {regime}" for regime, count in counts.items()) or "–", style


def _notice(row: CellRow) -> Piece:
    events = row.cell.events
    return (
        ("–", "dim") if events is None or events.notice_ns is None else (format_seconds(events.notice_ns), "")
    )


def _approved(row: CellRow) -> Piece:
    return approvals(row.cell.events)


def in_time_of(row: CellRow) -> Piece:
    """The time by which all cycles of the cell were in time."""
    known = [c.resync for c in row.cycles if c.resync is not None]
    if not known:
        return "–", ""
    late = [r for r in known if r.time_ns is None]
    if late:
        word = "never" if any(r.outcome == "not synced" for r in late) else "undecided"
        return (word if len(known) == 1 else f"{word}: {len(late)} of {len(known)}"), (
            "red" if word == "never" else "yellow"
        )
    return format_at_latest(max(r.time_ns or 0 for r in known)), ""


def show_cells(page: Page, run: Run, most: int = MOST_CELLS) -> None:
    """Print a row for each cell; if there are more than `most`, only the worst ones."""
    shown: Sequence[CellRecord] = run.cells
    if len(shown) > page.most(most):
        order = ("failed", "inconclusive", "passed")
        shown = sorted(shown, key=lambda cell: order.index(cell.outcome))[:most]
        page.parts([f"the {len(shown)} worst of {counted(len(run.cells), 'cell')}"], "dim")
    columns: list[Column[CellRow]] = [Column("cell", lambda row: (row.cell.id, "bold"))]
    if not all(cell.method in cell.id for cell in run.cells):
        columns.append(Column("method", lambda row: (row.cell.method, ""), rank=2))
    if any(cell.wanted > 1 for cell in run.cells):
        columns.append(Column("cycles", _count, right=True, rank=7))
    columns.append(Column("pause", pause_of, right=True))
    if any(len(cell.statistics) for cell in run.cells):
        columns.append(Column("p95, ms", _p95, right=True, rank=6))
    announced: list[Column[CellRow]] = [
        Column("notice", _notice, right=True, rank=3),
        *([Column("approved", _approved, right=True, rank=1)] if has_approvals(run) else []),
    ]
    columns += [
        Column("regime", _regime, rank=4),
        Column("in time by", in_time_of, right=True, rank=5),
        *(announced if any(cell.events for cell in run.cells) else []),
        Column("verdict", lambda row: VERDICTS[row.cell.outcome]),
    ]
    rows = [CellRow(cell, cycles_of(run, cell)) for cell in shown]
    page.table(Table(columns, rows, gaps={3: 1, 2: 3, 1: ALWAYS}))


def show_comparisons(page: Page, run: Run) -> None:
    """Print slopes and ratios, a row for each."""
    slopes: Table[Comparison] = Table(
        [
            Column("pause over memory", _name),
            Column("ms/GiB", lambda one: (f"{one.value / NS_PER_MS:+.1f}", ""), right=True),
            Column("95 %", _slope_limits, right=True),
            Column("", lambda one: (_trend(one), ""), rank=1),
        ],
        [one for one in run.comparisons if one.kind == "slope"],
    )
    ratios: Table[Comparison] = Table(
        [
            Column("save-restore / in-place", _name),
            Column("ratio", lambda one: (f"{one.value:{_digits(one)}}x", ""), right=True),
            Column("95 %", lambda one: (_interval(one.low, one.high, _digits(one)), "dim"), right=True),
        ],
        [one for one in run.comparisons if one.kind != "slope"],
    )
    for table in (slopes, ratios):
        if table.rows:
            page.blank()
            page.table(table)


def _name(one: Comparison) -> Piece:
    return " ".join(shortened(value, 40) for value in one.of.values()) or "all", "bold"


def _slope_limits(one: Comparison) -> Piece:
    low, high = (None if v is None else v / NS_PER_MS for v in (one.low, one.high))
    return _interval(low, high, "+.1f"), "dim"


def _digits(one: Comparison) -> str:
    return ".0f" if one.value >= 100 else ".1f"


EXAMPLES = 3  # of what is left out for one reason


def show_left_out(page: Page, given: Sequence[tuple[Sequence[str], str]]) -> None:
    """Print combinations of the matrix that are left out, as (values, reason): a line for each reason."""
    groups: dict[str, list[Sequence[str]]] = {}
    for values, why in given:
        groups.setdefault(why, []).append(values)
    for why, group in groups.items():
        label = f"{counted(len(group), 'combination')} left out"
        # A value may have commas of its own.
        examples = "; ".join(" · ".join(values) for values in group[:EXAMPLES])
        more = f"; and {len(group) - EXAMPLES} more" if len(group) > EXAMPLES else ""
        page.labelled(label, f"{why}: {examples}{more}", width=len(label))


def _interval(low: float | None, high: float | None, digits: str) -> str:
    """ "[-0.2, +0.9]"; "–" where there are too few cycles for one."""
    return "–" if low is None or high is None else f"[{low:{digits}}, {high:{digits}}]"


def _trend(one: Comparison) -> str:
    if one.low is None or one.high is None:
        return f"too few cycles: {one.cycles}"
    if one.low <= 0 <= one.high:
        return "flat"
    return "grows" if one.low > 0 else "falls"
