"""A guest's own statements about its clock, and the result of comparing them with the truth."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.units import NS_PER_MS

UNNAMED_NS = 125 * NS_PER_MS
"""The bound of a claim "synchronised" that names none: the step threshold of RFC 5905 (appendix A.1.1, STEPT
0.125 s), beyond which an NTP client no longer regards its clock as adjustable."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement, made at some time in [from_raw_ns, to_raw_ns] of the guest's MONOTONIC_RAW.

    source: the program and its query, such as "chronyc tracking", "adjtimex", "timedatectl", "ntpq". synced:
    the clock is synchronised, by this statement; None when it does not say. bound_ns: the largest error of
    the clock, by this statement; None when it names none. text: the statement in short. apart_ns: REALTIME
    minus MONOTONIC_RAW in the guest, lower and upper bound from readings before and after; None without them.
    """

    source: str
    from_raw_ns: int
    to_raw_ns: int
    synced: bool | None
    bound_ns: int | None
    text: str = ""
    apart_ns: tuple[int, int] | None = None

    @property
    def stands(self) -> bool:
        """True when the statement claims that the clock is right. A program that has ended claims nothing
        (neither synced nor a bound), and neither does one that reports that it is not synchronised."""
        return self.synced is True or (self.synced is None and self.bound_ns is not None)

    @property
    def claimed_ns(self) -> int:
        """The error bound that it claims, at least."""
        return UNNAMED_NS if self.bound_ns is None else self.bound_ns


@dataclass(frozen=True)
class Audit:
    """One source's claims through a cycle, compared with the measured offset.

    claims: their number; judged: those for which the truth is known well enough; wrong: those whose bound was
    certainly exceeded. wrong_ns: for how long wrong claims were in force, as bounds (host time). worst_ns:
    the largest certain excess (|offset| minus the claimed bound). unsynced_ns: for how long it reported that
    it was not synchronised, as bounds. example: the worst claim beside the truth, one line for people; ""
    when none was wrong.
    """

    source: str
    claims: int
    judged: int
    wrong: int
    wrong_ns: Interval
    worst_ns: int
    unsynced_ns: Interval
    example: str = ""
