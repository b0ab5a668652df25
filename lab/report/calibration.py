"""What `freezelab calibrate` prints: how exact the lab is here, by kind and length of pause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from lab.core.units import format_duration
from lab.report.numbers import milliseconds
from lab.report.page import Column, Grid, Page, Piece
from lab.report.text import clean

WIDE = ("pause", "how", "cycles", "bias ms", "95 % of errors ms", "known to ms", "covered")
NARROW = ("pause", "how", "bias ms", "95 % of errors ms", "covered")


def render_calibration(
    made: str,
    run: str,
    figures: Mapping[str, Any],
    stale: str,
    console: Console,
    rough: str = "",
    dropped: str = "",
) -> None:
    """Print a calibration. figures: as lab.session.calibration.as_data has them. stale: why it does not hold;
    rough: why it could be more exact. dropped: why it is not this machine's from now on."""
    page = Page(console)
    everything = figures["all"]
    page.parts([f"calibrated {clean(made)}", f"run {clean(run)}"], "dim")
    page.blank()
    for heads in (WIDE, NARROW):
        grid = Grid([Column(head, right=head not in ("how",)) for head in heads])
        for part in figures["parts"]:
            cells = _cells(format_duration(part["pause_ns"]), part["method"], part)
            grid.rows.append([cells[head] for head in heads])
        cells = _cells("all", "", everything)
        grid.rows.append([cells[head] for head in heads])
        if page.grid(grid):
            break
    else:
        page.squeezed(grid)
    page.blank()
    page.labelled("measured", "by the guest's side alone; the host's own stamps are what is known")
    page.labelled("bias", _bias(everything))
    page.labelled("coverage", _coverage(everything), style="" if _held(everything) else "bold red")
    if everything["lost"]:
        page.labelled("lost", f"{everything['lost']} pauses could not be measured", style="yellow")
    if (noise := figures["noise"]) is not None:
        page.labelled(
            "noise floor",
            f"without a pause, in {noise['cycles']} cycles: the largest hole "
            f"{milliseconds(noise['hole_ns'], up=True)} ms, the largest pause that would be reported "
            f"{milliseconds(noise['pause_ns'], up=True)} ms",
        )
    if figures["offset_bound_ns"] is not None:
        bound = milliseconds(figures["offset_bound_ns"], up=True)
        page.labelled("offset", f"known to ± {bound} ms at rest (median)")
    if dropped:
        page.labelled("not kept", clean(dropped), style="yellow")
    elif rough:
        page.labelled("rough", f"{clean(rough)}: reports that quote it say so", style="yellow")
    if stale:
        page.labelled("stale", f"{clean(stale)}: freezelab calibrate", style="yellow")


def _held(given: Mapping[str, Any]) -> bool:
    return bool(given["met"] == given["count"])


def _signed(ns: float) -> str:
    return milliseconds(ns, sign="+")


def _bias(given: Mapping[str, Any]) -> str:
    low, high = given["bias_low_ns"], given["bias_high_ns"]
    known = "" if low is None or high is None else f" (at 95 %: {_signed(low)} to {_signed(high)} ms)"
    return f"{_signed(given['bias_ns'])} ms{known}; 95 % of errors {_range(given)} ms"


def _range(given: Mapping[str, Any]) -> str:
    return f"{_signed(given['low_ns'])} … {_signed(given['high_ns'])}"


def _coverage(given: Mapping[str, Any]) -> str:
    least = int(given["coverage_low"] * 1000) / 10
    return (
        f"{given['met']} of {given['count']} intervals may hold the known pause, {given['contained']} do for "
        f"certain; so at least {least:.1f} % of all, at 95 % confidence"
    )


def _cells(pause: str, how: str, given: Mapping[str, Any]) -> dict[str, Piece]:
    return {
        "pause": (pause, "bold"),
        "how": (how, ""),
        "cycles": (str(given["count"]), ""),
        "bias ms": (_signed(given["bias_ns"]), ""),
        "95 % of errors ms": (_range(given), ""),
        "known to ms": (f"± {milliseconds(given['width_ns'] / 2, up=True)}", ""),
        "covered": (f"{given['met']}/{given['count']}", "" if _held(given) else "bold red"),
    }
