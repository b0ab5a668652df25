"""Output of `freezelab calibrate`: the measurement error here, by kind and length of pause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from lab.core.quantities import UP, format_ms
from lab.core.units import format_duration
from lab.report.page import Page
from lab.report.table import Column, Piece, Table
from lab.report.text import clean


def render_calibration(
    made: str,
    run: str,
    figures: Mapping[str, Any],
    stale: str,
    console: Console,
    rough: str = "",
    dropped: str = "",
) -> None:
    """Print a calibration. figures: those of lab.session.calibration.as_data. stale: why it is not valid;
    rough: why it is less exact than possible. dropped: why it does not replace the last one."""
    page = Page(console)
    everything = figures["all"]
    page.parts([f"calibrated {clean(made)}", f"run {clean(run)}"], "dim")
    page.blank()
    rows = [(format_duration(part["pause_ns"]), part["method"], part) for part in figures["parts"]]
    page.table(Table(_COLUMNS, [*rows, ("all", "", everything)]))
    page.blank()
    page.labelled("measured", "from the guest's side alone, compared with the host's own stamps")
    page.labelled("bias", _bias(everything))
    page.labelled("coverage", _coverage(everything), style="" if _held(everything) else "bold red")
    if everything["lost"]:
        page.labelled("lost", f"{everything['lost']} pauses could not be measured", style="yellow")
    if (noise := figures["noise"]) is not None:
        page.labelled(
            "noise floor",
            f"without a pause, in {noise['cycles']} cycles: the largest hole "
            f"{format_ms(noise['hole_ns'], UP)} ms, the largest pause that would be reported "
            f"{format_ms(noise['pause_ns'], UP)} ms",
        )
    if figures["offset_bound_ns"] is not None:
        bound = format_ms(figures["offset_bound_ns"], UP)
        page.labelled("offset", f"known to ± {bound} ms at rest (median)")
    if dropped:
        page.labelled("not kept", clean(dropped), style="yellow")
    elif rough:
        page.labelled("rough", f"{clean(rough)}; reports quote it as rough", style="yellow")
    if stale:
        page.labelled("stale", f"{clean(stale)}: run freezelab calibrate", style="yellow")


def _held(given: Mapping[str, Any]) -> bool:
    return bool(given["met"] == given["count"])


def _bias(given: Mapping[str, Any]) -> str:
    low, high = given["bias_low_ns"], given["bias_high_ns"]
    known = (
        ""
        if low is None or high is None
        else f" (at 95 %: {format_ms(low, sign='+')} to {format_ms(high, sign='+')} ms)"
    )
    return f"{format_ms(given['bias_ns'], sign='+')} ms{known}; 95 % of errors {_range(given)} ms"


def _range(given: Mapping[str, Any]) -> str:
    return f"{format_ms(given['low_ns'], sign='+')} … {format_ms(given['high_ns'], sign='+')}"


def _coverage(given: Mapping[str, Any]) -> str:
    least = int(given["coverage_low"] * 1000) / 10
    return (
        f"{given['met']} of {given['count']} intervals may hold the known pause, {given['contained']} do for "
        f"certain; so at least {least:.1f} % of all, at 95 % confidence"
    )


_Row = tuple[str, str, Mapping[str, Any]]
"""Length of the pause, method, figures."""


def _covered(row: _Row) -> Piece:
    return f"{row[2]['met']}/{row[2]['count']}", "" if _held(row[2]) else "bold red"


_COLUMNS: Sequence[Column[_Row]] = (
    Column("pause", lambda row: (row[0], "bold"), right=True),
    Column("how", lambda row: (row[1], "")),
    Column("cycles", lambda row: (str(row[2]["count"]), ""), right=True, rank=1),
    Column("bias ms", lambda row: (format_ms(row[2]["bias_ns"], sign="+"), ""), right=True),
    Column("95 % of errors ms", lambda row: (_range(row[2]), ""), right=True),
    Column(
        "known to ms",
        lambda row: (f"± {format_ms(row[2]['width_ns'] / 2, UP)}", ""),
        right=True,
        rank=2,
    ),
    Column("covered", _covered, right=True),
)
