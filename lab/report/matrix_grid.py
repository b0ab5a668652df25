"""A matrix in small: a row for each value of one axis, a column for each combination of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lab.core.quantities import format_at_latest
from lab.core.verdict import Outcome
from lab.record.model import CellRecord, CycleRecord, Run
from lab.report.cells import cycles_of, short_values
from lab.report.cycles import VERDICTS
from lab.report.numbers import size
from lab.report.page import Page
from lab.report.resync_table import RESYNC, is_resync_matrix
from lab.report.table import Column, Piece, Table
from lab.report.text import shortened

MOST_CELLS = 12
"""With more cells than this, they are a grid on a page of one screen."""
MOST_GRID_ROWS = 14
LONGEST_NAME = 18
_MARKS = {Outcome.FAILED: " !", Outcome.INCONCLUSIVE: " ?", Outcome.PASSED: ""}


@dataclass(frozen=True)
class _GridRow:
    """The cells of one value of the first axis, by the values of the others."""

    name: str
    cells: dict[tuple[str, ...], CellRecord]


def show_grid(page: Page, run: Run) -> bool:
    """Print the grid; False, and nothing, when it does not fit the page or the screen."""
    axis = _first_axis(run)
    others = [name for name in run.cells[0].values if name != axis]
    rows: dict[str, _GridRow] = {}
    heads: dict[tuple[str, ...], None] = {}
    values = short_values(run)
    for cell in run.cells:
        rest = tuple(values[cell.id].get(name, "") for name in others)
        heads[rest] = None
        name = values[cell.id].get(axis, "")
        rows.setdefault(name, _GridRow(name, {})).cells[rest] = cell
    text = partial(_in_time if is_resync_matrix(run) else _pause, run)
    # A value that is the same in all columns says nothing.
    varies = [len({head[at] for head in heads}) > 1 for at in range(len(others))]
    columns: list[Column[_GridRow]] = [
        Column(axis, lambda row: (shortened(row.name, LONGEST_NAME), "bold")),
        *(_column("\n".join(v for v, shown in zip(head, varies, strict=True) if shown), head, text)
          for head in heads),
    ]  # fmt: skip
    layout = page.fitted(table := Table(columns, [*rows.values()], gaps={2: 1, 1: 2}))
    if layout.width > page.width or len(rows) > MOST_GRID_ROWS:
        return False
    page.table(table)
    what = "in time after" if is_resync_matrix(run) else "pause"
    marks = (f"{mark.strip()} {VERDICTS[outcome][0]}" for outcome, mark in _MARKS.items() if mark)
    page.parts([f"each cell: {what}", *marks], "dim")
    return True


def _first_axis(run: Run) -> str:
    """The axis of the rows: the mechanism, or the one with most values."""
    if is_resync_matrix(run):
        return RESYNC
    values: dict[str, set[str]] = {}
    for cell in run.cells:
        for name, value in cell.values.items():
            values.setdefault(name, set()).add(value)
    return max(values, key=lambda name: len(values[name]))


def _column(head: str, of: tuple[str, ...], text: Callable[[CellRecord], str]) -> Column[_GridRow]:
    def cell(row: _GridRow) -> Piece:
        found = row.cells.get(of)
        if found is None:
            return "", ""
        return f"{text(found)}{_MARKS[found.outcome]}", VERDICTS[found.outcome][1]

    return Column(head, cell, right=True)


def _absent(cell: CellRecord, cycles: Sequence[CycleRecord]) -> str:
    return "refused" if cell.refused else "–" if cycles else "not run"


def _in_time(run: Run, cell: CellRecord) -> str:
    cycles = cycles_of(run, cell)
    known = [c.resync for c in cycles if c.resync is not None]
    if not known:
        return _absent(cell, cycles)
    times = [resync.time_ns for resync in known if resync.time_ns is not None]
    if len(times) == len(known):
        return format_at_latest(max(times))
    return "never" if any(resync.outcome == "not synced" for resync in known) else "undecided"


def _pause(run: Run, cell: CellRecord) -> str:
    return size(cell.pause) if cell.pause is not None else _absent(cell, cycles_of(run, cell))
