"""What guests have dated from the wake on: how much, how wrong, until when, and what of it was refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.core.quantities import format_magnitude
from lab.core.workload.stamps import StaleStamps
from lab.record.model_workload import WorkloadCycleRecord
from lab.report.page import Page
from lab.report.table import Column, Piece, Table

MOST_ROWS = 32
DASH: Piece = ("–", "dim")


@dataclass(frozen=True)
class _StampRow:
    label: str
    kind: StaleStamps
    window_ns: int | None


def show_stamps(page: Page, cycles: Sequence[tuple[str, WorkloadCycleRecord]]) -> None:
    """Print what was dated in cycles with a freeze, by their labels; nothing where it was answers only: the
    table of cycles has them."""
    rows = list(_rows(cycles))
    if not rows:
        return
    columns: list[Column[_StampRow]] = [
        Column("cycle", lambda row: (row.label, ""), rank=1),
        Column("dated", lambda row: (row.kind.what, "")),
        Column("in time again", lambda row: _time(row.window_ns), right=True, rank=2),
        Column("until then", lambda row: _known(row.kind.in_window), right=True, rank=3),
        Column("wrong", _wrong, right=True),
        Column("by", _by, right=True),
        Column("until", lambda row: _time(row.kind.last_ns), right=True, rank=4),
        Column("refused", _refused, right=True, rank=6),
        Column("out of order", lambda row: _bad(row.kind.disordered), right=True, rank=5),
    ]
    most = page.most(MOST_ROWS)
    page.table(Table(columns, rows[:most]))
    if len(rows) > most:
        page.labelled("", f"{len(rows) - most} more rows: freezelab report --json")


def _rows(cycles: Sequence[tuple[str, WorkloadCycleRecord]]) -> Iterator[_StampRow]:
    for label, cycle in cycles:
        if cycle.control or not cycle.stamps:
            continue
        answers = (cycle.stale,) if cycle.stale is not None else ()
        for kind in (*answers, *cycle.stamps):
            yield _StampRow(label, kind, cycle.stale_window_ns)


def _time(ns: int | None) -> Piece:
    return DASH if ns is None else (format_magnitude(ns), "")


def _known(count: int | None) -> Piece:
    return DASH if count is None else (f"{count}", "")


def _bad(count: int) -> Piece:
    return f"{count}", "magenta" if count else "dim"


def _wrong(row: _StampRow) -> Piece:
    count, style = _bad(row.kind.wrong)
    more = f" to {row.kind.wrong + row.kind.undecided}" if row.kind.undecided else ""
    return f"{count}{more} of {row.kind.stamped}", style


def _by(row: _StampRow) -> Piece:
    if not row.kind.wrong:
        return DASH
    sign = "behind" if row.kind.worst_ns < 0 else "ahead"
    return f"{format_magnitude(abs(row.kind.worst_ns))} {sign}", "magenta"


def _refused(row: _StampRow) -> Piece:
    kind = row.kind
    parts = [
        f"{count} {why}"
        for count, why in ((kind.expired, "expired"), (kind.not_yet_valid, "not yet"))
        if count
    ]
    return (", ".join(parts), "magenta") if parts else ("0", "dim")
