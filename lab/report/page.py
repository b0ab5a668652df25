"""A page of text: lines, labelled paragraphs and tables on a console.

On a terminal the page fits the console's width by itself. Where the output is no terminal, nothing
is wrapped, cut, coloured or drawn: a row is a line, and numbers are written so that grep finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lab.report.text import ascii_only, bare, joined, shortened, wrapped

LABEL = 12
UNLIMITED = 1 << 20
LEAST = 40  # a narrower terminal wraps by itself

Piece = tuple[str, str]
"""A text and its style."""


@dataclass(frozen=True)
class Column:
    """head: "\\n" breaks it. right: flush right, for numbers."""

    head: str
    right: bool = False


@dataclass
class Grid:
    """Cells in aligned columns; "\\n" in a cell breaks it, and its later lines are dim."""

    columns: Sequence[Column]
    rows: list[Sequence[Piece]] = field(default_factory=list)
    gap: int = 2

    def width(self) -> int:
        return sum(self._widths()) + self.gap * (len(self.columns) - 1)

    def _widths(self) -> list[int]:
        return [
            max(
                cell_len(line)
                for text in (column.head, *(row[i][0] for row in self.rows))
                for line in text.split("\n")
            )
            for i, column in enumerate(self.columns)
        ]

    def lines(self) -> list[list[Piece]]:
        widths = self._widths()
        head: list[Piece] = [(column.head, "dim") for column in self.columns]
        lines: list[list[Piece]] = []
        for cells in (head, *self.rows) if any(column.head for column in self.columns) else self.rows:
            split = [text.split("\n") for text, _ in cells]
            height = max(map(len, split))
            for at in range(height):
                line: list[Piece] = []
                for i, (column, width, parts) in enumerate(zip(self.columns, widths, split, strict=True)):
                    # A short head stands on the last of its lines, above its numbers.
                    index = at - (height - len(parts)) if cells is head else at
                    text = parts[index] if 0 <= index < len(parts) else ""
                    pad = " " * (width - cell_len(text))
                    last = i == len(widths) - 1
                    shown = pad + text if column.right else text if last else text + pad
                    line += [(shown, "dim" if at else cells[i][1]), ("" if last else " " * self.gap, "")]
                lines.append(line)
        return lines


class Page:
    """Writes to a console. plain: no terminal at the other end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.plain = not console.is_terminal
        self.width = UNLIMITED if self.plain else max(LEAST, console.width)
        self._ascii = not console.encoding.lower().startswith("utf")

    def words(self, text: str) -> str:
        """`text` in the characters that this output takes."""
        text = bare(text) if self.plain else text
        return ascii_only(text) if self._ascii else text

    @property
    def draws(self) -> bool:
        """Bars and curves make sense here."""
        return not self.plain and not self._ascii

    def put(self, *pieces: Piece) -> None:
        """One line as it is. The caller has seen to its width."""
        line = Text(no_wrap=True)
        for text, style in pieces:
            line.append(self.words(text), style)
        line.rstrip()
        self._console.print(line, soft_wrap=True, highlight=False)

    def blank(self) -> None:
        self._console.print()

    def parts(self, given: Iterable[str], style: str = "", first_style: str = "") -> None:
        """Short facts, " · " between them. first_style: of the first one."""
        facts = [self.words(part) for part in given if part]
        for number, line in enumerate(joined(facts, self.width)):
            first = facts[0] if first_style and not number and line.startswith(facts[0]) else ""
            self.put((first, first_style), (line[len(first) :], style))

    def labelled(
        self,
        label: str,
        text: str,
        *,
        label_style: str = "dim",
        style: str = "",
        before: Sequence[Piece] = (),
        width: int = LABEL,
    ) -> None:
        """A paragraph beside its label. before: pieces between the two, on the first line."""
        room = width + 2
        lead = sum(cell_len(piece) for piece, _ in before)
        mark = self.words(label)
        pad = " " * max(2, room - cell_len(mark)) if label else " " * room
        text = self.words(text)
        if room + lead > self.width:
            text, style = "".join(self.words(piece) for piece, _ in before) + text, before[0][1]
            before, lead = (), 0
        if lead and room + lead + 24 > self.width:
            self.put((mark, label_style), (pad, ""), *before)
            mark, pad, before, lead = "", " " * room, (), 0
        if lead + cell_len(text) + room <= self.width:
            self.put((mark, label_style), (pad, ""), *before, (text, style))
            return
        # The pieces take part in the wrapping as one word, so that later lines begin below them.
        space = max(1, self.width - room)
        for number, line in enumerate(wrapped(f"{'x' * lead}{text}" if lead else text, space)):
            first = number == 0
            start = [(mark, label_style), (pad, ""), *before] if first else [(" " * room, "")]
            self.put(*start, (line[lead:] if first else line, style))

    def grid(self, *candidates: Grid) -> bool:
        """The first of the candidates that fits, the richest first; False, and nothing, if none does."""
        for candidate in candidates:
            known = self.in_words(candidate)
            if known.width() <= self.width:
                for line in known.lines():
                    self.put(*line)
                return True
        return False

    def squeezed(self, grid: Grid) -> None:
        """A table in any case: cells are cut until it fits."""
        known = self.in_words(grid)
        most = self.width
        while known.width() > self.width and most > 4:
            most -= 1
            known = Grid(
                [Column(_cut(c.head, most), c.right) for c in known.columns],
                [[(_cut(text, most), style) for text, style in row] for row in known.rows],
                known.gap,
            )
        for line in known.lines():
            self.put(*line)

    def in_words(self, grid: Grid) -> Grid:
        """The grid in the characters that this output takes."""
        if self.plain:
            grid = Grid(
                [Column(c.head.replace("\n", " "), c.right) for c in grid.columns],
                [[(text.replace("\n", " "), style) for text, style in row] for row in grid.rows],
                grid.gap,
            )
        return Grid(
            [Column(self.words(c.head), c.right) for c in grid.columns],
            [[(self.words(text), style) for text, style in row] for row in grid.rows],
            grid.gap,
        )


def _cut(text: str, most: int) -> str:
    return "\n".join(shortened(line, most) for line in text.split("\n"))
