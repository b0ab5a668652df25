"""Measured quantities in words. Inside, times are integer nanoseconds.

Bounds are rounded outwards, so that the text still contains the measured interval: a lower limit down, an
upper limit up, the bound after "±" up until it covers the rounding of its value. All other numbers are
rounded to the nearest. `Rounding` does this for every function here; each of them chooses its number of
digits.

`units` has exact quantities of playbooks (durations, sizes).
"""

from __future__ import annotations

import math
from decimal import Decimal
from enum import Enum

from lab.core.clock import Interval
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S, NS_PER_US, format_duration

NS_PER_MIN = 60 * NS_PER_S
LONG_NS = 100 * NS_PER_S
"""From this length on, a measured time is shown in minutes and seconds; from LONGER_NS on, in hours."""
LONGER_NS = 2 * 60 * NS_PER_MIN
_SLACK = 1e-3
"""The tolerated rounding error of a float in nanoseconds."""


class Rounding(Enum):
    """The direction in which a number is rounded."""

    NEAREST = 0
    DOWN = -1
    UP = 1

    def to(self, value: float, place: int) -> int:
        """`value` as a whole number of places."""
        if self is Rounding.DOWN:
            return math.floor(value + _SLACK) // place
        if self is Rounding.UP:
            return -(-math.ceil(value - _SLACK) // place)
        return round(value / place)


NEAREST, DOWN, UP = Rounding.NEAREST, Rounding.DOWN, Rounding.UP


def format_number(ns: float, unit_ns: int, digits: int, rounding: Rounding = NEAREST, sign: str = "") -> str:
    """A plain number of units, with so many digits after its point. sign: "+" shows it always."""
    if rounding is NEAREST:
        return f"{ns / unit_ns:{sign}.{digits}f}"
    return f"{Decimal(rounding.to(ns, unit_ns // 10**digits)).scaleb(-digits):{sign}.{digits}f}"


def _grouped(number: str) -> str:
    whole, dot, rest = number.partition(".")
    sign = whole[0] if whole[:1] in "+-" else ""
    return sign + f"{int(whole.removeprefix(sign)):,}".replace(",", NBSP) + dot + rest


def _sign(value_ns: int, signed: bool) -> str:
    return "-" if value_ns < 0 else "+" if signed else ""


def _long(size: int, digits: int) -> str:
    """A size of at least LONG_NS without its unit: "74 min 59.2969", "2 h 0 min 0.5". digits: of a second."""
    minutes, rest = divmod(size, NS_PER_MIN)
    hours, left = divmod(minutes, 60)
    lead = f"{hours} h {left} min" if size >= LONGER_NS else f"{minutes} min"
    return f"{lead} {Decimal(rest // 10 ** (9 - digits)).scaleb(-digits):f}"


def place_of(bound_ns: float) -> int:
    """The last place of a value that is known to ± bound_ns, in nanoseconds: at most two digits of the bound,
    and one below 0.1 ms."""
    place = 1_000 if bound_ns < 10_000 else 10_000 if bound_ns < 100_000 else 100_000
    while place < _COARSEST_NS and UP.to(bound_ns, place) >= 100:
        place *= 10
    return place


_COARSEST_NS = 10 * NS_PER_S
"""The coarsest place. Minutes consist of these."""


def format_bounded(value_ns: int, low_ns: int, high_ns: int, *, signed: bool = False) -> str:
    """ "5 006.4 ± 0.6 ms", "2 016 ± 44 ms", "74 min 59.2969 ± 0.0004 s": the bound is the larger side, in at
    most two digits, and the value is shown to the bound's precision."""
    side = max(high_ns - value_ns, value_ns - low_ns)
    place = place_of(side)
    while True:
        shown = (2 * value_ns + place) // (2 * place)
        bound = UP.to(side + abs(shown * place - value_ns), place)
        if bound < 100 or place >= _COARSEST_NS or place < 100_000:
            break
        place *= 10  # the rounding of the value has made a digit more
    digits = -round(math.log10(place / NS_PER_MS))
    if abs(shown * place) >= LONG_NS:
        value = _sign(shown, signed) + _long(abs(shown * place), digits + 3)
        return f"{value} ± {_grouped(f'{Decimal(bound).scaleb(-digits - 3):f}')} s"
    sign = "+" if signed else ""
    number, plus_minus = Decimal(shown).scaleb(-digits), Decimal(bound).scaleb(-digits)
    return f"{_grouped(f'{number:{sign}f}')} ± {_grouped(f'{plus_minus:f}')} ms"


def format_interval(known: Interval | None, *, signed: bool = False) -> str:
    """The same around the middle of an interval; "not measured" without one."""
    if known is None:
        return "not measured"
    return format_bounded(known.mid_ns, known.low_ns, known.high_ns, signed=signed)


def format_between(low_ns: int, high_ns: int) -> str:
    """ "4.3–4.6 s": a range."""
    unit_ns, unit, digits = (NS_PER_MS, "ms", 0) if high_ns < NS_PER_S else (NS_PER_S, "s", 1)
    down, up = format_number(low_ns, unit_ns, digits, DOWN), format_number(high_ns, unit_ns, digits, UP)
    return f"{up} {unit}" if down == up else f"{down}–{up} {unit}"


def format_at_latest(ns: int, *, coarse: bool = False) -> str:
    """An upper limit of a time: "21 ms", "0.15 s", "12.1 s", "3 min 10 s"; coarse: "21 ms", "0.2 s", "13 s",
    "4 min"."""
    if ns < NS_PER_S // 10:
        return f"{format_number(ns, NS_PER_MS, 0, UP)} ms"
    if coarse:
        return _coarse(ns, UP)
    if ns >= LONG_NS:
        place = NS_PER_S if ns < 99 * NS_PER_MIN else NS_PER_MIN  # what `format_length` shows
        return format_length(UP.to(ns, place) * place)
    return format_seconds(ns, 2 if ns < 10 * NS_PER_S else 1, UP)


def format_at_least(ns: int, *, coarse: bool = False) -> str:
    """A lower limit of a time: "9.96 s", "21.3 ms", "3 min 10 s"; coarse: "9.9 s", "0 s", "3 min"."""
    if coarse:
        return _coarse(ns, DOWN)
    return format_length(DOWN.to(ns, NS_PER_S) * NS_PER_S) if ns >= LONG_NS else format_short(ns, DOWN)


def _coarse(ns: int, rounding: Rounding) -> str:
    if ns < 10 * NS_PER_S:
        return f"{rounding.to(ns, NS_PER_S // 10) / 10:g} s"
    if ns <= 2 * NS_PER_MIN:
        return f"{format_number(ns, NS_PER_S, 0, rounding)} s"
    return format_length(rounding.to(ns, NS_PER_MIN) * NS_PER_MIN)


def format_seconds(ns: float, digits: int = 2, rounding: Rounding = NEAREST) -> str:
    """ "5.03 s"."""
    return f"{format_number(ns, NS_PER_S, digits, rounding)} s"


def format_short(ns: int, rounding: Rounding = NEAREST) -> str:
    """ "9.96 s", "21.3 ms"."""
    return (
        format_seconds(ns, 2, rounding)
        if abs(ns) >= NS_PER_S
        else f"{format_number(ns, NS_PER_MS, 1, rounding)} ms"
    )


def format_fine(ns: int, rounding: Rounding = NEAREST, sign: str = "") -> str:
    """ "730 µs", "12 ms"."""
    unit_ns, unit = (NS_PER_US, "µs") if abs(ns) < 10 * NS_PER_MS else (NS_PER_MS, "ms")
    return f"{format_number(ns, unit_ns, 0, rounding, sign)} {unit}"


def format_ms(ns: float, rounding: Rounding = NEAREST, sign: str = "", bound_ns: float = 0) -> str:
    """A plain number of milliseconds, for a head or a text that names the unit: "2 000.0", "1.9", "0.024";
    with fewer digits where the value is known to ± bound_ns."""
    digits = min(1 if abs(ns) >= NS_PER_MS else 2 if abs(ns) >= NS_PER_MS / 10 else 3, _digits(bound_ns))
    place = max(NS_PER_MS // 10**digits, place_of(bound_ns) if digits == 0 else 0)
    if digits == 0:
        return _grouped(f"{rounding.to(ns, place) * place // NS_PER_MS:{sign}d}")
    scaled = rounding.to(ns, place)
    return _grouped(f"{scaled / 10**digits:{sign}.{digits}f}")


def format_table_ms(ns: float, rounding: Rounding = NEAREST, bound_ns: float = 0) -> str:
    """The same; from 100 s on with a unit of its own."""
    if ns < LONG_NS:
        return format_ms(ns, rounding, bound_ns=bound_ns)
    if rounding is NEAREST:
        return format_about(ns)
    return format_at_least(int(ns)) if rounding is DOWN else format_at_latest(math.ceil(ns))


def format_instant(ns: int) -> str:
    """ "5 014.8": an instant, in milliseconds."""
    return _grouped(format_number(ns, NS_PER_MS, 1))


def format_step(by_ns: int, bound_ns: int = 0) -> str:
    """The size of a step: "+4 997.6 ms", "-75 min 2.452 s"; as many digits as ± bound_ns warrants."""
    if abs(by_ns) < LONG_NS:
        digits = min(1 if abs(by_ns) >= NS_PER_MS else 3, _digits(bound_ns))
        return f"{_grouped(format_number(_rounded(by_ns, bound_ns), NS_PER_MS, digits, sign='+'))} ms"
    return f"{_sign(by_ns, True)}{_long(abs(by_ns), 3)} s"


_ABOUT = (
    ("h", 60 * NS_PER_MIN, LONGER_NS),
    ("min", NS_PER_MIN, 2 * NS_PER_MIN),
    ("s", NS_PER_S, NS_PER_S),
    ("ms", NS_PER_MS, 0),
)


def format_about(ns: float) -> str:
    """An approximate length in three digits: "12.3 ms", "4.98 s", "75 min", "24 h", "0 s"."""
    if not ns:
        return "0 s"
    unit, factor = next((unit, factor) for unit, factor, least in _ABOUT if abs(ns) >= least)
    text = f"{ns / factor:.3g}"
    return f"{ns / factor:.0f} {unit}" if "e+" in text else f"{text} {unit}"


def format_rough(ns: float) -> str:
    """A prediction, not a measurement, in two digits: "3 s", "0.5 s", "20 ms"."""
    size = abs(ns)
    if size >= LONG_NS:
        return format_about(size)
    return f"{size / NS_PER_S:.2g} s" if size >= NS_PER_S // 10 else f"{size / NS_PER_MS:.2g} ms"


def format_magnitude(ns: float, bound_ns: float = 0) -> str:
    """A magnitude without its sign: "5.0 s", "9.4 ms", "0.09 ms", "75 min", "24 h"; known to ± bound_ns with
    fewer digits: "5 s", "9 ms", "0.1 ms"."""
    ns = _rounded(abs(ns), bound_ns)
    if ns >= 2 * NS_PER_MIN:
        return format_about(ns)
    if ns >= NS_PER_S:
        return format_seconds(ns, min(1, _digits(bound_ns) + 3))
    return f"{format_number(ns, NS_PER_MS, min(1 if ns >= NS_PER_MS else 2, _digits(bound_ns)))} ms"


def _digits(bound_ns: float) -> int:
    """The digits after the point of milliseconds that a bound warrants, at least 0; 3 without a bound."""
    return max(0, -round(math.log10(place_of(bound_ns) / NS_PER_MS)))


def _rounded(ns: float, bound_ns: float) -> float:
    """A value to the place that its bound warrants, where that is coarser than a millisecond."""
    place = place_of(bound_ns)
    return round(ns / place) * place if place > NS_PER_MS else ns


def format_length(ns: float) -> str:
    """A length in clock units, to a second or a minute: "4.0 s", "2 min 5 s", "3 h 10 min"."""
    whole = round(ns / NS_PER_S)
    if whole < 10:
        return format_seconds(ns, 1)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_edge(ns: int) -> str:
    """A round number, unchanged: "0.1 ms", "100 ms", "10 s"."""
    return f"{ns / NS_PER_S:g} s" if ns >= NS_PER_S else f"{ns / NS_PER_MS:g} ms"


def format_as_written(ns: int) -> str:
    """As in a playbook, but in three digits: "15 s", "2.5 min"; from 10 min on in clock units."""
    return format_length(ns) if ns >= 10 * NS_PER_MIN else format_duration(int(float(f"{ns:.3g}")))


def format_rate(ppm: float, low: float, high: float) -> str:
    """ "+9 ± 354 ppm"."""
    bound = max(high - ppm, ppm - low)
    digits = 2 if bound < 1 else 1 if bound < 10 else 0
    while True:
        shown = round(ppm, digits)
        up = UP.to(max(high - shown, shown - low) * 10**6, 10 ** (6 - digits))
        if up < 100 or digits == 2:
            break
        digits -= 1
    bound_text = f"{Decimal(up).scaleb(-digits):f}"
    return f"{shown:+.{max(0, digits)}f} ± {bound_text} ppm".replace("-0 ", "+0 ")


def format_pages(pages: int, held: int, differ: int, rewritten: int | None) -> str:
    """What a memory proof has compared: "65536 pages, 34555 with data, 0 differ". rewritten: a page that KVM
    writes its wall clock into, and that is not counted."""
    text = f"{pages} pages, {held} with data, {differ} differ"
    return text if rewritten is None else f"{text} but for KVM's wall clock in page {rewritten}"
