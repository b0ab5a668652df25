"""The lab's measurement error on this host, by its last calibration: one line in every report."""

from __future__ import annotations

from datetime import datetime

from lab.core.quantities import UP, format_magnitude, format_ms
from lab.record.model import Calibration, Run
from lab.report.page import Page
from lab.report.text import clean

COMMAND = "freezelab calibrate"


def summed_up(given: Calibration) -> list[str]:
    """ "calibrated 2026-11-20: bias +0.1 ms", "spread 0.9 ms", "40/40 covered", "noise 7 ms"."""
    covered = round(given.coverage * given.cycles)
    bias = format_ms(given.bias_ns, sign="+", bound_ns=given.offset_bound_ns or given.spread_ns)
    return [
        f"calibrated {_day(given.made)}: bias {bias} ms",
        f"spread {format_magnitude(given.spread_ns)}",
        f"{covered}/{given.cycles} covered",
        f"noise {format_magnitude(given.noise_ns)}",
        f"offsets to ± {format_ms(given.offset_bound_ns, UP)} ms" if given.offset_bound_ns else "",
    ]


def _day(made: str) -> str:
    try:
        return datetime.fromisoformat(made).date().isoformat()
    except ValueError:
        return made


def _show_cross_timestamps(page: Page, run: Run) -> None:
    known = [cycle.cross_timestamps for guest in run.guests for cycle in guest.cycles]
    given = [one for one in known if one is not None]
    if given:
        bound, alone = max(one.bound_ns for one in given), max(one.alone_ns for one in given)
        text = f"ptp_kvm gave the host's clock with {sum(one.readings for one in given)} readings"
        without = f"without it ± {format_ms(alone, UP)} ms"
        page.parts([text, f"offsets to ± {format_ms(bound, UP)} ms", without], "dim")


def show_accuracy(page: Page, run: Run) -> None:
    """Print what cross-timestamps gained, and the last calibration, or that there is no valid one and what to
    do."""
    _show_cross_timestamps(page, run)
    given = run.calibration
    by_host = {
        str(part.host.details.get("host", part.run)): part.calibration
        for part in run.parts
        if part.calibration is not None
    }
    if given is None and by_host:
        for host, one in by_host.items():
            page.parts([clean(host), *summed_up(one), one.stale or one.rough], "dim")
        return
    if given is None:
        page.parts([f"this machine has no calibration: run {COMMAND}"], "yellow")
        return
    page.parts(summed_up(given), "dim")
    if given.stale:
        page.parts([f"the calibration is out of date: {given.stale}: run {COMMAND}"], "yellow")
    elif given.rough:
        page.parts([f"the calibration is rough: {given.rough}: run {COMMAND}"], "yellow")
