"""What looked into guests without Python, and what it can bound."""

from __future__ import annotations

from lab.core.depth import Depth
from lab.record.model import Run
from lab.report.page import Page
from lab.report.text import names


def show_depth(page: Page, run: Run) -> None:
    """Print a line for each depth but the probe's that was used."""
    for depth in Depth:
        who = dict.fromkeys(guest.name for guest in run.guests if guest.boot.get("probe") == depth)
        if who and depth.bounds:
            page.labelled("probe", f"{depth} ({names(list(who))}): {depth.bounds}", style="yellow")
