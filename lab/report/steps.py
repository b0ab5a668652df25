"""The parts of the pause: a table with bars for one cycle, or the medians over several; for a matrix a row
with the medians of each cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from lab.core.quantities import format_bounded, format_instant, format_ms
from lab.core.stats import quantile
from lab.core.units import NS_PER_MS
from lab.record.model import CycleRecord, Run, Statistic, StepRecord
from lab.report.numbers import limits
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, T, Table, forms

TITLE = "parts of the pause"
BAR = 30
LEAST_PARTS = 3
"""The number of longest parts, which have columns of their own on any page."""
LEAST_NS = NS_PER_MS // 10
"""The least time between two parts that gets a column."""

CUT = 4
"""A part that is longer than all others together by this factor does not determine the bars' scale: next to a
patch of seconds they would not be visible."""

_EIGHTHS = " ▏▎▍▌▋▊▉"


def fine_bar(page: Page, share: float, width: int) -> str:
    """A bar of `share` of `width` cells, in eighths of a cell where they can be drawn; "…" at its end when it
    would be longer."""
    if share > 1:
        return "█" * (width - 1) + "…" if page.draws else "#" * (width - 3) + "..."
    if not page.draws:
        return "#" * max(round(share * width), 1 if share > 0 else 0)
    whole, part = divmod(max(round(share * width * 8), 1 if share > 0 else 0), 8)
    return "█" * whole + (_EIGHTHS[part] if part else "")


def _scale(lengths: Sequence[float]) -> float:
    """The length of a full bar."""
    ordered = sorted(lengths)
    if len(ordered) > 1 and ordered[-1] > CUT * sum(ordered[:-1]) > 0:
        return ordered[-2]
    return max(1.0, ordered[-1])


def _bars(page: Page, lengths: Sequence[float], of: Callable[[T], float | None]) -> list[Column[T]]:
    """A column of bars, with the length of a full one in its head; none without a terminal."""
    scale = _scale(lengths)

    def cell(row: T) -> Piece:
        length = of(row)
        return "" if length is None else fine_bar(page, length / scale, BAR), "cyan"

    return [] if page.plain else [Column(f"a full bar is {format_ms(scale)} ms", cell, rank=1)]


def show_steps(page: Page, run: Run) -> None:
    """Print the parts; nothing when no guest was stopped."""
    cycles = [c for guest in run.guests for c in guest.cycles if c.steps and not c.control]
    if not cycles:
        return
    if run.cells:
        _by_cell(page, run)
        return
    medians = [s for s in run.statistics if s.kind == "step"]
    page.blank()
    if medians:
        _medians(page, _shown(medians))
    else:
        _one(page, cycles[-1])


def _shown(given: Sequence[Statistic]) -> list[Statistic]:
    return [s for s in given if s.metric != "between" or s.median.value >= LEAST_NS]


def _length(step: StepRecord) -> str:
    if step.low_ns is None or step.high_ns is None:
        return format_ms(step.length_ns)
    return format_bounded(step.length_ns, step.low_ns, step.high_ns).removesuffix(" ms")


def _one(page: Page, cycle: CycleRecord) -> None:
    """Print one cycle's parts, in order, with their begins."""
    shown = [step for step in cycle.steps if step.name != "between" or step.length_ns >= LEAST_NS]
    last = cycle.steps[-1]
    whole = format_ms(last.at_ns + last.length_ns)

    def length(step: StepRecord | None) -> float | None:
        return step.length_ns if step is not None else None

    page.table(
        Table[StepRecord | None](  # None: all of it
            [
                Column(TITLE, lambda step: (step.name, "") if step else ("total", "bold")),
                Column("ms", lambda step: (_length(step), "") if step else (whole, "bold"), right=True),
                Column("from", lambda step: (format_instant(step.at_ns) if step else "", "dim"), right=True),
                *_bars(page, [step.length_ns for step in cycle.steps], length),
            ],
            [*shown, None],
        )
    )


def _medians(page: Page, given: Sequence[Statistic]) -> None:
    """Print the medians. If there are limits, they are printed in place of bars."""
    limited = any(s.median.low is not None or s.median.high is not None for s in given)
    page.table(
        Table(
            [
                Column(TITLE, lambda s: (s.metric, "")),
                Column("median, ms", lambda s: (format_ms(s.median.value), ""), right=True),
                Column(
                    "95 % limits", lambda s: (limits(s.median), "dim"), right=True, rank=2 if limited else 0
                ),
                Column("p95", lambda s: (format_ms(s.p95.value), ""), right=True),
                Column("max", lambda s: (format_ms(s.max), ""), right=True),
                *_bars(page, [s.median.value for s in given], lambda s: s.median.value),
            ],
            given,
        )
    )


def _median(cycles: Sequence[CycleRecord], name: str) -> float | None:
    lengths = [
        sum(step.length_ns for step in cycle.steps if step.name == name)
        for cycle in cycles
        if any(step.name == name for step in cycle.steps)
    ]
    return quantile(lengths, 0.5).value if lengths else None


def _by_cell(page: Page, run: Run) -> None:
    """Print the medians of each cell, in milliseconds; as lines if the table is too wide."""
    page.blank()
    parts = median_parts(run)
    if page.table(parts.across(), cut=False) is None and page.table(parts.down(), cut=False) is None:
        page.table(parts.longest())


def median_parts(run: Run) -> MedianParts:
    """The medians of the parts of each cell's pauses."""
    cells = [
        (cell, [c for g in run.guests if g.cell == cell.id for c in g.cycles if c.steps and not c.control])
        for cell in run.cells
    ]
    order: dict[str, None] = {}
    for _, cycles in sorted(cells, key=lambda pair: -max((len(c.steps) for c in pair[1]), default=0)):
        for cycle in cycles:
            order.update(dict.fromkeys(step.name for step in cycle.steps))
    found = {
        (cell.id, name): value
        for cell, cycles in cells
        for name in order
        if (value := _median(cycles, name)) is not None
    }
    names = [
        name
        for name in _in_time(order)
        if name != "between" or max(v for (_, n), v in found.items() if n == name) >= LEAST_NS
    ]
    found = {key: value for key, value in found.items() if key[1] in names}
    return MedianParts([cell.id for cell, cycles in cells if cycles], names, found)


@dataclass(frozen=True)
class MedianParts:
    """The medians of the parts of each cell's pauses, by cell and name; nanoseconds."""

    cells: Sequence[str]
    names: Sequence[str]
    medians: Mapping[tuple[str, str], float]

    def across(self, ranks: Mapping[str, float] = MappingProxyType({})) -> Table[str]:
        """A row for each cell. ranks: the ranks of the parts' columns."""
        return Table(
            [
                Column(f"{TITLE}, ms", lambda cell: (cell, "bold")),
                *(self._part(name, ranks.get(name, ALWAYS)) for name in self.names),
            ],
            self.cells,
        )

    def down(self) -> Table[str]:
        """A row for each part: a few cells with many parts."""
        return Table(
            [
                Column(f"{TITLE}, ms", lambda name: (name, "")),
                *(Column(cell, partial(self._piece, cell), right=True) for cell in self.cells),
            ],
            self.names,
        )

    def longest(self) -> Table[str]:
        """A row for each cell; on narrow pages the shortest parts are combined first."""
        most = {n: max(v for (_, name), v in self.medians.items() if name == n) for n in self.names}
        order = sorted(self.names, key=lambda name: (most[name], -self.names.index(name)))
        ranks = {name: rank for rank, name in enumerate(order[:-LEAST_PARTS], 1)}
        return replace(self.across(ranks), rest=self._rest)

    def _part(self, name: str, rank: float) -> Column[str]:
        def cell(of: str) -> Piece:
            return self._piece(of, name)

        return forms(
            Column(name, cell, right=True, rank=0),
            Column(name.replace(" ", "\n", 1), cell, right=True, rank=rank),
        )

    def _piece(self, cell: str, name: str) -> Piece:
        return format_ms(self.medians[cell, name]) if (cell, name) in self.medians else "", ""

    def _rest(self, dropped: Sequence[Column[str]]) -> Column[str]:
        names = {column.head for column in dropped}

        def cell(of: str) -> Piece:
            return format_ms(sum(self.medians.get((of, name), 0) for name in names)), ""

        return Column("rest", cell, right=True)


_ORDER = (
    "suspend", "shut down", "fall asleep", "prove memory", "state out", "save", "patch", "prove memory again",
    "start successor", "state in", "restore", "resume", "put back", "start", "between", "first heartbeat",
    "first packet",
)  # fmt: skip


def _in_time(order: Sequence[str] | dict[str, None]) -> list[str]:
    """The parts in their usual order; unknown ones beside the resume."""
    known = {name: place for place, name in enumerate(_ORDER)}
    return sorted(order, key=lambda name: known.get(name, known["resume"]))
