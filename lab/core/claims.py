"""What a guest's own programs said of its clock, held against the truth."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval


@dataclass(frozen=True)
class Claim:
    """One statement, made somewhen in [from_raw_ns, to_raw_ns] of the guest's MONOTONIC_RAW.

    source: the program and what it was asked, such as "chronyc tracking", "adjtimex", "timedatectl", "ntpq".
    synced: whether it says that the clock is synchronised; None when it does not say.
    bound_ns: the largest error that the clock can have by what it says; None when it names none.
    text: what it said, in short.
    """

    source: str
    from_raw_ns: int
    to_raw_ns: int
    synced: bool | None
    bound_ns: int | None
    text: str = ""


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
