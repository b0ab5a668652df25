"""The terminal's sections as blocks of a page: a section prints to a `BlockPage` as it does to a terminal,
and its lines, labelled paragraphs and tables become HTML. So both have the same words and the same numbers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup
from rich.console import Console

from lab.report.html.document import markup
from lab.report.page import LABEL, UNLIMITED, Page
from lab.report.table import Layout, Piece, T, Table
from lab.report.text import glued


@dataclass(frozen=True)
class LineBlock:
    """A line of text."""

    pieces: Sequence[Piece]
    kind: str = "line"


@dataclass
class FactsBlock:
    """Labels, each with its paragraphs."""

    facts: list[tuple[Piece, list[Sequence[Piece]]]] = field(default_factory=list)
    kind: str = "facts"


@dataclass(frozen=True)
class TableBlock:
    """heads: of the columns, with True for those that are flush right. A cell: lines of pieces; the second
    line and later ones are dim."""

    heads: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Piece]]
    kind: str = "table"


Block = LineBlock | FactsBlock | TableBlock


class BlockPage(Page):
    """Collects what is printed to it. Tables have their widest form, and all of their rows."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), width=80))
        self.blocks: list[Block] = []

    def words(self, text: str) -> str:
        return glued(text)

    def texts(self) -> list[str]:
        """The lines without their styles; of labelled paragraphs the label as well."""
        found = []
        for block in self.blocks:
            if isinstance(block, LineBlock):
                found.append("".join(text for text, _ in block.pieces))
            elif isinstance(block, FactsBlock):
                for (label, _), paragraphs in block.facts:
                    whole = " ".join("".join(text for text, _ in pieces) for pieces in paragraphs)
                    found.append(f"{label}: {whole}")
        return found

    def most(self, rows: int) -> int:  # noqa: ARG002
        return UNLIMITED

    def put(self, *pieces: Piece) -> None:
        shown = [(self.words(text), style) for text, style in pieces if text]
        if any(text.strip() for text, _ in shown):
            self.blocks.append(LineBlock(shown))

    def blank(self) -> None:
        """Blocks have their own distances."""

    def parts(self, given: Iterable[str], style: str = "", first_style: str = "") -> None:
        facts = [self.words(part) for part in given if part]
        if facts:
            rest = "".join(f" · {fact}" for fact in facts[1:])
            self.put((facts[0], first_style or style), (rest, style))

    def labelled(
        self,
        label: str,
        text: str,
        *,
        label_style: str = "dim",
        style: str = "",
        before: Sequence[Piece] = (),
        width: int = LABEL,  # noqa: ARG002
    ) -> None:
        pieces = [(self.words(piece), kind) for piece, kind in before] + [(self.words(text), style)]
        last = self.blocks[-1] if self.blocks else None
        if not label.strip() and not isinstance(last, FactsBlock):
            self.put(*pieces)
            return
        if not isinstance(last, FactsBlock):
            last = FactsBlock()
            self.blocks.append(last)
        if label.strip():
            last.facts.append(((self.words(label.strip()), label_style), []))
        last.facts[-1][1].append(pieces)

    def table(self, table: Table[T], *, cut: bool = True, most: int = 0) -> Layout[T] | None:  # noqa: ARG002
        layout = self.fitted(table)
        if table.rows:
            heads = [(head, column.right) for head, column in zip(layout.heads, layout.columns, strict=True)]
            self.blocks.append(TableBlock(heads, layout.cells))
        return layout

    def fitted(self, table: Table[T], indent: int = 0) -> Layout[T]:  # noqa: ARG002
        return table.fitted(UNLIMITED, self.words)


def printed(*sections: Callable[[BlockPage], object]) -> Markup:
    """What the sections print, as HTML; empty when they print nothing. On a narrow window a row of a table is
    a card, and what is wide wraps, so that no column lies beyond the edge."""
    page = BlockPage()
    for show in sections:
        show(page)
    return markup("blocks.html.j2", blocks=page.blocks) if page.blocks else Markup()
