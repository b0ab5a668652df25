"""Recorded measurements in words, bars and sparklines; `core.quantities` documents the rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.quantities import DOWN, UP, format_bounded, format_number, format_rate, format_table_ms
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.record.model import Limits, Measure, PointRecord

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
    """A difference that should be zero, and its bounds: "-0.4 ms (-3.6 to +12.1 ms)"."""
    low = format_number(bounds.low_ns, NS_PER_MS, 1, DOWN, "+")
    high = format_number(bounds.high_ns, NS_PER_MS, 1, UP, "+")
    text = f"{format_number(value_ns, NS_PER_MS, 1, sign='+')} ms ({low} to {high} ms)"
    return text.replace("-0.0", "+0.0")


def limits(given: Limits) -> str:
    """ "1.9 … 2.4", in milliseconds unless another unit is shown; "–" without limits."""
    if given.low is None and given.high is None:
        return "–"
    low = "–" if given.low is None else format_table_ms(given.low, DOWN)
    high = "–" if given.high is None else format_table_ms(given.high, UP)
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
