"""What `freezelab history` prints: a line for each run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console

from lab.record.run import Measure, Run
from lab.report.cycles import VERDICTS
from lab.report.numbers import interval
from lab.report.page import Column, Grid, Page, Piece
from lab.report.text import cleaned, shortened

NO_PAUSE = "–"


def render_history(rows: Sequence[Run], console: Console) -> None:
    """Print the runs in the order in which they are given."""
    page = Page(console)
    if not rows:
        page.parts(["no runs yet"])
        return
    runs = [cleaned(run) for run in rows]
    wide = ("run", "when", "playbook", "guests", "cycles", "longest pause", "outcome")
    narrow = ("run", "longest pause", "outcome")
    for heads, name_width in ((wide, 64), (wide[:1] + wide[3:], 64), (narrow, 64), (narrow, 34)):
        grid = Grid([Column(head, right=head in ("guests", "cycles", "longest pause")) for head in heads])
        for run in runs:
            cells = _cells(run, name_width)
            grid.rows.append([cells[head] for head in heads])
        if page.grid(grid):
            return
    page.squeezed(grid)


def _cells(run: Run, name_width: int) -> dict[str, Piece]:
    cycles = [cycle for guest in run.guests for cycle in guest.cycles if cycle.frozen]
    word, style = VERDICTS[run.outcome]
    ended = (
        "" if run.complete and not run.interrupted else " (interrupted)" if run.interrupted else " (cut off)"
    )
    return {
        "run": (shortened(run.id, name_width), "bold"),
        "when": (_when(run.started), ""),
        "playbook": (run.playbook.name, ""),
        "guests": (str(len({guest.name for guest in run.guests})), ""),
        "cycles": (str(_count(run)), ""),
        "longest pause": (_longest([cycle.pause for cycle in cycles]), ""),
        "outcome": (f"{word}{ended}", style),
    }


def _count(run: Run) -> int:
    """Of each guest; of a matrix in all cells together."""
    each = [sum(not c.control for c in g.cycles) for g in run.guests]
    return sum(each) if run.cells else max(each, default=0)


def _longest(pauses: Sequence[Measure | None]) -> str:
    known = [pause for pause in pauses if pause is not None]
    return interval(max(known, key=lambda pause: pause.value_ns)) if known else NO_PAUSE


def _when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return started
