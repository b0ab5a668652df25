"""Output of `freezelab history`: a line for each run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console

from lab.record.index import RunSummary
from lab.report.cycles import VERDICTS
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import Column, Piece, Table, forms
from lab.report.text import cleaned, shortened

NO_PAUSE = "–"


def render_history(rows: Sequence[RunSummary], console: Console) -> None:
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
                Column("playbook", lambda run: (run.playbook, ""), rank=2),
                Column("guests", lambda run: (str(run.guests), ""), right=True, rank=3),
                Column("cycles", lambda run: (str(run.cycles), ""), right=True, rank=4),
                Column("longest pause", _longest, right=True),
                forms(Column("outcome", _outcome, rank=4.5), Column("outcome", _verdict)),
            ],
            [cleaned(run) for run in rows],
        )
    )


RUNNING = ("running", "cyan")


def _verdict(run: RunSummary) -> Piece:
    if run.running:
        return RUNNING
    word, style = VERDICTS[run.outcome]
    return ("interrupted" if run.interrupted else word if run.complete else "cut off"), style


def _outcome(run: RunSummary) -> Piece:
    if run.running:
        return RUNNING
    word, style = VERDICTS[run.outcome]
    ended = "" if run.complete else " (cut off)"
    return f"{word}{' (interrupted)' if run.interrupted else ended}", style


def _longest(run: RunSummary) -> Piece:
    return NO_PAUSE if run.longest_pause is None else interval(run.longest_pause), ""


def _when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return started
