"""A matrix: a row for each cell, and what the cells say beside each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.core.units import NS_PER_MS
from lab.record.run import Cell, Comparison, Cycle, Run
from lab.report.cycles import VERDICTS
from lab.report.numbers import at_latest, interval, magnitude, milliseconds
from lab.report.page import Column, Grid, Page, Piece
from lab.report.text import counted, shortened

MOST_CELLS = 40

_Cell = Callable[[Cell, Sequence[Cycle]], Piece]


def cycles_of(run: Run, cell: Cell) -> list[Cycle]:
    """The cell's cycles, but for its control cycles."""
    return [c for g in run.guests if g.cell == cell.id for c in g.cycles if not c.control]


def _count(cell: Cell, cycles: Sequence[Cycle]) -> Piece:  # noqa: ARG001 - one of many cells
    whole = cell.cycles == cell.wanted
    return (str(cell.cycles) if whole else f"{cell.cycles} of {cell.wanted}"), "" if whole else "yellow"


def _pause(cell: Cell, cycles: Sequence[Cycle]) -> Piece:
    if not cycles:
        return ("refused" if cell.refused else "not run"), "yellow"
    if cell.pause is not None:
        return interval(cell.pause), ""
    outages = sorted(c.outage_ns for c in cycles if c.outage_ns is not None)
    if outages:
        return f"down {magnitude(outages[len(outages) // 2])}", ""
    return ("no freeze", "dim") if not any(c.frozen for c in cycles) else ("not measured", "yellow")


def _p95(cell: Cell, cycles: Sequence[Cycle]) -> Piece:  # noqa: ARG001
    seen = next((s for s in cell.statistics if (s.kind, s.metric) == ("freeze", "pause")), None)
    return ("", "") if seen is None else (milliseconds(seen.p95.value), "")


def _regime(cell: Cell, cycles: Sequence[Cycle]) -> Piece:  # noqa: ARG001
    paused = [c for c in cycles if c.pause is not None]
    counts: dict[str, int] = {}
    for cycle in paused:
        counts[cycle.regime or "undecided"] = counts.get(cycle.regime or "undecided", 0) + 1
    style = "yellow" if "undecided" in counts else ""
    if len(counts) == 1:
        return next(iter(counts)), style
    return ", ".join(f"{count} {regime}" for regime, count in counts.items()) or "–", style


def _in_time(cell: Cell, cycles: Sequence[Cycle]) -> Piece:  # noqa: ARG001
    known = [c.resync for c in cycles if c.resync is not None]
    if not known:
        return "–", ""
    late = [r for r in known if r.time_ns is None]
    if late:
        word = "never" if any(r.outcome == "not synced" for r in late) else "undecided"
        return (word if len(known) == 1 else f"{word}: {len(late)} of {len(known)}"), (
            "red" if word == "never" else "yellow"
        )
    return at_latest(max(r.time_ns or 0 for r in known)), ""


def show_cells(page: Page, run: Run) -> None:
    """A row for each cell; the worst ones only when there are more than MOST_CELLS."""
    shown: Sequence[Cell] = run.cells
    if len(shown) > MOST_CELLS:
        order = ("failed", "inconclusive", "passed")
        shown = sorted(shown, key=lambda cell: order.index(cell.outcome))[:MOST_CELLS]
        page.parts([f"the {len(shown)} worst of {counted(len(run.cells), 'cell')}"], "dim")
    several = any(cell.wanted > 1 for cell in run.cells)
    named = all(cell.method in cell.id for cell in run.cells)
    wide: list[tuple[Column, _Cell]] = [
        (Column("cell"), lambda cell, _: (cell.id, "bold")),
        (Column("method"), lambda cell, _: (cell.method, "")),
        (Column("cycles", right=True), _count),
        (Column("pause", right=True), _pause),
        (Column("p95, ms", right=True), _p95),
        (Column("regime"), _regime),
        (Column("in time by", right=True), _in_time),
        (Column("verdict"), lambda cell, _: VERDICTS[cell.outcome]),
    ]
    if not any(len(cell.statistics) for cell in run.cells):
        wide = [pair for pair in wide if pair[0].head != "p95, ms"]
    if not several:
        wide = [pair for pair in wide if pair[0].head != "cycles"]
    less = [pair for pair in wide if pair[0].head != "method"]
    least = [pair for pair in less if pair[0].head not in ("regime", "in time by")]
    candidates = [wide, less] if not named else [less]
    grids = []
    for chosen, gap in (*((c, gap) for c in candidates for gap in (3, 2)), (less, 1), (least, 2)):
        grid = Grid([column for column, _ in chosen], gap=gap)
        for cell in shown:
            cycles = cycles_of(run, cell)
            grid.rows.append([make(cell, cycles) for _, make in chosen])
        grids.append(grid)
    if not page.grid(*grids):
        page.squeezed(grids[-1])


def show_comparisons(page: Page, run: Run) -> None:
    """Slopes and ratios, a row each."""
    slopes = Grid([Column("pause over memory"), Column("ms/GiB", True), Column("95 %", True), Column("")])
    ratios = Grid([Column("save-restore / in-place"), Column("ratio", True), Column("95 %", True)])
    for one in run.comparisons:
        name = " ".join(shortened(value, 40) for value in one.of.values()) or "all"
        if one.kind == "slope":
            ms = [None if v is None else v / NS_PER_MS for v in (one.low, one.high)]
            cells = [name, f"{one.value / NS_PER_MS:+.1f}", _interval(ms[0], ms[1], "+.1f"), _trend(one)]
            slopes.rows.append([(cells[0], "bold"), (cells[1], ""), (cells[2], "dim"), (cells[3], "")])
        else:
            digits = ".0f" if one.value >= 100 else ".1f"
            bounds = _interval(one.low, one.high, digits)
            ratios.rows.append([(name, "bold"), (f"{one.value:{digits}}x", ""), (bounds, "dim")])
    for grid in (slopes, ratios):
        if grid.rows:
            page.blank()
            page.squeezed(grid)


EXAMPLES = 3  # of what is left out for one reason


def show_left_out(page: Page, given: Sequence[tuple[Sequence[str], str]]) -> None:
    """Combinations of the matrix that are not run, as (values, why): a line for each reason."""
    groups: dict[str, list[Sequence[str]]] = {}
    for values, why in given:
        groups.setdefault(why, []).append(values)
    for why, group in groups.items():
        label = f"{counted(len(group), 'combination')} left out"
        # A value may have commas of its own.
        examples = "; ".join(" · ".join(values) for values in group[:EXAMPLES])
        more = f"; and {len(group) - EXAMPLES} more" if len(group) > EXAMPLES else ""
        page.labelled(label, f"{why}: {examples}{more}", width=len(label))


def _interval(low: float | None, high: float | None, digits: str) -> str:
    """ "[-0.2, +0.9]"; "–" where there are too few cycles for one."""
    return "–" if low is None or high is None else f"[{low:{digits}}, {high:{digits}}]"


def _trend(one: Comparison) -> str:
    if one.low is None or one.high is None:
        return f"too few cycles: {one.cycles}"
    if one.low <= 0 <= one.high:
        return "flat"
    return "grows" if one.low > 0 else "falls"
