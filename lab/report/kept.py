"""What `freezelab list` prints: a line for each kept guest, and how to log in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from lab.core.units import format_size
from lab.report.page import Column, Grid, Page
from lab.report.text import cleaned

_STYLES = {"running": "green", "gone": "bold red"}


def render_kept(guests: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the guests in the order in which they are given; see lab.session.kept_guests.listing."""
    page = Page(console)
    if not guests:
        page.parts(["no guest is kept", "freezelab up starts one"])
        return
    there = [cleaned(dict(guest)) for guest in guests]
    grid = Grid([Column(head) for head in ("guest", "state", "image", "memory", "since")])
    for guest in there:
        grid.rows.append(
            [
                (guest["name"], "bold"),
                (guest["state"], _STYLES.get(guest["state"], "yellow")),
                (guest["image"], ""),
                (format_size(guest["memory_bytes"]), ""),
                (_when(guest["since"]), ""),
            ]
        )
    if not page.grid(grid):
        page.squeezed(grid)
    page.blank()
    for guest in there:
        said = f"freezelab down {guest['name']}" if guest["state"] == "gone" else guest["login"]
        # Not wrapped by us: it is to be copied.
        console.print(Text.assemble((f"{guest['name']}  ", "dim"), said), soft_wrap=True)


def _when(since: str) -> str:
    try:
        return datetime.fromisoformat(since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return since
