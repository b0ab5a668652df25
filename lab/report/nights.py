"""Output of `freezelab nightly run`, `status` and `report`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from lab.core.night import NightVerdict, PlaybookNight
from lab.core.quantities import format_length
from lab.errors import RecordError
from lab.record.nights import Night
from lab.report.page import Page
from lab.report.table import Column, Piece, Table, forms
from lab.report.text import clean, cleaned, counted

VERDICT_STYLES = {
    NightVerdict.PASSED: "bold green",
    NightVerdict.FAILED: "bold red",
    NightVerdict.ERROR: "bold red",
    NightVerdict.INVALID: "bold red",
    NightVerdict.INCONCLUSIVE: "bold yellow",
    NightVerdict.INTERRUPTED: "bold yellow",
}


def render_night(night: Night, folder: Path, console: Console) -> None:
    """Print a night: a line for each playbook, and why it did not pass."""
    page, night = Page(console), cleaned(night)
    page.table(
        Table(
            [
                Column("playbook", lambda part: (part.playbook, "bold")),
                Column("verdict", _verdict_of),
                Column("took", lambda part: (_took(part), ""), right=True, rank=2),
                Column("baseline", lambda part: (_baseline(part), ""), rank=3),
                Column("run", lambda part: (part.run or "–", ""), rank=1),
            ],
            night.playbooks,
        )
    )
    page.blank()
    for part in night.playbooks:
        show_part(page, part)
    page.parts([f"the night: {_state(night, running=False)[0]}", clean(str(folder))], "bold")


def render_nights(
    nights: Sequence[Night], damaged: Sequence[RecordError], console: Console, *, running: bool
) -> None:
    """Print a line for each night, in the order in which they are given. running: whether the first of them
    may be under way."""
    page = Page(console)
    if not nights:
        page.parts(["no nights yet"])
    else:
        shown = [cleaned(night) for night in nights]
        first = shown[0]
        page.table(
            Table(
                [
                    Column("night", lambda night: (when(night.started), "bold")),
                    Column("verdict", lambda night: _state(night, running=running and night is first)),
                    forms(
                        Column("playbooks", lambda night: (_playbooks(night), ""), rank=3),
                        Column("playbooks", lambda night: (_short(night), "")),
                    ),
                    Column("id", lambda night: (night.id, "dim"), rank=1),
                ],
                shown,
            )
        )
    if damaged:
        page.parts([f"{counted(len(damaged), 'night')} cannot be read: {clean(str(damaged[0]))}"], "yellow")


def render_baselines(rows: Sequence[tuple[str, str, str]], console: Console) -> None:
    """Print a line for each (playbook, run, verdict)."""
    page = Page(console)
    if not rows:
        page.parts(["no baselines", "a playbook's last passed runs are its baseline"])
        return
    heads = ("playbook", "run", "verdict")
    columns = [Column(head, partial(_cell, at)) for at, head in enumerate(heads)]
    page.table(Table(columns, cleaned(list(rows))))


def _cell(at: int, row: tuple[str, ...]) -> Piece:
    return row[at], ""


def show_part(page: Page, part: PlaybookNight) -> None:
    """Print why a playbook did not pass, and what else there is to know. part: `cleaned`."""
    label, style = part.playbook, VERDICT_STYLES[part.verdict]
    for line in (*part.reasons, *(f"note: {note}" for note in part.notes)):
        page.labelled(label, line, label_style=style, width=len(part.playbook))
        label = ""


def night_state(night: Night, running: bool) -> str:
    """Its verdict, "under way" or "cut off"."""
    return _state(night, running=running)[0]


def when(started: str) -> str:
    """A night's beginning in the machine's time zone, as its timer has it."""
    try:
        return datetime.fromisoformat(started).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return started


def _verdict_of(part: PlaybookNight) -> Piece:
    return part.verdict.value, VERDICT_STYLES[part.verdict]


def _state(night: Night, *, running: bool) -> Piece:
    if night.verdict is None:
        return ("under way", "cyan") if running else ("cut off", "bold yellow")
    return night.verdict.value, VERDICT_STYLES[night.verdict]


def _playbooks(night: Night) -> str:
    """ "first-freeze passed, methods failed"."""
    return ", ".join(f"{part.playbook} {part.verdict}" for part in night.playbooks)


def _short(night: Night) -> str:
    """ "2, and 1 did not pass"."""
    bad = sum(part.verdict is not NightVerdict.PASSED for part in night.playbooks)
    return f"{len(night.playbooks)}{f', and {bad} did not pass' if bad else ''}"


def _took(part: PlaybookNight) -> str:
    return format_length(part.took_ns) if part.took_ns else "–"


def _baseline(part: PlaybookNight) -> str:
    return counted(len(part.baseline), "run") if part.baseline else "none"
