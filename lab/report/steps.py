"""Where the pause goes: a table and a bar of its parts, for one cycle, or their medians over several; for a
matrix the medians of each cell in a row."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.stats import quantile
from lab.core.units import NS_PER_MS, format_bounded
from lab.record.run import Cycle, Run, Statistic, Step
from lab.report.numbers import grouped_ms, limits, milliseconds
from lab.report.page import Column, Grid, Page, Piece

TITLE = "where the pause goes"
BAR = 30
LEAST_NS = NS_PER_MS // 10
"""Time between two parts that is shorter than this is not worth a column."""

CUT = 4
"""A part this much longer than all the others together does not set the bar's scale: a patch of seconds
would leave nothing to be seen of them."""

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
    """The length that a full bar stands for."""
    ordered = sorted(lengths)
    if len(ordered) > 1 and ordered[-1] > CUT * sum(ordered[:-1]) > 0:
        return ordered[-2]
    return max(1.0, ordered[-1])


def _bars(scale_ns: float) -> Column:
    """The head of a column of bars: what a full one stands for."""
    return Column(f"a full bar is {milliseconds(scale_ns)} ms")


def show_steps(page: Page, run: Run) -> None:
    """Nothing when no guest was stopped."""
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


def _length(step: Step) -> str:
    if step.low_ns is None or step.high_ns is None:
        return milliseconds(step.length_ns)
    return format_bounded(step.length_ns, step.low_ns, step.high_ns).removesuffix(" ms")


def _one(page: Page, cycle: Cycle) -> None:
    """One cycle's parts, in order, with the instants at which they begin."""
    scale = _scale([step.length_ns for step in cycle.steps])
    plain = Grid([Column(TITLE), Column("ms", right=True), Column("from", right=True)])
    drawn = Grid([*plain.columns, _bars(scale)])
    for step in cycle.steps:
        if step.name == "between" and step.length_ns < LEAST_NS:
            continue
        cells: list[Piece] = [
            (step.name, ""), (_length(step), ""), (grouped_ms(step.at_ns), "dim"),
        ]  # fmt: skip
        plain.rows.append(cells)
        drawn.rows.append([*cells, (fine_bar(page, step.length_ns / scale, BAR), "cyan")])
    last = cycle.steps[-1]
    total: list[Piece] = [
        ("all of it", "bold"), (milliseconds(last.at_ns + last.length_ns), "bold"), ("", ""),
    ]  # fmt: skip
    plain.rows.append(total)
    drawn.rows.append([*total, ("", "")])
    _put(page, drawn, plain)


def _medians(page: Page, given: Sequence[Statistic]) -> None:
    scale = _scale([s.median.value for s in given])
    head = [Column(TITLE), Column("median", right=True)]
    rest = [Column("p95", right=True), Column("max", right=True)]
    rich = Grid([*head, Column("95 % limits", right=True), *rest, _bars(scale)])
    short, plain = Grid([*head, *rest, _bars(scale)]), Grid([*head, Column("95 % limits", right=True), *rest])
    for s in given:
        first: list[Piece] = [(s.metric, ""), (milliseconds(s.median.value), "")]
        between: list[Piece] = [(limits(s.median), "dim")]
        last: list[Piece] = [(milliseconds(s.p95.value), ""), (milliseconds(s.max), "")]
        drawing: list[Piece] = [(fine_bar(page, s.median.value / scale, BAR), "cyan")]
        rich.rows.append([*first, *between, *last, *drawing])
        short.rows.append([*first, *last, *drawing])
        plain.rows.append([*first, *between, *last])
    for grid in (rich, short, plain):
        grid.columns = [
            Column(f"{c.head}, ms" if c.head == "median" else c.head, c.right) for c in grid.columns
        ]
    if page.plain:
        _put(page, plain, plain)
    elif not page.grid(rich, short, plain):
        page.squeezed(plain)


def _put(page: Page, drawn: Grid, plain: Grid) -> None:
    if page.plain or not page.grid(drawn):
        page.squeezed(plain)


def _median(cycles: Sequence[Cycle], name: str) -> float | None:
    lengths = [
        sum(step.length_ns for step in cycle.steps if step.name == name)
        for cycle in cycles
        if any(step.name == name for step in cycle.steps)
    ]
    return quantile(lengths, 0.5).value if lengths else None


def _by_cell(page: Page, run: Run) -> None:
    """The medians of each cell, in milliseconds; as lines where the table is too wide."""
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
    page.blank()
    given = [cell.id for cell, cycles in cells if cycles]
    full = _table(given, names, found, " ")
    folded = [
        _table(given, _longest(names, found, many), found, "\n") for many in range(len(names) - 1, 2, -1)
    ]
    if not page.grid(full, _table(given, names, found, "\n"), _turned(full), *folded):
        page.squeezed((folded or [full])[-1])


def _longest(names: Sequence[str], found: dict[tuple[str, str], float], many: int) -> list[str]:
    """The parts that are longest somewhere, in their order."""
    most = {name: max(v for (_, n), v in found.items() if n == name) for name in names}
    kept = sorted(names, key=lambda name: -most[name])[:many]
    return [name for name in names if name in kept]


def _table(
    cells: Sequence[str], names: Sequence[str], found: dict[tuple[str, str], float], split: str
) -> Grid:
    """What is not among the names is told as the rest."""
    rest = any(name not in names for _, name in found)
    heads = [name.replace(" ", split, 1) for name in names] + (["rest"] if rest else [])
    grid = Grid([Column(f"{TITLE}, ms"), *(Column(head, right=True) for head in heads)])
    for cell in cells:
        values = [found.get((cell, name)) for name in names]
        if rest:
            values.append(sum(v for (c, name), v in found.items() if c == cell and name not in names))
        shown = ["" if value is None else milliseconds(value) for value in values]
        grid.rows.append([(cell, "bold"), *((text, "") for text in shown)])
    return grid


def _turned(grid: Grid) -> Grid:
    """Rows for columns: a few cells with many parts."""
    turned = Grid([Column(grid.columns[0].head), *(Column(row[0][0], right=True) for row in grid.rows)])
    for number, column in enumerate(grid.columns[1:], 1):
        turned.rows.append([(column.head, ""), *(row[number] for row in grid.rows)])
    return turned


_ORDER = (
    "suspend", "shut down", "fall asleep", "prove memory", "state out", "save", "patch", "prove memory again",
    "start successor", "state in", "restore", "resume", "put back", "start", "between", "first heartbeat",
    "first packet",
)  # fmt: skip


def _in_time(order: Sequence[str] | dict[str, None]) -> list[str]:
    """The parts in the order in which methods come to them; unknown ones beside the resume."""
    known = {name: place for place, name in enumerate(_ORDER)}
    return sorted(order, key=lambda name: known.get(name, known["resume"]))
