"""Quantities as people write and read them. Inside, times are integer nanoseconds, sizes bytes."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000

_DURATION = {
    "ns": 1,
    "us": NS_PER_US,
    "µs": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "min": 60 * NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_SIZE = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_QUANTITY = re.compile(r"\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)\s*")

NBSP = "\N{NO-BREAK SPACE}"


def _parse(text: str, units: dict[str, int], kind: str, example: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(f"not a {kind}: {text!r}; write it like {example}")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{kind} without a unit: {text!r}; write it like {example}")
    if unit not in units:
        raise ValueError(f"unknown unit {unit!r} in {text!r}; known: {', '.join(units)}")
    value = Fraction(number) * units[unit]
    if value < 0:
        raise ValueError(f"{kind} is negative: {text!r}")
    if value >= 1 << 62:
        raise ValueError(f"{kind} is too large: {text!r}")
    return round(value)


def parse_duration(text: str) -> int:
    """Nanoseconds in `text` such as "5s", "250 ms", "1.5 min". ValueError says what is wrong."""
    return _parse(text, _DURATION, "duration", "5s, 250ms or 2min")


def parse_size(text: str) -> int:
    """Bytes in `text` such as "512 MiB". Binary units only. ValueError says what is wrong."""
    return _parse(text, _SIZE, "size", "512MiB or 2GiB")


def format_size(size: int) -> str:
    """Bytes in the largest binary unit that divides them: 536870912 -> "512 MiB"."""
    for unit, factor in reversed(_SIZE.items()):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def format_duration(ns: int) -> str:
    """A duration as people write it in a playbook: 5000000000 -> "5 s", 1500000000 -> "1.5 s"."""
    if ns == 0:
        return "0 s"
    for unit, factor in (("min", 60 * NS_PER_S), ("s", NS_PER_S), ("ms", NS_PER_MS), ("µs", NS_PER_US)):
        if abs(ns) >= factor:
            return f"{ns / factor:.10g} {unit}"
    return f"{ns} ns"


def _grouped(number: str) -> str:
    whole, dot, rest = number.partition(".")
    sign = whole[0] if whole[:1] in "+-" else ""
    digits = whole.removeprefix(sign)
    groups: list[str] = []
    while len(digits) > 3:
        groups.insert(0, digits[-3:])
        digits = digits[:-3]
    return sign + NBSP.join([digits, *groups]) + dot + rest


LONG_NS = 100 * NS_PER_S
"""From here on a measured time is shown in minutes and seconds, and from LONGER_NS on in hours."""
LONGER_NS = 2 * 3600 * NS_PER_S


def _long(size: int, digits: int) -> str:
    """A size of at least LONG_NS without its unit: "74 min 59.2969", "2 h 0 min 0.5". digits: of a second."""
    minutes, rest = divmod(size, 60 * NS_PER_S)
    hours, left = divmod(minutes, 60)
    lead = f"{hours} h {left} min" if size >= LONGER_NS else f"{minutes} min"
    return f"{lead} {Decimal(rest // 10 ** (9 - digits)).scaleb(-digits):f}"


def _sign(value_ns: int, signed: bool) -> str:
    return "-" if value_ns < 0 else "+" if signed else ""


def format_bounded(value_ns: int, low_ns: int, high_ns: int, *, signed: bool = False) -> str:
    """ "5 006.4 ± 0.6 ms", "74 min 59.2969 ± 0.0004 s": the bound is the larger side, rounded up so that it
    still contains the interval, and the value is shown to the bound's precision."""
    side = max(high_ns - value_ns, value_ns - low_ns)
    digits = 3 if side < 10_000 else 2 if side < 100_000 else 1 if side < 100 * NS_PER_MS else 0
    place = NS_PER_MS // 10**digits
    shown = (2 * value_ns + place) // (2 * place)
    bound = -(-(side + abs(shown * place - value_ns)) // place)
    if abs(shown * place) >= LONG_NS:
        value = _sign(shown, signed) + _long(abs(shown * place), digits + 3)
        return f"{value} ± {_grouped(f'{Decimal(bound).scaleb(-digits - 3):f}')} s"
    sign = "+" if signed else ""
    number, plus_minus = Decimal(shown).scaleb(-digits), Decimal(bound).scaleb(-digits)
    return f"{_grouped(f'{number:{sign}f}')} ± {_grouped(f'{plus_minus:f}')} ms"


def format_step(by_ns: int) -> str:
    """By how much a clock was moved: "+4 997.6 ms", "-75 min 2.452 s"."""
    if abs(by_ns) < LONG_NS:
        return _grouped(f"{by_ns / NS_PER_MS:+.{1 if abs(by_ns) >= NS_PER_MS else 3}f}") + " ms"
    return f"{_sign(by_ns, True)}{_long(abs(by_ns), 3)} s"


_ABOUT = (
    ("h", 3600 * NS_PER_S, LONGER_NS),
    ("min", 60 * NS_PER_S, 120 * NS_PER_S),
    ("s", NS_PER_S, NS_PER_S),
    ("ms", NS_PER_MS, 0),
)


def format_about(ns: float) -> str:
    """A length that nobody needs exactly, in three digits: "12.3 ms", "4.98 s", "75 min", "24 h", "0 s"."""
    if not ns:
        return "0 s"
    unit, factor = next((unit, factor) for unit, factor, least in _ABOUT if abs(ns) >= least)
    text = f"{ns / factor:.3g}"
    return f"{ns / factor:.0f} {unit}" if "e+" in text else f"{text} {unit}"
