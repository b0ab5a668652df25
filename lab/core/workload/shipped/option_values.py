"""Options of a workload, as values. What is no such value is a ValueError that says what is."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.units import format_duration, parse_bandwidth, parse_duration
from lab.core.workload.shipped.base import Options

_LONGEST = 1 << 62


def one_of(options: Options, name: str, known: Sequence[str]) -> str:
    """The option's value, one of those known."""
    value = options[name]
    if value not in known:
        raise ValueError(f"{name}: {value} is unknown; known: {', '.join(known)}")
    return value


def duration_ns(options: Options, name: str, least_ns: int = 0, most_ns: int = _LONGEST) -> int:
    """The option's value, in nanoseconds, from least_ns to most_ns."""
    try:
        value = parse_duration(options[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not least_ns <= value <= most_ns:
        between = f"{format_duration(least_ns)} to {format_duration(most_ns)}"
        raise ValueError(f"{name}: {options[name]} is not from {between}")
    return value


def whole_number(options: Options, name: str, least: int, most: int) -> int:
    """The option's value, a whole number."""
    text = options[name]
    if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
        raise ValueError(f"{name}: {text} is no whole number from {least} to {most}")
    return int(text)


def bit_rate(options: Options, name: str, least: int, most: int) -> int:
    """The option's value in bits per second, written with decimal units: "8Mbit"."""
    text = options[name]
    try:
        value = parse_bandwidth(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not least <= value <= most:
        raise ValueError(f"{name}: {text} is not from {least // 1000}kbit to {most // 10**6}Mbit")
    return value
