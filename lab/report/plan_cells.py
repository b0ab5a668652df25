"""A table of a matrix's cells, and of the combinations that are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from lab.core.fleet_placement import placed_hosts
from lab.core.parallel_cells import batches
from lab.core.plan import Cell, GuestSpec, Plan
from lab.core.units import format_duration, format_size
from lab.report.cells import show_left_out
from lab.report.page import Page
from lab.report.table import Column, Table
from lab.report.text import counted

VARIOUS = "various"


def image_name(image: str) -> str:
    """An image's name; of a path its last part."""
    return image.rpartition("/")[2]


def share(fill: float) -> str:
    """A fill in the form of playbooks: "75 %"; "" for none."""
    return f"{100 * fill:g} %" if fill else ""


def _each(of: Callable[[GuestSpec], str]) -> Callable[[Cell], str]:
    """The common value of all guests of a cell."""

    def common(cell: Cell) -> str:
        values = {of(guest) for guest in cell.guests}
        return values.pop() if len(values) == 1 else VARIOUS

    return common


def _cycles(cell: Cell) -> str:
    if cell.tolerance is not None:
        return f"search + {cell.control}" if cell.control else "search"
    cycles = f"{cell.repeat} + {cell.control}" if cell.control else str(cell.repeat)
    return f"{cycles}, or refused" if cell.may_be_refused else cycles


def _patch(cell: Cell) -> str:
    search = cell.tolerance
    if search is None:
        return cell.cycle.patch.label
    return f"hold {format_duration(search.shortest_ns)} to {format_duration(search.longest_ns)}"


def _fact(head: str, of: Callable[[Cell], str], right: bool = False) -> Column[Cell]:
    return Column(head, lambda cell: (of(cell), ""), right)


# In the order in which they are worth their room.
_FACTS = (
    _fact("method", lambda cell: cell.cycle.method),
    _fact("memory", _each(lambda guest: format_size(guest.memory_bytes)), right=True),
    _fact("vCPUs", _each(lambda guest: str(guest.vcpus)), right=True),
    _fact("patch", _patch),
    _fact("resync", lambda cell: cell.resync),
    _fact("filled", _each(lambda guest: share(guest.fill)), right=True),
    _fact("image", _each(lambda guest: image_name(guest.image))),
    _fact("saved to", lambda cell: cell.cycle.save_to),
    _fact("proof", lambda cell: "of RAM" if cell.cycle.prove_memory else ""),
)
_ALWAYS = 5  # of them are shown where there is room, whether or not they vary


def cells(page: Page, plan: Plan) -> None:
    """Print the cells in the order of the run, and the combinations that are left out."""
    lanes = max(map(len, batches(plan)))
    how = f"up to {lanes} at the same time, each on guests of its own" if lanes > 1 else "one after another"
    if placed_hosts(plan):
        who = "all" if plan.rollout is None else "those of a wave"
        how = f"each on its host, {who} frozen at one instant"
    page.parts([f"{counted(len(plan.cells), 'cell')}, {how}:"], "bold")
    columns = [Column[Cell]("cell", lambda cell: (cell.id, "bold")), *_ranked(plan)]
    page.table(Table([*columns, Column("cycles", lambda cell: (_cycles(cell), ""), True, 100)], plan.cells))
    show_left_out(page, [(tuple(value for _, value in one.values), one.why) for one in plan.left_out])


def _ranked(plan: Plan) -> Iterator[Column[Cell]]:
    """The columns of the table. Columns with the same value in every cell are dropped first, then less
    important ones."""
    for place, fact in enumerate(_FACTS):
        varies = len({fact.cell(cell) for cell in plan.cells}) > 1
        if varies or place < _ALWAYS:
            yield replace(fact, rank=(len(_FACTS) if varies else 0) - place)
