"""Output of `freezelab list`: a line for each kept guest, and how to log in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from lab.core.units import format_size
from lab.report.page import Page
from lab.report.table import Column, Table
from lab.report.text import cleaned

_STYLES = {"running": "green", "gone": "bold red"}


def render_kept_guests(guests: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the guests in the order in which they are given; see lab.session.kept_guests.listing."""
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
        hint = f"freezelab down {guest['name']}" if guest["state"] == "gone" else guest["login"]
        # Not wrapped by us: it is to be copied.
        console.print(Text.assemble((f"{guest['name']}  ", "dim"), hint), soft_wrap=True)


def _when(since: str) -> str:
    try:
        return datetime.fromisoformat(since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return since
