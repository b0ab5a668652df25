"""What looked into guests without Python, and what it can bound."""

from __future__ import annotations

from lab.core.clock import GuestClock
from lab.core.depth import Depth, ProbeLimits, bounds
from lab.record.model import GuestRecord, Run
from lab.report.page import Page
from lab.report.text import names


def show_depth(page: Page, run: Run) -> None:
    """Print a line for each depth but the probe's that was used, and for each thing that it bounds."""
    for depth in Depth:
        who: dict[str, list[str]] = {}
        for guest in run.guests:
            if guest.boot.get("probe") == depth and (text := bounds(depth, _limits(guest))):
                who.setdefault(text, []).append(guest.name)
        for text, guests in who.items():
            page.labelled("probe", f"{depth} ({names(list(dict.fromkeys(guests)))}): {text}", style="yellow")


def _limits(guest: GuestRecord) -> ProbeLimits:
    """Those of a guest. Records before 2026-11-29 have none."""
    boot = guest.boot
    steady = "" if boot["probe"] == Depth.AGENT else GuestClock.MONO
    return ProbeLimits(
        int(boot.get("probe_resolution_ns", 1)),
        str(boot.get("probe_steady", steady)),
        int(boot.get("probe_period_ns", 0)),
    )
