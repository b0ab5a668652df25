"""The searches for the shortest pause that a workload fails at: a table of workloads and methods, and a plot
of their tries over the pause, whose scale is logarithmic.

    suspend  ●       ●●░░░○       ○
                      ●
             ┴───────┴────────────┴
             1 s     2 s          5 s

One search, or two, have a line for each further try of a pause; more have one line each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10

from rich.cells import cell_len

from lab.core.quantities import format_length
from lab.core.units import NS_PER_S, format_duration
from lab.core.verdict import Outcome
from lab.record.model import Run
from lab.record.model_workload import ToleranceRecord
from lab.report.cells import short_values
from lab.report.page import SCREEN_WIDTH, UNLIMITED, Page
from lab.report.table import Column, Piece, Table, forms
from lab.report.text import counted, shortened

FEW = 2
"""So many searches have a line a try."""

MOST_WIDE = 72
LEAST_WIDE = 16
DASH: Piece = ("–", "dim")

_MARKS = {Outcome.PASSED: ("●", "green"), Outcome.FAILED: ("○", "red"), Outcome.INCONCLUSIVE: ("?", "yellow")}
_MIXED: Piece = ("◐", "red")
_BETWEEN: Piece = ("░", "dim")
_LEGEND = {
    "●": "passed", "○": "failed", "◐": "passed and failed", "?": "inconclusive",
    "░": "between the two pauses that were found",
}  # fmt: skip
_PLAIN = {Outcome.PASSED: "passed", Outcome.FAILED: "failed", Outcome.INCONCLUSIVE: "inconclusive"}


@dataclass(frozen=True)
class _Searched:
    """The searches of one workload, by freeze method. label: the workload, with the values of other axes."""

    label: str
    by_method: Mapping[str, ToleranceRecord]


def show_tolerances(page: Page, run: Run, most: int = UNLIMITED) -> None:
    """Print what the searches found: a row a workload, columns a method; nothing without any. Of more than
    `most` rows those that failed at the shortest pauses. With `most` a row fits on a screen, in a pipe, too.
    """
    if not run.tolerances:
        return
    page.blank()
    rows = found = _searched(run)
    if len(found) > page.most(most):
        rows = sorted(found, key=_first_failed_ns)[:most]
        page.parts([f"the {len(rows)} of {counted(len(found), 'workload')} that failed first"], "dim")
    methods = list(dict.fromkeys(record.method for record in run.tolerances))
    columns: list[Column[_Searched]] = [Column("workload", lambda row: (row.label, "bold"))]
    for method in methods:
        columns += _of_method(method, run.tolerances)
    page.table(Table(columns, rows), most=SCREEN_WIDTH if page.plain and most < UNLIMITED else UNLIMITED)


def show_tries(page: Page, run: Run) -> None:
    """Print the tries of the searches: a plot, or words where it cannot be drawn."""
    methods = dict.fromkeys(record.method for record in run.tolerances)
    tried = [
        (row.label, record)
        for row in _searched(run)
        for method in methods
        if (record := row.by_method.get(method)) is not None and record.tries
    ]
    if not tried:
        return
    page.blank()
    if page.draws:
        _Plot(page, tried, one_method=len(methods) == 1).show()
    else:
        for label, record in tried:
            _words(page, f"{label}, {record.method}", record)


def _searched(run: Run) -> list[_Searched]:
    values = short_values(run)
    found: dict[str, dict[str, ToleranceRecord]] = {}
    for record in run.tolerances:
        axes = values.get(record.cell, {})
        label = ", ".join(text for axis, text in axes.items() if axis not in ("method", "workload"))
        label = ", ".join(filter(None, [axes.get("workload", record.workload), label]))
        found.setdefault(label, {})[record.method] = record
    return [_Searched(label, by_method) for label, by_method in found.items()]


def _first_failed_ns(searched: _Searched) -> float:
    """Infinite when it never failed, as far as is known."""
    failed = (record.shortest_failed_ns for record in searched.by_method.values())
    return min((ns for ns in failed if ns is not None), default=inf)


def _of_method(method: str, records: Sequence[ToleranceRecord]) -> list[Column[_Searched]]:
    """The columns of one method: its pauses, tries and time."""
    clocks = sorted({one.regime for one in records if one.method == method and one.regime})
    head = f"{method}\n(clocks {'/'.join(clocks)})" if clocks else method

    def of(row: _Searched, text: Callable[[ToleranceRecord], Piece]) -> Piece:
        record = row.by_method.get(method)
        return DASH if record is None else text(record)

    def tries(record: ToleranceRecord) -> Piece:
        if not record.tries:
            return DASH
        return f"{len(record.tries)} in {format_length(record.spent_ns)}", "dim"

    return [
        forms(
            Column(f"{head}, passed", lambda row: of(row, _passed), right=True, rank=3),
            Column(f"{method}\npassed", lambda row: of(row, _passed), right=True),
        ),
        Column("failed", lambda row: of(row, _failed), right=True),
        Column("tries", lambda row: of(row, tries), right=True, rank=1),
    ]


def _passed(record: ToleranceRecord) -> Piece:
    if record.longest_passed_ns is None:
        return ("none", "dim") if record.tries else DASH
    return format_duration(record.longest_passed_ns), "bold"


def _failed(record: ToleranceRecord) -> Piece:
    if not record.complete and record.shortest_failed_ns is None:
        return record.why, "yellow"
    if record.shortest_failed_ns is None:
        return "none", "dim"
    return format_duration(record.shortest_failed_ns), "bold" if record.complete else "yellow"


def _outcomes(record: ToleranceRecord) -> dict[int, list[Outcome]]:
    """Those of each pause, the shortest first."""
    found: dict[int, list[Outcome]] = {pause: [] for pause in sorted({one.pause_ns for one in record.tries})}
    for one in record.tries:
        found[one.pause_ns].append(one.outcome)
    return found


def _words(page: Page, head: str, record: ToleranceRecord) -> None:
    """Print the tries of each pause, a line each."""
    page.labelled("tries", head)
    for pause, outcomes in _outcomes(record).items():
        page.put((f"  {format_duration(pause)}  ", ""), (", ".join(_PLAIN[one] for one in outcomes), ""))


@dataclass(frozen=True)
class PauseAxis:
    """A logarithmic axis of pauses, from low_ns to high_ns, `width` columns of the terminal wide."""

    low_ns: int
    high_ns: int
    width: int

    @classmethod
    def of(cls, pauses: Sequence[int], width: int) -> PauseAxis:
        """One with all the pauses; a single one is in its middle."""
        low, high = min(pauses), max(pauses)
        return cls(low, high, width) if low < high else cls(low // 2, 2 * high, width)

    def column(self, ns: float) -> int:
        """The column of a pause, from 0."""
        share = log10(ns / self.low_ns) / log10(self.high_ns / self.low_ns)
        return round(share * (self.width - 1))

    def columns(self, pauses: Sequence[int]) -> list[int]:
        """Those of different pauses, the shortest first: each has a column of its own, if they have room."""
        found: list[int] = []
        for pause in pauses:
            found.append(max(self.column(pause), found[-1] + 1 if found else 0))
        limit = self.width
        for place in range(len(found) - 1, -1, -1):
            limit = max(0, min(found[place], limit - 1))
            found[place] = limit
        return found

    def ticks(self) -> list[tuple[int, str]]:
        """Columns and labels of 1, 2 and 5 times the powers of ten; of further multiples on a short axis."""
        found: list[int] = []
        for factors in ((1, 2, 5), (1, 2, 3, 4, 5, 6, 8), tuple(n / 10 for n in range(10, 100))):
            powers = range(floor(log10(self.low_ns)), ceil(log10(self.high_ns)) + 1)
            every = [round(factor * 10**power) for power in powers for factor in factors]
            found = [ns for ns in every if self.low_ns <= ns <= self.high_ns]
            if len(found) > FEW:
                break
        return [(self.column(ns), f"{ns / NS_PER_S:g} s") for ns in found]


class _Plot:
    """Searches, each with its label, over one axis."""

    def __init__(self, page: Page, tried: Sequence[tuple[str, ToleranceRecord]], *, one_method: bool) -> None:
        self._page, self._tried = page, tried
        alone = len({label for label, _ in tried}) == 1
        names = [
            label if one_method else record.method if alone else f"{label}, {record.method}"
            for label, record in tried
        ]
        room = max(8, page.width - LEAST_WIDE - 2)
        widest = min(max(map(cell_len, names)), room, max(12, page.width // 3))
        self._names = [shortened(name, widest) for name in names]
        self._indent = widest + 2
        pauses = [one.pause_ns for _, record in tried for one in record.tries]
        self._axis = PauseAxis.of(pauses, min(MOST_WIDE, page.width - self._indent - 1))

    def show(self) -> None:
        by_try = len(self._tried) <= FEW
        drawn: set[str] = set()
        for name, (_, record) in zip(self._names, self._tried, strict=True):
            for number, marks in enumerate(self._lines(record, by_try=by_try)):
                head = name if not number else ""
                drawn |= {mark for mark, _ in marks}
                self._page.put((head + " " * (self._indent - cell_len(head)), ""), *marks)
        self._show_axis()
        self._page.parts([f"{mark} {text}" for mark, text in _LEGEND.items() if mark in drawn], "dim")

    def _lines(self, record: ToleranceRecord, *, by_try: bool) -> Iterator[list[Piece]]:
        """The marks of a search: of all tries of a pause together, or a line for each further try."""
        outcomes = _outcomes(record)
        places = dict(zip(outcomes, self._axis.columns(list(outcomes)), strict=True))
        for number in range(max(map(len, outcomes.values())) if by_try else 1):
            line: list[Piece] = [(" ", "")] * self._axis.width
            if not number:
                low, high = self._bracket(record, places)
                line[low:high] = [_BETWEEN] * max(0, high - low)
            for pause, found in outcomes.items():
                if number < len(found):
                    line[places[pause]] = _MARKS[found[number]] if by_try else _together(found)
            yield line

    def _bracket(self, record: ToleranceRecord, places: Mapping[int, int]) -> tuple[int, int]:
        """From after the longest pause that passed to before the shortest that failed."""
        failed, passed = record.shortest_failed_ns, record.longest_passed_ns
        if failed is None or failed not in places:
            return 0, 0
        return (places[passed] + 1 if passed is not None else 0), places[failed]

    def _show_axis(self) -> None:
        line, labels, free = ["─"] * self._axis.width, "", 0
        for column, text in self._axis.ticks():
            line[column] = "┴"
            start = min(max(0, column - len(text) // 2), self._axis.width - len(text))
            if start >= free:
                labels += " " * (start - len(labels)) + text
                free = len(labels) + 1
        pad = " " * self._indent
        self._page.put((pad + "".join(line), "dim"))
        self._page.put((pad + labels, "dim"))


def _together(outcomes: Sequence[Outcome]) -> Piece:
    """One mark for the tries of a pause."""
    decided = {one for one in outcomes if one is not Outcome.INCONCLUSIVE}
    if len(decided) > 1:
        return _MIXED
    return _MARKS[decided.pop() if decided else Outcome.INCONCLUSIVE]
