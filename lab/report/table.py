"""Tables with ranked columns: on a page that is too narrow the lowest rank is dropped first.

A column has a head and a function that makes its cell of a row. It may have a narrower form (`narrower`):
when the column's rank is reached, it takes that form, or is dropped if there is none. A gap between the
columns has a rank as well. So a table is narrowed step by step, in the order of the ranks alone, until it
fits; steps of the same rank are taken together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf
from typing import Generic, TypeVar

from rich.cells import cell_len

from lab.report.text import shortened

Piece = tuple[str, str]
"""A text and its style."""
T = TypeVar("T")
"""The value of a row."""

ALWAYS = inf
"""The rank of columns that are never dropped."""
GAP = 2
"""The usual gap."""
LEAST_CELL = 4
"""The least width to which cells are cut, in columns of the terminal."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """head and cell: "\\n" breaks them, and the later lines of a cell are dim. right: flush right, for
    numbers. rank: when it is dropped. narrower: the form that replaces it then."""

    head: str
    cell: Callable[[T], Piece]
    right: bool = False
    rank: float = ALWAYS
    narrower: Column[T] | None = None


def forms(*given: Column[T]) -> Column[T]:
    """A column with several forms; each replaces the one before when that one's rank is reached."""
    first, *rest = given
    return replace(first, narrower=forms(*rest)) if rest else first


@dataclass
class Table(Generic[T]):
    """gaps: columns of the terminal between those of the table, the widest first, and the rank of each.
    rest: makes one column of those that were dropped."""

    columns: Sequence[Column[T]]
    rows: Sequence[T]
    gaps: Mapping[int, float] = field(default_factory=lambda: {GAP: ALWAYS})
    rest: Callable[[Sequence[Column[T]]], Column[T]] | None = None

    def fitted(self, width: int, words: Callable[[str], str]) -> Layout[T]:
        """The widest form of the table that fits in `width` columns of the terminal; if none does, the
        narrowest. words: converts a text to what is printed."""
        made: dict[int, Layout[T]] = {}  # of each column alone: its cells are made once

        def alone(column: Column[T]) -> Layout[T]:
            return made.setdefault(id(column), Layout.of([column], self.rows, 0, words))

        for reached in self._ranks():
            shown = [form for column in self.columns if (form := _form(column, reached)) is not None]
            if self.rest is not None and len(shown) < len(self.columns):
                shown.append(self.rest([c for c in self.columns if _form(c, reached) is None]))
            parts = [alone(column) for column in shown]
            layout = Layout.beside(parts, next(gap for gap, rank in self.gaps.items() if rank > reached))
            if layout.width <= width:
                break
        # A column that went after the usual gap may have made room for it.
        usual = Layout.beside(parts, GAP)
        return usual if layout.gap < GAP and usual.width <= width else layout

    def _ranks(self) -> list[float]:
        """The ranks in the order in which they are reached; none at first."""
        found = {rank for rank in self.gaps.values() if rank < ALWAYS}
        for column in self.columns:
            form: Column[T] | None = column
            while form is not None and form.rank < ALWAYS:
                found.add(form.rank)
                form = form.narrower
        return [-inf, *sorted(found)]


def _form(column: Column[T], reached: float) -> Column[T] | None:
    """The form of a column after rank `reached`; None: it is dropped."""
    form: Column[T] | None = column
    while form is not None and form.rank <= reached:
        form = form.narrower
    return form


@dataclass(frozen=True)
class Layout(Generic[T]):
    """A table as it is printed. heads, cells: the printed texts, a list of cells for each row."""

    columns: Sequence[Column[T]]
    heads: Sequence[str]
    cells: Sequence[Sequence[Piece]]
    widths: Sequence[int]
    gap: int

    @classmethod
    def of(
        cls, columns: Sequence[Column[T]], rows: Sequence[T], gap: int, words: Callable[[str], str]
    ) -> Layout[T]:
        heads = [words(column.head) for column in columns]
        cells = [[(words(text), style) for text, style in (c.cell(row) for c in columns)] for row in rows]
        return cls(columns, heads, cells, _widths(heads, cells), gap)

    @classmethod
    def beside(cls, parts: Sequence[Layout[T]], gap: int) -> Layout[T]:
        """Layouts of the same rows, side by side."""
        return cls(
            [column for part in parts for column in part.columns],
            [head for part in parts for head in part.heads],
            [[*chain.from_iterable(rows)] for rows in zip(*(part.cells for part in parts), strict=True)],
            [width for part in parts for width in part.widths],
            gap,
        )  # fmt: skip

    @property
    def width(self) -> int:
        return sum(self.widths) + self.gap * (len(self.widths) - 1)

    def cut(self, width: int) -> Layout[T]:
        """The layout with cells cut until it fits, or until nothing more can be cut."""
        if self.width <= width:
            return self
        most, room = max(self.widths), width - self.gap * (len(self.widths) - 1)
        while most > LEAST_CELL and sum(min(each, most) for each in self.widths) > room:
            most -= 1
        heads = [_cut(head, most) for head in self.heads]
        cells = [[(_cut(text, most), style) for text, style in row] for row in self.cells]
        return replace(self, heads=heads, cells=cells, widths=_widths(heads, cells))

    def head(self) -> list[list[Piece]]:
        """The lines of the heads; none if no column has one."""
        if not any(self.heads):
            return []
        split = [head.split("\n") for head in self.heads]
        height = max(map(len, split))
        # A short head stands on the last of its lines, above its numbers.
        lowered = [[""] * (height - len(parts)) + parts for parts in split]
        return [self._line([(parts[at], "dim") for parts in lowered]) for at in range(height)]

    def row(self, number: int) -> list[list[Piece]]:
        """The lines of a row."""
        split = [(text.split("\n"), style) for text, style in self.cells[number]]
        return [
            self._line(
                [(parts[at] if at < len(parts) else "", "dim" if at else style) for parts, style in split]
            )
            for at in range(max(len(parts) for parts, _ in split))
        ]

    def lines(self) -> list[list[Piece]]:
        """All lines, each as its pieces."""
        return [*self.head(), *(line for number in range(len(self.cells)) for line in self.row(number))]

    def _line(self, cells: Sequence[Piece]) -> list[Piece]:
        line: list[Piece] = []
        for (text, style), column, width in zip(cells, self.columns, self.widths, strict=True):
            pad = " " * (width - cell_len(text))
            line += [(pad + text if column.right else text + pad, style), (" " * self.gap, "")]
        return line


def _widths(heads: Sequence[str], cells: Sequence[Sequence[Piece]]) -> list[int]:
    return [
        max(cell_len(line) for text in (head, *(row[i][0] for row in cells)) for line in text.split("\n"))
        for i, head in enumerate(heads)
    ]


def _cut(text: str, most: int) -> str:
    return "\n".join(shortened(line, most) for line in text.split("\n"))
