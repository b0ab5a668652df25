"""The one table of a matrix over resync mechanisms: predicted, measured, verdict, a row for each cell.

Rows are grouped by mechanism; both are in the order of the playbook. Pauses after which nothing had to be
corrected, as predicted, share a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from lab.core.mechanism import ResyncMechanism
from lab.core.quantities import format_length, format_magnitude
from lab.core.units import format_duration, parse_duration
from lab.core.verdict import Outcome, worst
from lab.record.model import CellRecord, CycleRecord, PointRecord, Run
from lab.report.cells import cycles_of
from lab.report.cycles import VERDICTS
from lab.report.numbers import sparkline
from lab.report.page import Page
from lab.report.resyncs import (
    NONE,
    in_a_word,
    measured,
    predicted,
    rank,
    right_within,
    verdict,
    watched_ns,
)
from lab.report.table import ALWAYS, Column, Layout, Piece, Table, forms
from lab.report.text import counted, shortened, wrapped

RESYNC, HOLD, METHOD = "resync", "hold", "method"
CURVE = 10
SCALE = "|offset| over the watch: ▁ below 3.2 ms to █ from 3.2 s, each step is 3.2 times the one before"
WORD = 12
MOST_ROWS = 120


@dataclass
class _Row:
    """One cell, or several with the same result. cycle: the most important one; alike: the number of cycles
    with the same kind of result. watch: print the length of each watch. every: these are all cells of the
    mechanism and the method."""

    cell: CellRecord
    cycles: list[CycleRecord]
    watch: bool
    cells: list[CellRecord] = field(default_factory=list)
    every: bool = False
    cycle: CycleRecord | None = None
    alike: int = 0

    def __post_init__(self) -> None:
        self.cells = self.cells or [self.cell]
        known = [c for c in self.cycles if c.resync is not None]
        if not known:
            return
        self.cycle = min(known, key=_importance)
        forecast = self.cycle.resync.forecast if self.cycle.resync else None
        self.alike = sum(c.resync is not None and rank(c.resync.forecast) == rank(forecast) for c in known)

    @property
    def pauses(self) -> str:
        """ "3 s"; for several cells "0.5, 3 s" or "all"."""
        if self.every and len(self.cells) > 1:
            return "all"
        texts = list(dict.fromkeys(_pause(cell) for cell in self.cells))
        units = {text.rsplit(" ", 1)[-1] for text in texts}
        if len(texts) > 1 and len(units) == 1:
            return ", ".join([*(text.rsplit(" ", 1)[0] for text in texts[:-1]), texts[-1]])
        return ", ".join(texts)

    @property
    def regime(self) -> str:
        lengths = {c.regime or "undecided" for c in self.cycles if c.pause is not None}
        return ", ".join(sorted(lengths)) or NONE

    def verdict(self, longest: int) -> Piece:
        """The verdict, cut to its first word when it is longer than `longest`."""
        if self.cycle is None or self.cycle.resync is None:
            word = "refused" if self.cell.refused else "not measured" if self.cycles else "not run"
            return word, "yellow"
        text, style = verdict(self.cycle.resync.forecast)
        text = text if len(text) <= longest else in_a_word(text)
        many = sum(c.resync is not None for c in self.cycles)
        return (f"{text} ({self.alike} of {many})" if self.alike < many else text), style

    @property
    def predicted(self) -> str:
        return predicted(self.cycle.resync) if self.cycle is not None and self.cycle.resync else NONE

    @property
    def measured(self) -> Piece:
        if self.cycle is None:
            return NONE, "dim"
        if len(self.cells) > 1:
            return right_within(self.cycles), ""
        text, style = measured(self.cycle, self.watch)
        return (f"{text}, {counted(len(self.cycles), 'cycle')}" if len(self.cycles) > 1 else text), style

    @property
    def curve(self) -> Piece:
        resync = self.cycle.resync if self.cycle is not None else None
        if self.cycle is None or resync is None or not resync.curve or len(self.cells) > 1:
            return "", ""
        first = self.cycle.offset.at_resume
        start = [PointRecord(0, first.low_ns, first.high_ns)] if first else []
        return sparkline([*start, *resync.curve], watched_ns(resync), CURVE), "cyan"


def _importance(cycle: CycleRecord) -> tuple[int, int]:
    resync = cycle.resync
    if resync is None:
        return 9, 0
    return rank(resync.forecast), -(resync.time_ns if resync.time_ns is not None else 1 << 62)


def _rank(row: _Row) -> int:
    return _importance(row.cycle)[0] if row.cycle is not None else 1


def _pause(cell: CellRecord) -> str:
    """The pause as requested, or as measured when the playbook does not vary it."""
    try:
        return format_duration(parse_duration(cell.values[HOLD])).replace("500 ms", "0.5 s")
    except (KeyError, ValueError):
        return format_magnitude(cell.pause.value_ns) if cell.pause is not None else NONE


def is_resync_matrix(run: Run) -> bool:
    """True when the run's cells vary the resync mechanism."""
    return any(RESYNC in cell.values for cell in run.cells)


def _watched(run: Run) -> int | None:
    """The common length of all watches; None when they differ by more than a tenth."""
    lengths = [
        watched_ns(c.resync) for cell in run.cells for c in cycles_of(run, cell) if c.resync is not None
    ]
    return max(lengths) if lengths and min(lengths) * 10 > max(lengths) * 9 else None


def _groups(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    """The rows of each mechanism."""
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.cell.resync, []).append(row)
    return found


def _shown(page: Page, rows: Sequence[_Row], most: int) -> list[_Row]:
    """The most important rows, in their order."""
    if len(rows) <= page.most(most):
        return list(rows)
    page.parts([f"the {most} most important of {counted(len(rows), 'cell')}"], "dim")
    first = sorted(range(len(rows)), key=lambda number: _rank(rows[number]))[:most]
    return [rows[number] for number in sorted(first)]


def _folded(rows: Sequence[_Row]) -> Iterator[_Row]:
    """The rows, with neighbours combined that differ only in the pause and had nothing to correct, as
    predicted."""
    for key, group in groupby(rows, key=lambda row: _same(row) or id(row)):
        alike = list(group)
        if isinstance(key, int) or len(alike) == 1:
            yield from alike
            continue
        cells, first = [row.cell for row in alike], alike[0]
        every = len(cells) == sum(
            row.cell.method == first.cell.method and _others(row.cell) == _others(first.cell) for row in rows
        )
        yield _Row(first.cell, [c for row in alike for c in row.cycles], first.watch, cells, every)


def _same(row: _Row) -> tuple[object, ...] | None:
    """The key of rows that can be combined; None for a row that cannot."""
    resync = row.cycle.resync if row.cycle is not None else None
    forecast = resync.forecast if resync is not None else None
    if (
        resync is None
        or forecast is None
        or forecast.agrees is not True
        or row.cell.outcome is not Outcome.PASSED
    ):
        return None
    if forecast.correction != "none" or forecast.repaired is False or resync.correction != "none":
        return None
    return row.cell.method, _others(row.cell), row.predicted, row.verdict(1 << 16), row.regime


def _others(cell: CellRecord) -> str:
    """The values of axes without a column."""
    return " ".join(v for axis, v in cell.values.items() if axis not in (RESYNC, HOLD, METHOD))


def _columns(run: Run, page: Page, measured_head: str) -> list[Column[_Row]]:
    """The columns: all of them without a terminal; on a terminal, without those that have the same value in
    every row."""
    plain, cells = page.plain, run.cells
    regimes = {c.regime for cell in cells for c in cycles_of(run, cell) if c.pause is not None}
    made = [
        (plain, Column[_Row]("mechanism", lambda row: (row.cell.resync, "bold"))),
        (True, Column("pause", lambda row: (row.pauses, ""), right=True)),
        (any(map(_others, cells)), Column("cell", lambda row: (_others(row.cell), ""))),
        (
            plain or _several_methods(run),
            Column("method", lambda row: (row.cell.method, ""), rank=5),
        ),
        (plain or len(regimes) > 1, Column("regime", _regime, rank=1)),
        (page.draws, Column(CURVE_HEAD, lambda row: row.curve, rank=4)),
        (True, Column("predicted", lambda row: (row.predicted, ""), rank=9)),
        (True, Column(measured_head, lambda row: row.measured, rank=10)),
        (True, _verdict_column(1 << 16) if plain else _SHORTENED),
        # That everything passed is said by the last line.
        (plain or any(c.outcome is not Outcome.PASSED for c in cells), Column("checks", _checks, rank=3)),
    ]
    return [column for shown, column in made if shown]


CURVE_HEAD = "|offset|"


def _verdict_column(longest: int, rank: float = ALWAYS) -> Column[_Row]:
    return Column("verdict", lambda row: row.verdict(longest), rank=rank)


_SHORTENED = forms(*map(_verdict_column, (44, 30, 21, WORD), (2, 6, 7, ALWAYS)))


def _regime(row: _Row) -> Piece:
    return row.regime, "" if row.regime != "undecided" else "yellow"


def _checks(row: _Row) -> Piece:
    return VERDICTS[worst(cell.outcome for cell in row.cells)]


def _several_methods(run: Run) -> bool:
    return len({cell.method for cell in run.cells}) > 1


def rows_needed(run: Run) -> int:
    """The lines of the table's body, with neighbours folded and a line above each mechanism."""
    groups = _groups([_Row(cell, cycles_of(run, cell), False) for cell in run.cells])
    return sum(1 + len(list(_folded(rows))) for rows in groups.values())


def count_cells(page: Page, run: Run) -> None:
    """Print the number of cells with each result."""
    _count(page, [_Row(cell, cycles_of(run, cell), False) for cell in run.cells])


def show_resync_table(page: Page, run: Run, most: int = MOST_ROWS) -> None:
    """Print the table, with at most so many cells. On a terminal a line above each mechanism's rows describes
    it; elsewhere every row is complete."""
    watched = _watched(run)
    every_row = [_Row(cell, cycles_of(run, cell), watched is None) for cell in run.cells]
    groups = _groups(_shown(page, every_row, most))
    head = "measured" if watched is None else f"measured in {format_length(watched)}"
    columns = _columns(run, page, head)
    if page.plain:
        page.table(Table(columns, _in_order(groups)))
        _count(page, every_row)
        return
    folded = {name: list(_folded(rows)) for name, rows in groups.items()}
    table = Table(columns, _in_order(folded), gaps={2: 8, 1: ALWAYS})
    layout = page.fitted(table, INDENT)
    heads = {column.head for column in layout.columns}
    if _several_methods(run) and "method" not in heads:
        folded = _by_method(folded)
        layout = page.fitted(replace(table, rows=_in_order(folded)), INDENT)
    _put(page, layout.cut(page.width - INDENT), folded)
    if CURVE_HEAD in heads:
        for line in wrapped(SCALE, page.width):
            page.put((line, "dim"))
    _count(page, every_row)


def _count(page: Page, rows: Sequence[_Row]) -> None:
    """Print the number of cells with each result, the most important ones first."""
    counts: dict[Piece, int] = {}
    for row in sorted(rows, key=_rank):
        _, style = row.verdict(1 << 16)
        word = in_a_word(row.verdict(0)[0].split(" (")[0])
        counts[word, style] = counts.get((word, style), 0) + 1
    pieces: list[Piece] = [(f"{counted(len(rows), 'cell')}:", "")]
    for (word, style), count in counts.items():
        pieces += [(" " if len(pieces) == 1 else ", ", ""), (f"{count} {word}", style)]
    if sum(len(text) for text, _ in pieces) <= page.width:
        page.put(*pieces)
    else:
        page.labelled("", "".join(text for text, _ in pieces), width=-2)


def _by_method(groups: dict[str, list[_Row]]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    for name, rows in groups.items():
        for row in rows:
            found.setdefault(f"{name}, {row.cell.method}", []).append(row)
    return found


def _in_order(groups: Mapping[str, Sequence[_Row]]) -> list[_Row]:
    return [row for rows in groups.values() for row in rows]


INDENT = 2


def _put(page: Page, layout: Layout[_Row], groups: Mapping[str, Sequence[_Row]]) -> None:
    def indented(lines: Iterable[Sequence[Piece]]) -> None:
        for line in lines:
            page.put((" " * INDENT, ""), *line)

    indented(layout.head())
    at = 0
    for title, rows in groups.items():
        name, _, method = title.partition(", ")
        program = next((r.cycle.resync.program for r in rows if r.cycle and r.cycle.resync), "")
        program = program.split(" (+")[0]  # chronyd's list of what it was built with
        facts = " · ".join(filter(None, [method, _about(name), program]))
        room = page.width - len(name) - INDENT
        page.put((name, "bold"), (" " * INDENT, ""), (shortened(facts, room), "dim"))
        for _ in rows:
            indented(layout.row(at))
            at += 1


def _about(name: str) -> str:
    try:
        return ResyncMechanism(name).about
    except ValueError:
        return ""
