"""Options of a workload, as values. What is no such value is a ValueError that says what is."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.units import parse_duration
from lab.core.workload.shipped.base import Options


def one_of(options: Options, name: str, known: Sequence[str]) -> str:
    """The option's value, one of those known."""
    value = options[name]
    if value not in known:
        raise ValueError(f"{name}: {value} is unknown; known: {', '.join(known)}")
    return value


def duration_ns(options: Options, name: str) -> int:
    """The option's value, in nanoseconds."""
    try:
        return parse_duration(options[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
