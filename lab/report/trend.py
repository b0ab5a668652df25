"""Output of `freezelab history --figure`: a figure of each run, and its course over the runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from rich.console import Console

from lab.core.comparison import FigureKey, FigureKind, Level, RunFigures, RunMachine
from lab.record.index import RunSummary
from lab.report.comparison import FIGURES, level_text, machine_text
from lab.report.history import history_columns
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, Table, forms
from lab.report.text import cleaned, counted, shortened

_BARS = "▁▂▃▄▅▆▇█"
_LEVEL = "▄"
_NEVER = "×"
MOST_LINES = 20

_Place = tuple[str, RunMachine, str, str]
"""Playbook, machine, cell and subject: what is on one line."""
_TrendLine = tuple[_Place, list[Level]]


def render_trend(
    kind: FigureKind, runs: Sequence[RunSummary], figures: Sequence[RunFigures], console: Console
) -> None:
    """Print the runs with the figure's median, then its course, the oldest run first: a line for each
    playbook, machine and cell. runs, figures: of the same runs, the latest first."""
    page = Page(console)
    rows = list(zip(cleaned(list(runs)), cleaned(list(figures)), strict=True))
    if not rows:
        page.parts(["no such runs"])
        return
    shown = Column[tuple[RunSummary, RunFigures]](
        FIGURES[kind].removesuffix(" of"), lambda row: _median(kind, row[1]), right=True
    )
    tagged = any(run.tags for run in runs)
    page.table(Table(history_columns(lambda row: row[0], shown, tagged), rows))
    lines = _lines(kind, [figures for _, figures in rows])
    page.blank()
    if not lines:
        page.parts(["none of these runs has this figure"], style="dim")
        return
    several = len({machine for _, machine, *_ in lines}) > 1
    machines = forms(
        Column[_TrendLine]("machine", lambda line: (machine_text(line[0][1]), "dim"), rank=1),
        Column[_TrendLine]("machine", lambda line: (_short(line[0][1]), "dim"), rank=4),
    )
    listed = list(lines.items())[: page.most(MOST_LINES)]
    page.table(
        Table(
            [
                Column("oldest first", lambda line: (_label(line[0]), "bold"), rank=ALWAYS),
                *([machines] if several else []),
                Column("", lambda line: (_course(page, line[1]), "cyan")),
                Column("runs", lambda line: (str(len(line[1])), ""), right=True, rank=2),
                Column("last", lambda line: (level_text(kind, line[1][-1]), ""), right=True, rank=3),
            ],
            listed,
        )
    )
    if len(listed) < len(lines):
        page.parts([f"and {len(lines) - len(listed)} more: --playbook chooses one"], style="dim")


def _short(machine: RunMachine) -> str:
    return machine.id[:8] or machine.cpu


def _lines(kind: FigureKind, figures: Sequence[RunFigures]) -> dict[_Place, list[Level]]:
    """The levels of each line, the oldest first."""
    found: dict[_Place, list[Level]] = {}
    for run in reversed(figures):
        for key, values in run.figures.items():
            if key.kind is kind and values:
                place = run.playbook, run.machine, key.cell, key.subject
                found.setdefault(place, []).append(Level.of(values))
    return found


def _label(place: _Place) -> str:
    playbook, _, cell, subject = place
    return shortened(" · ".join(filter(None, [playbook, cell, subject])), 40)


def _median(kind: FigureKind, run: RunFigures) -> Piece:
    keys: list[FigureKey] = [key for key, values in run.figures.items() if key.kind is kind and values]
    if not keys:
        return "–", "dim"
    if len(keys) > 1:
        return counted(len(keys), "cell" if keys[0].cell else "workload"), "dim"
    return level_text(kind, Level.of(run.figures[keys[0]])), ""


def _course(page: Page, levels: Sequence[Level]) -> str:
    """A bar for each run, from the least to the largest; all alike when the bounds of all of them have a
    value in common. Where nothing can be drawn, nothing."""
    if not page.draws:
        return ""
    known = [level for level in levels if isfinite(level.value)]
    if known and max(level.low for level in known) <= min(level.high for level in known):
        return "".join(_LEVEL if isfinite(level.value) else _NEVER for level in levels)
    least = min((level.value for level in known), default=0.0)
    span = max((level.value for level in known), default=0.0) - least or 1.0
    return "".join(
        _BARS[min(len(_BARS) - 1, int((level.value - least) / span * len(_BARS)))]
        if isfinite(level.value)
        else _NEVER
        for level in levels
    )
