"""A matrix: a heat table of its cells, and a card for each, which a cell of the table opens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from markupsafe import Markup

from lab.core.units import format_duration
from lab.core.verdict import Outcome
from lab.record.model import CellRecord, Run
from lab.report.cells import CellRow, cycles_of, in_time_of, pause_of, short_values
from lab.report.cycles import rows_of, show_cycles
from lab.report.html.blocks import printed
from lab.report.html.cycles import name_of, pictures
from lab.report.html.document import PictureIds, markup
from lab.report.reasons import show_reasons
from lab.report.resync_table import is_resync_matrix
from lab.report.text import counted

MOST_COLUMNS = 8
STEPS = 5
"""The number of shades."""
_ORDER = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)


@dataclass(frozen=True)
class HeatCell:
    """A cell of the table. shade: from 0 on; longer is darker. id: of its card."""

    id: str
    name: str
    outcome: Outcome
    text: str
    shade: int


@dataclass(frozen=True)
class HeatRow:
    name: str
    cells: Sequence[HeatCell | None]


@dataclass(frozen=True)
class CellCard:
    """What is known of a cell. line: its main figures, for a card that is closed."""

    id: str
    name: str
    outcome: Outcome
    line: str
    why: str
    words: Markup
    whose: str
    pictures: Markup


def heat_table(run: Run, ids: Mapping[str, str]) -> Markup:
    """The table, by what the matrix is about (_MEASURES). ids: of the cells' cards."""
    measure = next(text for rule, text in _MEASURES.items() if rule(run))
    figures = {cell.id: _figure(run, cell) for cell in run.cells}
    known = [size for _, size in figures.values() if size]
    across, axes = _axes(run)
    values = short_values(run)
    heads = list(dict.fromkeys(values[cell.id].get(across, "") for cell in run.cells))
    rows: dict[str, dict[str, HeatCell]] = {}
    for cell in run.cells:
        text, size = figures[cell.id]
        name = " · ".join(values[cell.id].get(axis, "") for axis in axes) or "all"
        shown = HeatCell(ids[cell.id], cell.id, cell.outcome, text, _shade(size, known))
        rows.setdefault(name, {})[values[cell.id].get(across, "")] = shown
    return markup(
        "heat.html.j2",
        axes=" · ".join(axes), across=across, heads=heads,
        rows=[HeatRow(name, [given.get(head) for head in heads]) for name, given in rows.items()],
        measure=measure,
    )  # fmt: skip


def _axes(run: Run) -> tuple[str, list[str]]:
    """The axis that goes across, the longest that has room, and the others, which go down."""
    values = {axis: {cell.values.get(axis, "") for cell in run.cells} for axis in run.cells[0].values}
    room = [axis for axis, found in values.items() if 1 < len(found) <= MOST_COLUMNS]
    across = max(room or list(values)[-1:], key=lambda axis: len(values[axis]), default="")
    if len(values) == 1:  # one column reads better than one row
        return "", list(values)
    return across, [axis for axis in values if axis != across]


_MEASURES: dict[Callable[[Run], bool], str] = {
    lambda run: bool(run.tolerances): "the longest pause that passed / the shortest that failed",
    is_resync_matrix: "the time until the clock is in time",
    lambda _: True: "the pause",
}
"""What the table shows, for the first rule that holds."""


def _figure(run: Run, cell: CellRecord) -> tuple[str, int]:
    """The text of a cell and its size, in nanoseconds; 0 when there is none."""
    row = CellRow(cell, cycles_of(run, cell))
    for search in run.tolerances:
        if search.cell == cell.id and row.cycles:
            ends = (search.longest_passed_ns, search.shortest_failed_ns)
            text = " / ".join("none" if end is None else format_duration(end) for end in ends)
            return text, search.longest_passed_ns or 0
    if row.cycles and is_resync_matrix(run):
        times = [c.resync.time_ns or 0 for c in row.cycles if c.resync is not None]
        return in_time_of(row)[0], max(times, default=0)
    return pause_of(row)[0], cell.pause.value_ns if cell.pause is not None else 0


def _shade(size: int, known: Sequence[int]) -> int:
    """The shade of a size, on a logarithmic scale over all of them."""
    if not size or max(known) <= 1.05 * min(known):
        return 0
    low, high = math.log(min(known)), math.log(max(known))
    return min(STEPS - 1, int((math.log(size) - low) / (high - low) * STEPS))


def of_cell(run: Run, cell: CellRecord) -> Run:
    """The run with this cell's guests and findings alone."""
    return replace(
        run,
        guests=tuple(guest for guest in run.guests if guest.cell == cell.id),
        findings=tuple(finding for finding in run.findings if finding.cell == cell.id),
        cells=(),
        rollouts=(),
    )


def cell_cards(run: Run, ids: PictureIds) -> tuple[Markup, dict[str, str]]:
    """The cards, those that did not pass first, and the id of each by its cell's."""
    cells = sorted(run.cells, key=lambda cell: _ORDER.index(cell.outcome))
    named = {cell.id: ids.new() for cell in run.cells}
    return markup("cells.html.j2", cards=list(_cards(run, cells, named, ids))), named


def _cards(
    run: Run, cells: Sequence[CellRecord], named: Mapping[str, str], ids: PictureIds
) -> Iterator[CellCard]:
    for cell in cells:
        own = of_cell(run, cell)
        row = CellRow(cell, cycles_of(run, cell))
        texts = [pause_of(row)[0], counted(len(row.cycles), "cycle") if len(row.cycles) != 1 else ""]
        if (in_time := in_time_of(row)[0]) != "–":
            texts.append(f"in time by {in_time}" if in_time[0].isdigit() else f"in time: {in_time}")
        worst = min(
            (one for one in rows_of(own) if one.cycle is not None and not one.cycle.control),
            key=lambda one: one.worst_first,
            default=None,
        )
        many = len(row.cycles) > 1
        yield CellCard(
            named[cell.id],
            cell.id,
            cell.outcome,
            ", ".join(filter(None, texts)),
            cell.why,
            printed(partial(show_cycles, run=own), partial(show_reasons, run=own))
            if row.cycles
            else Markup(),
            name_of(own, worst) if worst is not None and many else "",
            pictures(run, worst, ids) if worst is not None else Markup(),
        )
