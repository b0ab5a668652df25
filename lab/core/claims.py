"""What a guest's own programs said of its clock, held against the truth."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.units import NS_PER_MS

UNNAMED_NS = 125 * NS_PER_MS
"""What "synchronised" without a bound is held against: the step threshold of RFC 5905 (appendix A.1.1, STEPT
0.125 s), beyond which a client of NTP itself no longer takes its clock for one to be adjusted."""


@dataclass(frozen=True)
class Claim:
    """One statement, made somewhen in [from_raw_ns, to_raw_ns] of the guest's MONOTONIC_RAW.

    source: the program and what it was asked, such as "chronyc tracking", "adjtimex", "timedatectl", "ntpq".
    synced: whether it says that the clock is synchronised; None when it does not say.
    bound_ns: the largest error that the clock can have by what it says; None when it names none.
    text: what it said, in short.
    apart_ns: REALTIME minus MONOTONIC_RAW in the guest as it was looked at before and after, at least and at
    most; None when it was not.
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
        """Whether it says that the clock is right. A program that ended says nothing (neither synced nor a
        bound), and one that says it is not synchronised claims nothing."""
        return self.synced is True or (self.synced is None and self.bound_ns is not None)

    @property
    def claimed_ns(self) -> int:
        """The error that it certainly does not claim to be below."""
        return UNNAMED_NS if self.bound_ns is None else self.bound_ns


@dataclass(frozen=True)
class Audit:
    """One source's claims through a cycle, against the offset that was measured.

    claims: how many; judged: of how many the truth is known well enough; wrong: how many claimed to be better
    than the clock certainly was. wrong_ns: how long, as bounds, the source claimed so (host time).
    worst_ns: by how much at least, at worst (|offset| less the bound that was claimed).
    unsynced_ns: how long, as bounds, it said itself that it was not synchronised.
    example: the worst claim and the truth beside it, one line for people; "" when none was wrong.
    """

    source: str
    claims: int
    judged: int
    wrong: int
    wrong_ns: Interval
    worst_ns: int
    unsynced_ns: Interval
    example: str = ""
