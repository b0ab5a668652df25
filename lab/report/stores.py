"""Output of `freezelab image list` and `freezelab emulator list`: a row for each entry of the cache."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from lab.report.page import Page
from lab.report.table import Column, Table
from lab.report.text import cleaned

Row = tuple[str, ...]


def render_store(heads: Sequence[str], rows: Sequence[Row], console: Console) -> None:
    """Print the rows, whose cells are in the order of `heads`. A narrow page loses the last columns first."""
    columns = [_column(head, at, rank=len(heads) - at) for at, head in enumerate(heads)]
    Page(console).table(Table(columns, [cleaned(row) for row in rows]))


def _column(head: str, at: int, rank: int) -> Column[Row]:
    return Column(head, lambda row: (row[at], "" if at else "bold"), rank=rank)
