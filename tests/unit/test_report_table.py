"""Ranked columns: what a table gives up, and when."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Layout, Piece, Table, forms

ROWS = (1, 22, 333)


def column(head: str, rank: float = ALWAYS) -> Column[int]:
    return Column(head, lambda row: (f"{head}{row}", ""), rank=rank)


def fitted(table: Table[int], width: int) -> Layout[int]:
    return table.fitted(width, str)


def heads(table: Table[int], width: int) -> list[str]:
    return [column.head for column in fitted(table, width).columns]


def text(lines: list[list[Piece]]) -> list[str]:
    return ["".join(piece for piece, _ in line).rstrip() for line in lines]


def test_the_lowest_rank_is_dropped_first_wherever_it_stands() -> None:
    table = Table([column("a", 2), column("b"), column("c", 1), column("d", 3)], ROWS)
    assert heads(table, 22) == ["a", "b", "c", "d"]
    assert heads(table, 21) == ["a", "b", "d"]
    assert heads(table, 15) == ["b", "d"]
    assert heads(table, 9) == ["b"]
    assert heads(table, 1) == ["b"]


def test_columns_of_one_rank_go_together() -> None:
    table = Table([column("a", 1), column("b"), column("c", 1)], ROWS)
    assert heads(table, 15) == ["b"]


def test_a_narrower_form_takes_the_columns_place_until_its_own_rank_is_reached() -> None:
    long = forms(
        Column[int]("long", lambda row: (f"{row} in full", ""), rank=1),
        Column[int]("short", lambda row: (f"{row}", "bold"), rank=3),
    )
    table = Table([long, column("b", 2), column("c")], ROWS)
    assert heads(table, 23) == ["long", "b", "c"]
    assert heads(table, 22) == ["short", "b", "c"]
    assert heads(table, 16) == ["short", "c"]
    assert heads(table, 10) == ["c"]


def test_a_gap_has_a_rank_and_comes_back_where_a_column_has_made_room() -> None:
    table = Table([column("a", 3), column("b")], ROWS, gaps={3: 1, 2: 2, 1: ALWAYS})
    assert [fitted(table, width).gap for width in (11, 10, 9)] == [3, 2, 1]
    assert heads(table, 9) == ["a", "b"]
    assert heads(table, 8) == ["b"]
    assert fitted(table, 8).gap == 2


def test_what_was_dropped_is_put_together() -> None:
    def rest(dropped: list[Column[int]] | tuple[Column[int], ...]) -> Column[int]:
        return column("+".join(each.head for each in dropped))

    table = Table([column("a"), column("b", 2), column("c", 1)], ROWS, rest=rest)  # type: ignore[arg-type]
    assert heads(table, 16) == ["a", "b", "c"]
    assert heads(table, 4) == ["a", "b+c"]


def test_heads_stand_above_their_numbers_and_later_lines_of_a_cell_are_dim() -> None:
    two = Column[int]("two\nlines", lambda row: (f"{row}\nbelow", "bold"), right=True)
    layout = fitted(Table([column("a"), two], (1,)), 80)
    assert text(layout.head()) == ["      two", "a   lines"]
    assert layout.row(0)[0][2] == ("    1", "bold")
    assert layout.row(0)[1][2] == ("below", "dim")


@pytest.mark.parametrize("width", [40, 41, 60, 1 << 10])
def test_where_nothing_more_can_be_dropped_cells_are_cut(width: int) -> None:
    file = io.StringIO()
    page = Page(Console(file=file, force_terminal=True, color_system=None, width=width, _environ={}))
    long = Column[int]("long", lambda row: ("x" * 3 * row, ""))
    assert (page.table(Table([long, column("b")], ROWS), cut=False) is None) == (width < 1 << 10)
    page.table(Table([long, column("b")], ROWS))
    lines = file.getvalue().splitlines()
    assert len(lines) == 4 * (1 + (width == 1 << 10))
    assert max(map(len, lines)) <= width


COLUMNS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4) | st.just(ALWAYS)), min_size=1, max_size=6)


@given(COLUMNS, st.integers(1, 80))
def test_a_wider_page_shows_no_less(given_columns: list[tuple[int, float]], width: int) -> None:
    made = [Column[int](str(n), lambda _, n=n: ("x" * n, ""), rank=r) for n, r in given_columns]  # type: ignore[misc]
    table = Table(made, ROWS)
    narrow, wide = fitted(table, width), fitted(table, width + 1)
    assert set(map(id, narrow.columns)) <= set(map(id, wide.columns))
    dropped = [c.rank for c in made if id(c) not in set(map(id, narrow.columns))]
    assert not dropped or max(dropped) < min([c.rank for c in narrow.columns], default=ALWAYS)
    assert narrow.width <= width or all(c.rank == ALWAYS for c in narrow.columns)
