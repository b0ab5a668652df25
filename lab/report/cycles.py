"""The table of cycles: one row for each guest's cycle, with as many columns as the page has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.core.quantities import format_at_latest, format_magnitude
from lab.core.verdict import Outcome
from lab.report.numbers import NOT_MEASURED, behind, interval
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, Table, forms
from lab.report.text import counted, shortened

if TYPE_CHECKING:
    from lab.record.model import CycleRecord, GuestRecord, Run

MOST_ROWS = 20
WORST_ROWS = 10

VERDICTS: dict[Outcome, Piece] = {
    Outcome.PASSED: ("passed", "green"),
    Outcome.FAILED: ("FAILED", "bold red"),
    Outcome.INCONCLUSIVE: ("inconclusive", "yellow"),
}
"""The verdicts differ in their letters as well, for output without colour."""

_ORDER = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)


@dataclass(frozen=True)
class Row:
    """A row of the table. cycle: None for a guest that had no cycle."""

    guest: GuestRecord
    cycle: CycleRecord | None

    @property
    def outcome(self) -> Outcome:
        return self.cycle.outcome if self.cycle is not None else Outcome.INCONCLUSIVE

    @property
    def worst_first(self) -> tuple[int, int, int]:
        final = self.cycle.offset.final if self.cycle else None
        used = self.cycle.used_ns if self.cycle else None
        return _ORDER.index(self.outcome), -abs(final.value_ns) if final else 0, -(used or 0)


def rows_of(run: Run) -> list[Row]:
    """The rows in the order of guests, then cycles. Guests that a stopped rollout did not reach, and peers,
    have no row."""
    found: list[Row] = []
    spared = {
        name
        for rollout in run.rollouts
        if rollout.ended == "stopped"
        for wave in rollout.waves
        if wave.state == "not begun"
        for domain in wave.domains
        for name in domain.guests
    }
    for guest in run.guests:
        found.extend(Row(guest, cycle) for cycle in guest.cycles)
        if not guest.cycles and guest.name not in spared and not guest.peer:
            found.append(Row(guest, None))
    return found


Cell = Callable[[Row], Piece]


NONE = "–"


def _missing(row: Row) -> Piece:
    """The text in place of a missing number. If the pause is missing too, only its column has the text."""
    return (
        (NOT_MEASURED, "yellow")
        if row.cycle is not None and row.cycle.pause is not None
        else (NONE, "yellow")
    )


def pause_cell(unit: bool) -> Cell:
    """The cell of the pause, or what there was in place of one."""

    def cell(row: Row) -> Piece:
        if row.cycle is not None and row.cycle.control:
            return "called off" if row.cycle.cancelled else "control", "dim"
        if row.cycle is not None and row.cycle.outage_ns is not None:
            return f"down {format_magnitude(row.cycle.outage_ns)}", ""
        if row.cycle is not None and not row.cycle.frozen and row.cycle.pause is not None:
            return "no freeze", "dim"
        pause = row.cycle.pause if row.cycle else None
        return interval(pause, unit=unit), "" if pause else "yellow"

    return cell


def _regime(row: Row) -> Piece:
    if row.cycle is not None and row.cycle.outage_ns is not None:
        return NONE, "dim"
    if row.cycle is None or row.cycle.pause is None:
        return _missing(row)
    return (row.cycle.regime, "") if row.cycle.regime else ("undecided", "yellow")


def behind_cell(unit: bool) -> Cell:
    """The cell of the offset at the resume."""

    def cell(row: Row) -> Piece:
        at_resume = row.cycle.offset.at_resume if row.cycle else None
        return (behind(at_resume, unit=unit), "") if at_resume else _missing(row)

    return cell


def final_cell(unit: bool) -> Cell:
    """The cell of the last offset."""

    def cell(row: Row) -> Piece:
        final = row.cycle.offset.final if row.cycle else None
        return (interval(final, signed=True, unit=unit), "") if final else _missing(row)

    return cell


def in_time_cell(how: bool) -> Cell:
    """The cell of the time to sync. how: with the kind of the correction."""

    def cell(row: Row) -> Piece:
        resync = row.cycle.resync if row.cycle else None
        if resync is None:
            return _missing(row)
        if resync.time_ns is None:
            return ("never", "red") if resync.outcome == "not synced" else ("undecided", "yellow")
        moved = how and resync.correction not in (None, "none")
        return f"{format_at_latest(resync.time_ns)} ({resync.correction})" if moved else format_at_latest(
            resync.time_ns
        ), ""

    return cell


def _with_unit(head: str, cell: Callable[[bool], Cell]) -> Column[Row]:
    """A column of milliseconds. The unit is in each cell or, on narrow pages, in the head, which then has two
    lines."""
    return forms(
        Column(head.replace("\n", " "), cell(True), right=True, rank=UNIT),
        Column(f"{head}, ms", cell(False), right=True),
    )


UNIT = 3
"""The rank from which on heads have the unit, and two lines."""
REGIME = 5


def _columns(rows: Sequence[Row], several: bool, methods: bool, regime: float) -> list[Column[Row]]:
    """The columns. several: there are several guests. methods: there are several methods. regime: the rank of
    its column."""
    columns: list[Column[Row]] = [
        forms(
            Column("guest", lambda row: (shortened(row.guest.name, 63), "bold"), rank=UNIT),
            Column("guest", lambda row: (shortened(row.guest.name, 24), "bold"), rank=4),
            Column(
                "guest",
                lambda row: (shortened(row.guest.name, 12), "bold"),
                rank=ALWAYS if several else regime,
            ),
        )
    ]
    if any(row.cycle is not None and row.cycle.index for row in rows):
        columns.append(Column("cycle", lambda row: (str(row.cycle.index) if row.cycle else "-", ""), True))
    if methods:
        columns.append(Column("method", lambda row: (row.cycle.method if row.cycle else "-", ""), rank=2))
    return [
        *columns,
        _with_unit("pause", pause_cell),
        Column("regime", _regime, rank=regime),
        _with_unit("behind\nat resume", behind_cell),
        forms(
            Column("in time after", in_time_cell(True), rank=2),
            Column("in time after", in_time_cell(False), right=True, rank=UNIT),
            Column("in time\nafter", in_time_cell(False), right=True),
        ),
        _with_unit("final\noffset", final_cell),
        Column("verdict", lambda row: VERDICTS[row.outcome]),
    ]


def show_cycles(page: Page, run: Run, most: int = MOST_ROWS, worst: int = WORST_ROWS) -> None:
    """Print the table; if there are more than `most` rows, at most `worst` of them, the worst ones."""
    rows = shown = rows_of(run)
    if len(rows) > page.most(most):
        bad = sum(row.outcome is not Outcome.PASSED for row in rows)
        shown = sorted(rows, key=lambda row: row.worst_first)[: max(3, min(bad, worst))]
        page.parts([f"the {len(shown)} worst of {counted(len(rows), 'cycle')}"], "dim")
    frozen = [row.cycle for row in rows if row.cycle is not None and not row.cycle.control]
    regimes = {cycle.regime for cycle in frozen if cycle.pause is not None}
    alike = len(shown) > 1 and len(regimes) == 1
    columns = _columns(
        shown,
        several=len(run.guests) > 1,
        methods=len({cycle.method for cycle in frozen}) > 1,
        regime=REGIME if alike else ALWAYS,
    )
    layout = page.table(Table(columns, shown, gaps={3: 1, 2: ALWAYS}), cut=False)
    if layout is None:
        for row in shown:
            _stacked(page, row, close=len(shown) > (4 if most == MOST_ROWS else 1))
    elif all(column.head != "regime" for column in layout.columns):
        page.parts([f"regime: {next(iter(regimes)) or 'undecided'} in every freeze"], "dim")


def _stacked(page: Page, row: Row, close: bool) -> None:
    """Print one row as a few labelled lines, for narrow pages. close: use as few lines as possible."""
    cycle = f", cycle {row.cycle.index}" if row.cycle is not None and row.cycle.index else ""
    verdict = VERDICTS[row.outcome]
    room = page.width - len(verdict[0]) - len(cycle) - 2
    page.put((shortened(row.guest.name, room), "bold"), (f"{cycle}  ", ""), verdict)
    regime = _regime(row)[0]
    pause, style = pause_cell(True)(row)
    labels = [
        ("pause", f"{pause}, {regime}" if regime != NONE else pause, style),
        ("behind at resume", *behind_cell(True)(row)),
        ("in time after", *in_time_cell(True)(row)),
        ("final offset", *final_cell(True)(row)),
    ]
    if close:
        page.labelled("", " · ".join(f"{label} {text}" for label, text, _ in labels if text != NONE), width=0)
        return
    for label, text, style in labels:
        page.labelled(f"  {label}", text, style=style, width=len("  behind at resume"))
