"""Output of commands that print a list: `doctor`, `list`, `image list`, `emulator list`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lab.core.machine_check import MachineCheck
from lab.core.units import format_size
from lab.report.page import Page
from lab.report.table import Column, Table
from lab.report.text import cleaned

Row = tuple[str, ...]

_MARKS = {True: ("ok", "green"), False: ("BAD", "bold red"), None: ("note", "yellow")}
_STYLES = {"running": "green", "gone": "bold red", "shut off": "bold red"}


def render_checks(checks: Sequence[MachineCheck], console: Console) -> None:
    """Print a line for each check, under a failing one how to correct it, if that is not what an earlier one
    says, and their overall result."""
    page, fixes = Page(console), set[str]()
    width = max(cell_len(check.name) for check in checks)
    for check in checks:
        mark, style = _MARKS[check.ok]
        page.labelled(f"{mark:<5}{check.name}", check.result, label_style=style, width=width + 5)
        if check.fix and check.ok is not True and check.fix not in fixes:
            fixes.add(check.fix)
            page.labelled("", f"fix: {check.fix}", style="dim", width=width + 5)
    page.blank()
    bad = sum(check.ok is False for check in checks)
    if bad:
        page.parts([f"{bad} of {len(checks)} checks failed"], "bold red")
    else:
        page.parts(["this machine can run freezelab"], "bold green")


def render_kept_guests(guests: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a line for each kept guest, and how to log in; see lab.session.kept_guests.listing."""
    page = Page(console)
    if not guests:
        page.parts(["no kept guests", "freezelab up starts one"])
        return
    there = [cleaned(dict(guest)) for guest in guests]
    page.table(
        Table(
            [
                Column("guest", lambda guest: (guest["name"], "bold")),
                Column("state", lambda guest: (guest["state"], _STYLES.get(guest["state"], "yellow"))),
                Column("image", lambda guest: (guest["image"], ""), rank=3),
                Column("memory", lambda guest: (format_size(guest["memory_bytes"]), ""), rank=2),
                Column("since", lambda guest: (_when(guest["since"]), ""), rank=1),
            ],
            there,
        )
    )
    page.blank()
    for guest in there:
        hint = f"freezelab down {guest['name']}" if guest["ended"] else guest["login"]
        # Not wrapped by us: it is to be copied.
        console.print(Text.assemble((f"{guest['name']}  ", "dim"), hint), soft_wrap=True)


def _when(since: str) -> str:
    try:
        return datetime.fromisoformat(since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return since


def render_store(heads: Sequence[str], rows: Sequence[Row], console: Console) -> None:
    """Print the rows, whose cells are in the order of `heads`. A narrow page loses the last columns first."""
    columns = [_column(head, at, rank=len(heads) - at) for at, head in enumerate(heads)]
    Page(console).table(Table(columns, [cleaned(row) for row in rows]))


def _column(head: str, at: int, rank: int) -> Column[Row]:
    return Column(head, lambda row: (row[at], "" if at else "bold"), rank=rank)
