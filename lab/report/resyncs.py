"""Short texts of a resync: forecast, measurement and verdict."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.clock import Interval
from lab.core.mechanism import ResyncMechanism
from lab.core.quantities import (
    UP,
    format_at_latest,
    format_at_least,
    format_length,
    format_magnitude,
    format_ms,
    format_rough,
)
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.record.model import CycleRecord, ForecastRecord, ResyncRecord
from lab.report.numbers import interval
from lab.report.table import Piece

TOLERANCE_NS = 100 * NS_PER_MS
"""The tolerance of "in time" where the record has none (core.plan.Expectations)."""

NONE = "–"
_WORDS = {"step": "step", "slew": "slew", "step and slew": "step + slew"}

AS_PREDICTED: Piece = ("as predicted", "green")
NOT_YET = "not yet"
"""The beginning of the verdict when the watch was too short; it is never green."""


def in_a_word(verdict: str) -> str:
    """ "not yet, as predicted" to "not yet", "surprise: slewed" to "surprise"."""
    return verdict.replace(",", ":").split(":")[0]


def verdict(forecast: ForecastRecord | None) -> Piece:
    """The verdict of the comparison. It is green only when everything certainly happened as predicted."""
    if forecast is None:
        return "not predicted", "dim"
    if forecast.agrees is True:
        return forecast.verdict or AS_PREDICTED[0], AS_PREDICTED[1]
    if forecast.agrees is False:
        return forecast.verdict or "surprise", "bold magenta"
    if forecast.verdict.startswith(NOT_YET):
        return forecast.verdict, "cyan"
    return forecast.verdict or "undecided", "yellow"


def rank(forecast: ForecastRecord | None) -> int:
    """The rank of a verdict, most important first: a surprise, undecided, not yet, agreement."""
    if forecast is None:
        return 1
    if forecast.agrees is not None:
        return 3 if forecast.agrees else 0
    return 2 if forecast.verdict.startswith(NOT_YET) else 1


def side(value_ns: int) -> str:
    """ "3.0 s behind", "303 ms ahead"."""
    size = abs(value_ns)
    text = f"{round(size / NS_PER_MS)} ms" if 100 * NS_PER_MS <= size < NS_PER_S else format_magnitude(size)
    return f"{text} {'behind' if value_ns < 0 else 'ahead'}"


def place(where: Interval) -> str:
    """A predicted offset: "3 s behind", "0–1 s behind", "± 20 ms"."""
    low, high = where.low_ns, where.high_ns
    if low != -high and abs(low + high) >= 20 * (high - low):
        return f"{format_rough((low + high) // 2)} {'behind' if low < 0 else 'ahead'}"
    size = max(-low, high)
    if low <= 0 <= high and min(-low, high) * 4 >= size:
        return f"± {format_rough(size)}"
    near, far, word = (high, low, "behind") if -low >= high else (low, high, "ahead")
    if near * far < 0 and abs(near) * 20 >= abs(far):
        return (
            f"{format_rough(near)} {'ahead' if word == 'behind' else 'behind'} to {format_rough(far)} {word}"
        )
    return f"{_span('0 s' if abs(near) * 20 < abs(far) else format_rough(near), format_rough(far))} {word}"


def _span(low: str, high: str) -> str:
    """ "0–1 s", "0.4 s–2 min"; a zero has the unit of the other bound."""
    (number, unit), (_, other) = low.split(" ", 1), high.rsplit(" ", 1)
    return f"{number if unit == other or number == '0' else low}–{high}"


def predicted(resync: ResyncRecord) -> str:
    """ "step ≤ 2 s", "slew 30–36 s", "stays 3 s behind", "step not before 32 s"."""
    forecast = resync.forecast
    if forecast is None:
        return resync.predicted or NONE
    tolerance = resync.tolerance_ns or TOLERANCE_NS
    off = (
        forecast.residual is not None
        and max(-forecast.residual.low_ns, forecast.residual.high_ns) > tolerance
    )
    residual = place(forecast.residual) if forecast.residual is not None and off else ""
    if forecast.correction == "none":
        if forecast.repaired is False:
            return f"stays {residual}" if residual else "stays as it is"
        return "nothing to repair"
    if forecast.correction is None and forecast.repaired is False:
        return f"stays {residual}" if residual else "not repaired"
    word = _WORDS.get(forecast.correction or "", _either(resync.mechanism) if forecast.repaired else "open")
    text = f"{word}{_when(forecast.within, resync)}"
    return f"{text} → {residual}" if residual else text


def _either(mechanism: str) -> str:
    """The text for a mechanism that corrects in one of several ways."""
    daemon = mechanism in list(ResyncMechanism) and ResyncMechanism(mechanism).is_daemon
    return "step or slew" if daemon else "repaired"


def _when(within: Interval | None, resync: ResyncRecord) -> str:
    if within is None:
        return ""
    most = format_at_latest(within.high_ns, coarse=True)
    if within.low_ns > watched_ns(resync):
        return f" not before {format_at_least(within.low_ns, coarse=True)}"
    if within.low_ns > NS_PER_S and 2 * within.low_ns > within.high_ns:
        return f" {_span(format_at_least(within.low_ns, coarse=True), most)}"
    return f" ≤ {most}"


def watched_ns(resync: ResyncRecord) -> int:
    """The time from the resume to the last reading."""
    return resync.curve[-1].at_ns if resync.curve else 0


def out_again_ns(resync: ResyncRecord) -> int | None:
    """The last time at which the clock was certainly out of tolerance after it had been in time for the
    required time; None when it stayed in time."""
    tolerance, since = resync.tolerance_ns or TOLERANCE_NS, resync.time_ns
    if since is None:
        return None
    later = [p for p in resync.curve if p.at_ns > since]
    out = [p.at_ns for p in later if p.low_ns > tolerance or p.high_ns < -tolerance]
    return max(out, default=None)


def measured(cycle: CycleRecord, after: bool = True) -> Piece:
    """ "step 21 ms → -0.1 ± 0.3 ms", "3.0 s behind after 20 s". after: print the length of the watch."""
    resync, final = cycle.resync, cycle.offset.final
    if resync is None or final is None:
        return "not measured", "yellow"
    word = _WORDS.get(resync.correction or "", "")
    moved = f"{word} → " if word else ""
    if resync.time_ns is not None:
        if resync.correction == "none":
            return f"right, {interval(final, signed=True)}", ""
        text = f"{word or 'in time'} {_after(resync.time_ns)} → {interval(final, signed=True)}"
        return (f"{text}, out again", "yellow") if out_again_ns(resync) is not None else (text, "")
    length = f" after {format_length(watched_ns(resync))}" if after else ""
    if resync.outcome == "not synced":
        return f"{moved}{side(final.value_ns)}{length}", ""
    return f"{moved}{interval(final, signed=True)}{length}", ""


def _after(ns: int) -> str:
    """The first instant in time, rounded up."""
    return format_at_latest(ns, coarse=True) if ns > NS_PER_S else format_at_latest(ns)


def right_within(cycles: Sequence[CycleRecord]) -> str:
    """The text for clocks that were right throughout: "right, within 0.9 ms"."""
    ends = [max(-c.offset.final.low_ns, c.offset.final.high_ns) for c in cycles if c.offset.final is not None]
    return f"right, within {format_ms(max(ends), UP)} ms"
