"""A page of text: lines, labelled paragraphs and tables on a console.

On a terminal the page fits the console's width by itself. Where the output is no terminal, nothing
is wrapped, cut, coloured or drawn: a row is a line, and numbers are written so that grep finds them.
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

    def table(self, table: Table[T], *, cut: bool = True) -> Layout[T] | None:
        """Print as much of the table as has room. Where even the narrowest is too wide, its cells are cut;
        unless cut is False: then nothing is printed, and the answer is None."""
        layout = self.fitted(table)
        if layout.width > self.width:
            if not cut:
                return None
            layout = layout.cut(self.width)
        for line in layout.lines():
            self.put(*line)
        return layout

    def fitted(self, table: Table[T], indent: int = 0) -> Layout[T]:
        """The table as it would be printed beside `indent` columns."""
        return table.fitted(self.width - indent, self._on_a_line if self.plain else self.words)

    def _on_a_line(self, text: str) -> str:
        return self.words(text.replace("\n", " "))
