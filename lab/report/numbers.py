"""Recorded measurements in words, bars and sparklines; `core.quantities` documents the rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.quantities import (
    DOWN,
    UP,
    Rounding,
    format_bounded,
    format_magnitude,
    format_rate,
    format_table_ms,
    place_of,
)
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.record.model_clock import Measure, PointRecord

if TYPE_CHECKING:
    from lab.record.model import Limits

NOT_MEASURED = "not measured"
FINE_PPM = 1.0
"""The resolution for which a report gives the necessary window, when its own was too short."""

_BARS = "▁▂▃▄▅▆▇█"
_LEAST_NS, _MOST_NS = NS_PER_MS, 10 * NS_PER_S


def interval(measure: Measure | None, *, signed: bool = False, unit: bool = True) -> str:
    """ "5 006.4 ± 0.6 ms". unit: print it for milliseconds as well."""
    if measure is None:
        return NOT_MEASURED
    text = format_bounded(measure.value_ns, measure.low_ns, measure.high_ns, signed=signed)
    return text if unit else text.removesuffix(" ms")


def behind(measure: Measure | None, *, unit: bool = True) -> str:
    """An offset (guest minus host) as a time behind: "5 006.1 ± 0.7 ms", or "ahead 3.2 ± 0.4 ms" when the
    clock is certainly ahead."""
    if measure is None:
        return NOT_MEASURED
    if measure.low_ns > 0:
        return f"ahead {interval(measure, unit=unit)}"
    return interval(Measure(-measure.value_ns, -measure.high_ns, -measure.low_ns), unit=unit)


def drift(bounds: Drift | None) -> str:
    """ "+9 ± 354 ppm"."""
    return NOT_MEASURED if bounds is None else format_rate(bounds.ppm, bounds.low, bounds.high)


def wanted_window(bounds: Drift) -> int | None:
    """The window that would bound the drift to FINE_PPM; None when the measured one does."""
    known = Drift(bounds.ppm, bounds.low, bounds.high, bounds.window_ns)
    return known.window_for_ns(FINE_PPM) if known.bound_ppm > FINE_PPM else None


def leftover(value_ns: int, bounds: Interval) -> str:
    """A difference that should be zero, and its bounds: "-0.4 ms (-3.6 to +12.1 ms)". Each limit has the
    digits that its own distance from the value warrants."""

    def to(edge: int, rounding: Rounding) -> str:
        place = max(place_of(abs(edge - value_ns)), NS_PER_MS // 10)
        return _signed(rounding.to(edge, place) * place, place)

    near = max(place_of(min(value_ns - bounds.low_ns, bounds.high_ns - value_ns)), NS_PER_MS // 10)
    value = _signed(round(value_ns / near) * near, near)
    return f"{value} ms ({to(bounds.low_ns, DOWN)} to {to(bounds.high_ns, UP)} ms)"


def _signed(ns: int, place: int) -> str:
    """ "+0.4", "-3 600": milliseconds to that place."""
    text = f"{ns / NS_PER_MS:+,.{1 if place < NS_PER_MS else 0}f}".replace(",", NBSP)
    return "+" + text[1:] if not ns else text


def known_to(measure: Measure | None) -> int:
    """How well it is known: the larger side, in nanoseconds; 0 for None."""
    return (
        0 if measure is None else max(measure.high_ns - measure.value_ns, measure.value_ns - measure.low_ns)
    )


def size(measure: Measure | None) -> str:
    """A magnitude alone, without more digits than its bound warrants: "5.0 s", "20.6 ms", "0.1 ms"."""
    return NOT_MEASURED if measure is None else format_magnitude(measure.value_ns, known_to(measure))


def limits(given: Limits, bound_ns: int = 0) -> str:
    """ "1.9 … 2.4", in milliseconds unless another unit is shown; "–" without limits. bound_ns: how well the
    values are known."""
    if given.low is None and given.high is None:
        return "–"
    low = "–" if given.low is None else format_table_ms(given.low, DOWN, bound_ns)
    high = "–" if given.high is None else format_table_ms(given.high, UP, bound_ns)
    return f"{low} … {high}"


def sparkline(curve: Sequence[PointRecord], until_ns: int, width: int) -> str:
    """|offset| over the time since the resume, one character for each stretch; "·" without a reading. The
    scale is always logarithmic from 1 ms to 10 s, so curves can be compared."""
    worst: list[int | None] = [None] * width
    for point in curve:
        if point.at_ns <= until_ns:
            at = min(width - 1, point.at_ns * width // max(1, until_ns))
            size = abs(point.low_ns + point.high_ns) // 2
            worst[at] = max(size, worst[at] or 0)
    return "".join("·" if size is None else _BARS[_level(size)] for size in worst)


def _level(size_ns: int) -> int:
    if size_ns <= _LEAST_NS:
        return 0
    share = math.log(size_ns / _LEAST_NS) / math.log(_MOST_NS / _LEAST_NS)
    return min(len(_BARS) - 1, int(share * len(_BARS)))


def bar(share: float, width: int) -> tuple[str, str]:
    """The used and the free part of a bar; a used share above zero is always visible."""
    full = min(width, max(round(share * width), 1 if share > 0 else 0))
    return "█" * full, "░" * (width - full)
