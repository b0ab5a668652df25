"""A page of text: lines, labelled paragraphs and tables on a console.

On a terminal the page fits the console's width. Other output is not wrapped, cut, coloured or drawn: a row is
a line, and numbers have a form that grep finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lab.report.table import Layout, Piece, T, Table
from lab.report.text import ascii_only, bare, joined, wrapped

LABEL = 12
UNLIMITED = 1 << 20
LEAST = 40  # a narrower terminal wraps by itself
SCREEN_WIDTH = 80
"""Other output than a terminal is read on a screen of so many columns."""


class Page:
    """Writes to a console. plain: the output is not a terminal. lines: printed until now; on other output as
    many as a screen makes of them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.plain = not console.is_terminal
        self.width = UNLIMITED if self.plain else max(LEAST, console.width)
        self._ascii = not console.encoding.lower().startswith("utf")
        self.lines = 0
        self._gap = True

    def words(self, text: str) -> str:
        """`text` in characters that this output supports."""
        text = bare(text) if self.plain else text
        return ascii_only(text) if self._ascii else text

    def most(self, rows: int) -> int:
        """The number of rows of a table that are printed, of which a terminal has room for `rows`."""
        return rows

    @property
    def draws(self) -> bool:
        """True when bars and curves can be drawn."""
        return not self.plain and not self._ascii

    def put(self, *pieces: Piece) -> None:
        """Print one line unchanged. The caller ensures that it fits."""
        self._gap = False
        if self.plain:
            text = "".join(self.words(text) for text, _ in pieces).rstrip()
            self.lines += _lines_of(text)
            try:
                self._console.file.write(f"{text}\n")
                self._console.file.flush()  # a service's lines are read as they come
            except BrokenPipeError:
                self._console.on_broken_pipe()
            return
        self.lines += 1
        line = Text(no_wrap=True)
        for text, style in pieces:
            line.append(self.words(text), style)
        line.rstrip()
        self._console.print(line, soft_wrap=True, highlight=False)

    def blank(self) -> None:
        """Print an empty line; nothing at the top, or after another one."""
        if not self._gap:
            self._console.print()
            self.lines, self._gap = self.lines + 1, True

    def height(self, label: str, text: str) -> int:
        """The lines that `labelled` prints of these."""
        if self.plain:
            return _lines_of(" " * (LABEL + 2) + text)
        room = LABEL + 2 if cell_len(label) <= LABEL else cell_len(label) + 2
        return len(wrapped(self.words(text), max(1, self.width - room)))

    def parts(self, given: Iterable[str], style: str = "", first_style: str = "") -> None:
        """Print short facts with " · " between them. first_style: style of the first one."""
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
        """Print a paragraph beside its label. before: pieces between the two, on the first line."""
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

    def table(self, table: Table[T], *, cut: bool = True, most: int = UNLIMITED) -> Layout[T] | None:
        """Print as much of the table as fits, in at most `most` columns of the terminal. If even its
        narrowest form is too wide, its cells are cut; with cut=False nothing is printed, and the result is
        None."""
        width = min(self.width, most)
        layout = self.fitted(table, self.width - width)
        if layout.width > width:
            if not cut:
                return None
            layout = layout.cut(width)
        for line in layout.lines():
            self.put(*line)
        return layout

    def fitted(self, table: Table[T], indent: int = 0) -> Layout[T]:
        """The layout of the table beside `indent` columns."""
        return table.fitted(self.width - indent, self._on_a_line if self.plain else self.words)

    def _on_a_line(self, text: str) -> str:
        return self.words(text.replace("\n", " "))


def _lines_of(text: str) -> int:
    """The lines that a screen makes of one."""
    return max(1, -(-cell_len(text) // SCREEN_WIDTH))
