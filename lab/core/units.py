"""Durations and sizes of playbooks, parsed and formatted exactly. Times are integer nanoseconds, sizes are
bytes. Measured quantities are in `quantities`."""

from __future__ import annotations

import re
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
_RATE = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
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
    """The nanoseconds of a text such as "5s", "250 ms", "1.5 min". ValueError with the reason."""
    return _parse(text, _DURATION, "duration", "5s, 250ms or 2min")


def parse_size(text: str) -> int:
    """The bytes of a text such as "512 MiB". Binary units only. ValueError with the reason."""
    return _parse(text, _SIZE, "size", "512MiB or 2GiB")


def parse_bandwidth(text: str) -> int:
    """The bits per second of a text such as "8Mbit" or "500 kbit/s", in decimal units as tc(8) has them.
    ValueError with the reason."""
    return _parse(text.strip().removesuffix("/s"), _RATE, "bandwidth", "100Mbit or 500kbit")


def parse_byte_rate(text: str) -> int:
    """The bytes per second of a text such as "32 MiB/s". Binary units only. ValueError with the reason."""
    number, slash, second = text.strip().partition("/")
    if (slash, second.strip()) != ("/", "s"):
        raise ValueError(f"not a rate: {text!r}; write it like 32 MiB/s")
    return _parse(number, _SIZE, "rate", "32 MiB/s")


def format_size(size: int) -> str:
    """Bytes in the largest binary unit that divides them: 536870912 -> "512 MiB"."""
    for unit, factor in reversed(_SIZE.items()):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def format_duration(ns: int) -> str:
    """A duration in the form of playbooks: 5000000000 -> "5 s", 1500000000 -> "1.5 s". Minutes have at most
    two decimals: 86000000000 -> "86 s"."""
    if ns == 0:
        return "0 s"
    for unit, factor in (("min", 60 * NS_PER_S), ("s", NS_PER_S), ("ms", NS_PER_MS), ("µs", NS_PER_US)):
        if abs(ns) >= factor and (unit != "min" or ns * 100 % factor == 0):
            return f"{ns / factor:.10g} {unit}"
    return f"{ns} ns"
