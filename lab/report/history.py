"""Output of `freezelab history`: a line for each run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lab.record.index import RunSummary
from lab.report.cycles import VERDICTS
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import Column, Piece, T, Table, forms
from lab.report.text import clean, cleaned, counted, shortened

if TYPE_CHECKING:
    from lab.record.pruning import PrunedRuns

NO_PAUSE = "–"


def render_history(rows: Sequence[RunSummary], console: Console, *, none: str = "no runs yet") -> None:
    """Print the runs in the order in which they are given. none: what is printed without any."""
    page = Page(console)
    if not rows:
        page.parts([none])
        return
    longest = Column[RunSummary]("longest pause", _longest, right=True)
    tagged = any(run.tags for run in rows)
    page.table(Table(history_columns(lambda run: run, longest, tagged), [cleaned(run) for run in rows]))


def history_columns(of: Callable[[T], RunSummary], figure: Column[T], tagged: bool) -> list[Column[T]]:
    """The columns of a list of runs. of: the run of a row. figure: the column before the outcome. tagged:
    some of the runs have tags."""

    def column(head: str, text: Callable[[RunSummary], str], **more: Any) -> Column[T]:
        return Column(head, lambda row: (text(of(row)), ""), **more)

    return [
        forms(
            Column("run", lambda row: (of(row).id, "bold"), rank=5),
            Column("run", lambda row: (shortened(of(row).id, 34), "bold")),
        ),
        column("when", lambda run: when(run.started), rank=1),
        column("playbook", lambda run: run.playbook, rank=2),
        *([column("tags", lambda run: ", ".join(run.tags), rank=1.5)] if tagged else []),
        column("guests", lambda run: str(run.guests), right=True, rank=3),
        column("cycles", lambda run: str(run.cycles), right=True, rank=4),
        figure,
        forms(
            Column("outcome", lambda row: _outcome(of(row)), rank=4.5),
            Column("outcome", lambda row: _verdict(of(row))),
        ),
    ]


def render_prune(going: PrunedRuns, console: Console) -> None:
    """Print what is to be removed, and what stays."""
    page = Page(console)
    for folder in going.folders:
        page.put((f"remove  {clean(folder.name)}", ""))
    for name, why in going.stays:
        page.put((f"keep    {clean(name)}: {why}", "dim"))
    size = f", {going.size / (1 << 20):.1f} MiB" if going.folders else ""
    rest = "1 stays" if going.remaining == 1 else f"{going.remaining} stay"
    page.parts([f"{counted(len(going.folders), 'run')} to remove{size}", rest])


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


def when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return started
