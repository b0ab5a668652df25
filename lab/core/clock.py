"""Stamps, intervals and the interval arithmetic that all measurements use.

All times are integer nanoseconds. *raw* is CLOCK_MONOTONIC_RAW (durations; no NTP in it), *real*
is CLOCK_REALTIME (offsets). An offset is guest minus host: positive means the guest is ahead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

PHI_PPM = 15.0
"""Frequency tolerance of an undisciplined clock: RFC 5905, section 7.1, PHI = 15e-6."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One reading of the host's clocks, both in immediate succession."""

    raw_ns: int
    real_ns: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval [low_ns, high_ns] that contains the true value."""

    low_ns: int
    high_ns: int

    def __post_init__(self) -> None:
        if self.low_ns > self.high_ns:
            raise ValueError(f"interval ends before it starts: [{self.low_ns}, {self.high_ns}]")

    @property
    def mid_ns(self) -> int:
        return (self.low_ns + self.high_ns) // 2

    @property
    def half_width_ns(self) -> int:
        """Half the width, rounded up, so that mid ± half_width contains the interval."""
        return max(self.high_ns - self.mid_ns, self.mid_ns - self.low_ns)

    def __contains__(self, value_ns: int) -> bool:
        return self.low_ns <= value_ns <= self.high_ns

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low_ns + other.low_ns, self.high_ns + other.high_ns)

    def __neg__(self) -> Interval:
        return Interval(-self.high_ns, -self.low_ns)

    def __sub__(self, other: Interval) -> Interval:
        return self + -other

    def widened(self, by_ns: int) -> Interval:
        return Interval(self.low_ns - by_ns, self.high_ns + by_ns)

    def shifted(self, by_ns: int) -> Interval:
        return Interval(self.low_ns + by_ns, self.high_ns + by_ns)

    def meets(self, other: Interval) -> bool:
        return self.low_ns <= other.high_ns and other.low_ns <= self.high_ns

    @property
    def largest_ns(self) -> int:
        """The largest magnitude in the interval."""
        return max(abs(self.low_ns), abs(self.high_ns))

    @property
    def smallest_ns(self) -> int:
        """The smallest magnitude in the interval."""
        return 0 if 0 in self else min(abs(self.low_ns), abs(self.high_ns))


def intersect(intervals: Iterable[Interval]) -> Interval | None:
    """The intersection of all intervals; None when they contradict each other. ValueError for no interval."""
    given = list(intervals)
    low, high = max(i.low_ns for i in given), min(i.high_ns for i in given)
    return Interval(low, high) if low <= high else None


class GuestClock(StrEnum):
    """The clocks that a guest's probe reads at one instant."""

    REAL = "real"
    MONO = "mono"
    BOOT = "boot"
    RAW = "raw"
