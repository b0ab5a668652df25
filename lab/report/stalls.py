"""File systems that were frozen: for how long they stood still, by a writer in the guest and by its agent's
calls."""

from __future__ import annotations

from lab.core.quantities import format_interval, format_magnitude
from lab.record.model import CycleRecord, Run, StallRecord
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.text import counted

MOST_LINES = 6


def show_stalls(page: Page, run: Run) -> None:
    """Print a line for each of a few cycles whose file systems were frozen."""
    several = len({guest.name for guest in run.guests}) > 1
    found: list[tuple[str, StallRecord]] = []
    for guest in run.guests:
        for cycle in guest.cycles:
            if cycle.stall is not None:
                names = [guest.cell, guest.name if several else "", _number(cycle, len(guest.cycles))]
                found.append((", ".join(filter(None, names)), cycle.stall))
    label = "file systems"
    for who, stall in found[:MOST_LINES]:
        page.labelled(label, f"{_text(stall)}{f' ({who})' if who else ''}")
        label = ""
    if len(found) > MOST_LINES:
        page.labelled("", f"and {counted(len(found) - MOST_LINES, 'more cycle')}")


def _number(cycle: CycleRecord, of: int) -> str:
    return f"cycle {cycle.index}" if of > 1 else ""


def _text(stall: StallRecord) -> str:
    steps = ", ".join(f"{step.name} {format_magnitude(step.length_ns, 0)}" for step in stall.steps)
    calls = f"{format_interval(stall.calls)} by the agent's calls ({steps})"
    if stall.felt is None:
        return f"frozen for {calls}"
    return f"frozen for {interval(stall.felt)} as a writer felt it, {calls}"
