"""The cells of a matrix, and what was left out of it, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab.core.lanes import batches
from lab.core.plan import Cell, GuestSpec, Plan
from lab.core.units import format_size
from lab.report.cells import show_left_out
from lab.report.page import Column, Grid, Page, Piece
from lab.report.text import counted

VARIOUS = "various"


@dataclass(frozen=True)
class _Fact:
    """A column: what a cell has there."""

    head: str
    of: Callable[[Cell], str]
    right: bool = False


def share(fill: float) -> str:
    """A fill as it is written: "75 %"; "" for none."""
    return f"{100 * fill:g} %" if fill else ""


def _each(of: Callable[[GuestSpec], str]) -> Callable[[Cell], str]:
    """What all guests of a cell have in common."""

    def common(cell: Cell) -> str:
        seen = {of(guest) for guest in cell.guests}
        return seen.pop() if len(seen) == 1 else VARIOUS

    return common


def _cycles(cell: Cell) -> str:
    return f"{cell.repeat} + {cell.control}" if cell.control else str(cell.repeat)


_ID = _Fact("cell", lambda cell: cell.id)
# In the order in which they are worth their room.
_FACTS = (
    _Fact("method", lambda cell: cell.cycle.method),
    _Fact("memory", _each(lambda guest: format_size(guest.memory_bytes)), right=True),
    _Fact("vCPUs", _each(lambda guest: str(guest.vcpus)), right=True),
    _Fact("patch", lambda cell: cell.cycle.patch.label),
    _Fact("resync", lambda cell: cell.resync),
    _Fact("filled", _each(lambda guest: share(guest.fill)), right=True),
    _Fact("image", _each(lambda guest: guest.image)),
    _Fact("saved to", lambda cell: cell.cycle.save_to),
    _Fact("proof", lambda cell: "of RAM" if cell.cycle.prove_memory else ""),
)
_ALWAYS = 5  # of them are shown where there is room, whether or not they vary
_CYCLES = _Fact("cycles", _cycles, right=True)


def cells(page: Page, plan: Plan) -> None:
    """The cells in the order in which they are run, and what is not run."""
    lanes = max(map(len, batches(plan)))
    how = f"up to {lanes} at the same time, each on guests of its own" if lanes > 1 else "one after another"
    page.parts([f"{counted(len(plan.cells), 'cell')}, {how}:"], "bold")
    if not page.grid(*_grids(plan)):
        page.squeezed(list(_grids(plan))[-1])
    show_left_out(page, [(tuple(value for _, value in one.values), one.why) for one in plan.left_out])


def _grids(plan: Plan) -> Iterator[Grid]:
    """Tables of the cells, each a column poorer: first those go that are the same everywhere."""
    varies = [len({fact.of(cell) for cell in plan.cells}) > 1 for fact in _FACTS]
    shown = [number for number, varied in enumerate(varies) if varied or number < _ALWAYS]
    while True:
        yield _grid(plan, [_ID, *(_FACTS[number] for number in shown), _CYCLES])
        if not shown:
            break
        shown.remove(next((number for number in reversed(shown) if not varies[number]), shown[-1]))
    yield _grid(plan, [_ID])


def _grid(plan: Plan, facts: list[_Fact]) -> Grid:
    grid = Grid([Column(fact.head, fact.right) for fact in facts])
    for cell in plan.cells:
        row: list[Piece] = [(fact.of(cell), "bold" if fact is _ID else "") for fact in facts]
        grid.rows.append(row)
    return grid
