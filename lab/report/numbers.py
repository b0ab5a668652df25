"""Measured quantities in words. What is shown still contains what was measured: bounds are rounded
outwards, and an upper limit upwards."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lab.core.drift import Drift
from lab.core.units import LONG_NS, NBSP, NS_PER_MS, NS_PER_S, format_about, format_bounded
from lab.record.run import Bounds, DriftBounds, Limits, Measure, Point

NOT_MEASURED = "not measured"
FINE_PPM = 1.0
"""A report says which window would resolve this, where its own did not."""

_BARS = "▁▂▃▄▅▆▇█"
_LEAST_NS, _MOST_NS = NS_PER_MS, 10 * NS_PER_S


def interval(measure: Measure | None, *, signed: bool = False, unit: bool = True) -> str:
    """ "5 006.4 ± 0.6 ms". unit: with it also where it is milliseconds."""
    if measure is None:
        return NOT_MEASURED
    text = format_bounded(measure.value_ns, measure.low_ns, measure.high_ns, signed=signed)
    return text if unit else text.removesuffix(" ms")


def behind(measure: Measure | None, *, unit: bool = True) -> str:
    """An offset (guest minus host) as being behind: "5 006.1 ± 0.7 ms", or "ahead 3.2 ± 0.4 ms" when
    it certainly is."""
    if measure is None:
        return NOT_MEASURED
    if measure.low_ns > 0:
        return f"ahead {interval(measure, unit=unit)}"
    return interval(Measure(-measure.value_ns, -measure.high_ns, -measure.low_ns), unit=unit)


def magnitude(ns: float) -> str:
    """About how much: "5.0 s", "9.4 ms", "0.09 ms", "75 min", "24 h"."""
    ns = abs(ns)
    if ns >= 120 * NS_PER_S:
        return format_about(ns)
    if ns >= NS_PER_S:
        return f"{ns / NS_PER_S:.1f} s"
    digits = 1 if ns >= NS_PER_MS else 2
    return f"{ns / NS_PER_MS:.{digits}f} ms"


def at_latest(ns: int) -> str:
    """An upper limit of a time: "21 ms", "0.15 s", "12.1 s", "3 min 10 s"."""
    if ns >= LONG_NS:
        place = NS_PER_S if ns < 99 * 60 * NS_PER_S else 60 * NS_PER_S  # what `about` shows
        return about(-(-ns // place) * place)
    if ns < NS_PER_S // 10:
        return f"{math.ceil(ns / NS_PER_MS)} ms"
    scale = 100 if ns < 10 * NS_PER_S else 10
    return f"{math.ceil(ns / NS_PER_S * scale - 1e-9) / scale:.{2 if scale == 100 else 1}f} s"


def at_least(ns: int) -> str:
    """A lower limit of a time: "9.96 s", "21.3 ms", "3 min 10 s"."""
    if ns >= LONG_NS:
        return about(ns // NS_PER_S * NS_PER_S)
    if ns >= NS_PER_S:
        return f"{math.floor(ns / NS_PER_S * 100 + 1e-9) / 100:.2f} s"
    return f"{math.floor(ns / NS_PER_MS * 10 + 1e-9) / 10:.1f} ms"


def about(ns: int) -> str:
    """A length to a second, or a minute: "4.0 s", "2 min 5 s", "3 h 10 min"."""
    seconds = round(ns / NS_PER_S)
    if seconds < 10:
        return f"{ns / NS_PER_S:.1f} s"
    if seconds < 100:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 100:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def edge(ns: int) -> str:
    """A round number as it is: "0.1 ms", "100 ms", "10 s"."""
    return f"{ns / NS_PER_S:g} s" if ns >= NS_PER_S else f"{ns / NS_PER_MS:g} ms"


def used_of(used_ns: int) -> str:
    """Of a budget, rounded up: "5.03 s"."""
    return f"{math.ceil(used_ns / NS_PER_S * 100 - 1e-9) / 100:.2f} s"


def drift(seen: DriftBounds | None) -> str:
    """ "+9 ± 354 ppm"."""
    if seen is None:
        return NOT_MEASURED
    bound = max(seen.high - seen.ppm, seen.ppm - seen.low)
    digits = 2 if bound < 1 else 1 if bound < 10 else 0
    shown, scale = round(seen.ppm, digits), 10**digits
    up = math.ceil(max(seen.high - shown, shown - seen.low) * scale - 1e-6) / scale
    return f"{shown:+.{digits}f} ± {up:.{digits}f} ppm".replace("-0 ", "+0 ")


def wanted_window(seen: DriftBounds) -> int | None:
    """The window that would bound the drift to FINE_PPM; None when this one does."""
    known = Drift(seen.ppm, seen.low, seen.high, seen.window_ns)
    return known.window_for_ns(FINE_PPM) if known.bound_ppm > FINE_PPM else None


def leftover(value_ns: int, bounds: Bounds) -> str:
    """A difference that should be nothing, and where it lies: "-0.4 ms (-3.6 to +12.1 ms)"."""
    low = math.floor(bounds.low_ns / NS_PER_MS * 10 + 1e-6) / 10
    high = math.ceil(bounds.high_ns / NS_PER_MS * 10 - 1e-6) / 10
    return f"{value_ns / NS_PER_MS:+.1f} ms ({low:+.1f} to {high:+.1f} ms)".replace("-0.0", "+0.0")


def milliseconds(ns: float, *, down: bool = False, up: bool = False, sign: str = "") -> str:
    """A plain number of milliseconds for a table whose head names the unit."""
    ms = ns / NS_PER_MS
    digits = 1 if abs(ms) >= 1 else 2 if abs(ms) >= 0.1 else 3
    scaled = ms * 10**digits
    scaled = math.floor(scaled + 1e-6) if down else math.ceil(scaled - 1e-6) if up else round(scaled)
    return f"{scaled / 10**digits:{sign},.{digits}f}".replace(",", NBSP)


def grouped_ms(ns: int) -> str:
    """ "5 014.8": an instant, in milliseconds."""
    return f"{ns / NS_PER_MS:,.1f}".replace(",", NBSP)


def limits(given: Limits) -> str:
    """ "1.9 … 2.4", in milliseconds unless they say otherwise; "–" where there is none."""
    if given.low is None and given.high is None:
        return "–"
    low = "–" if given.low is None else table_ms(given.low, down=True)
    high = "–" if given.high is None else table_ms(given.high, up=True)
    return f"{low} … {high}"


def table_ms(ns: float, *, down: bool = False, up: bool = False) -> str:
    """A number of milliseconds for a table whose head names the unit; from 100 s on with its own unit."""
    if ns < LONG_NS:
        return milliseconds(ns, down=down, up=up)
    return at_least(int(ns)) if down else at_latest(math.ceil(ns)) if up else format_about(ns)


def sparkline(curve: Sequence[Point], until_ns: int, width: int) -> str:
    """|offset| over the time since the resume, one character for each stretch; "·" where nothing was
    read. The scale is logarithmic and always the same, 1 ms to 10 s, so curves can be compared."""
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
    """The used and the free part of a bar; something used is never shown as nothing."""
    full = min(width, max(round(share * width), 1 if share > 0 else 0))
    return "█" * full, "░" * (width - full)
