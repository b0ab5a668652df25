"""What `freezelab history` prints: a line for each run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console

from lab.record.run import Run
from lab.report.cycles import VERDICTS
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import Column, Piece, Table, forms
from lab.report.text import cleaned, shortened

NO_PAUSE = "–"


def render_history(rows: Sequence[Run], console: Console) -> None:
    """Print the runs in the order in which they are given."""
    page = Page(console)
    if not rows:
        page.parts(["no runs yet"])
        return
    page.table(
        Table(
            [
                forms(
                    Column("run", lambda run: (run.id, "bold"), rank=5),
                    Column("run", lambda run: (shortened(run.id, 34), "bold")),
                ),
                Column("when", lambda run: (_when(run.started), ""), rank=1),
                Column("playbook", lambda run: (run.playbook.name, ""), rank=2),
                Column("guests", _guests, right=True, rank=3),
                Column("cycles", lambda run: (str(_count(run)), ""), right=True, rank=4),
                Column("longest pause", _longest, right=True),
                forms(Column("outcome", _outcome, rank=4.5), Column("outcome", _verdict)),
            ],
            [cleaned(run) for run in rows],
        )
    )


def _guests(run: Run) -> Piece:
    return str(len({guest.name for guest in run.guests})), ""


def _verdict(run: Run) -> Piece:
    word, style = VERDICTS[run.outcome]
    return ("interrupted" if run.interrupted else word if run.complete else "cut off"), style


def _outcome(run: Run) -> Piece:
    word, style = VERDICTS[run.outcome]
    ended = "" if run.complete else " (cut off)"
    return f"{word}{' (interrupted)' if run.interrupted else ended}", style


def _count(run: Run) -> int:
    """Of each guest; of a matrix in all cells together."""
    each = [sum(not c.control for c in g.cycles) for g in run.guests]
    return sum(each) if run.cells else max(each, default=0)


def _longest(run: Run) -> Piece:
    pauses = [c.pause for guest in run.guests for c in guest.cycles if c.frozen and c.pause is not None]
    return interval(max(pauses, key=lambda pause: pause.value_ns)) if pauses else NO_PAUSE, ""


def _when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return started
