"""What guests have dated: answers, log lines, tokens, files; how wrong, and for how long after the resume.

A stamp was made at some time between `sent` and `done`, so its bounds are as wide as that. A guest that was
frozen has made none while it stood: what was asked for meanwhile was dated after the resume.

A stamp is wrong when a right clock would have written another one, whenever it was made: stamps that are cut
off, such as a token's whole seconds, are compared with a right time that is cut off likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.workload.sample import WorkloadRequest, WorkloadStamp

ANSWER = "answer"


@dataclass(frozen=True)
class StaleStamps:
    """What was dated after the resume, of one kind. wrong: those off by more than the tolerance, certainly.
    undecided: those that may be off by more: what took longer than the tolerance has no narrower bounds.
    worst_ns: the largest error that is certain, of a wrong one, with its sign: negative: behind.
    last_ns: from the resume to the last wrong one; None: there was none.

    what: the kind. in_window: those that were there before the guests' clocks were in time again; None: it is
    not known when that was. disordered: those with an earlier stamp than another one that was there before
    they were asked for. not_yet_valid, expired: those that somebody at the host's time would refuse when they
    are there, because they begin later, or have ended.
    """

    stamped: int = 0
    wrong: int = 0
    worst_ns: int = 0
    last_ns: int | None = None
    undecided: int = 0
    what: str = ANSWER
    in_window: int | None = None
    disordered: int = 0
    not_yet_valid: int = 0
    expired: int = 0

    @property
    def refused(self) -> int:
        """Those that somebody at the host's time would refuse."""
        return self.not_yet_valid + self.expired


@dataclass(frozen=True)
class StampContext:
    """What stamps of a cycle are compared with. Times are host MONOTONIC_RAW.

    resumed_ns: after the last resume; the beginning of a cycle without a freeze. stood: by guest, from after
    its stop to before its resume. peers: guests that are not frozen, whose stamps others are put in order
    with. in_time_ns: from when on all clocks were in time again; None: unknown.
    tolerance_ns: an error up to this is none. bound_ns: how exactly `sent` and `done` are known.
    """

    resumed_ns: int
    tolerance_ns: int
    stood: Mapping[str, Interval]
    in_time_ns: int | None = None
    bound_ns: int = 0
    peers: frozenset[str] = frozenset()

    def made(self, stamp: WorkloadStamp) -> Interval | None:
        """When it was made; None: it may have been before the resume, or a peer has made it."""
        if stamp.by in self.peers:
            return None
        low, high = stamp.sent_ns - self.bound_ns, stamp.done_ns + self.bound_ns
        stood = self.stood.get(stamp.by)
        if stood is not None and stood.low_ns <= low < stood.high_ns <= high:
            return Interval(stood.high_ns, high)
        since = self.resumed_ns if stood is None else stood.high_ns
        return Interval(low, high) if low >= since else None


def answers_of(requests: Iterable[WorkloadRequest]) -> list[WorkloadStamp]:
    """The stamps of good answers."""
    return [
        WorkloadStamp(
            ANSWER, one.sent_ns, one.done_ns, one.stamp_ns, by=one.by, real_minus_raw_ns=one.real_minus_raw_ns
        )
        for one in requests
        if one.ok and one.stamp_ns is not None
    ]


def stale_stamps(stamps: Sequence[WorkloadStamp], context: StampContext) -> tuple[StaleStamps, ...]:
    """One for each kind, in the order in which they came first."""
    kinds = dict.fromkeys(one.what for one in stamps)
    return tuple(_of_kind(kind, [one for one in stamps if one.what == kind], context) for kind in kinds)


def _of_kind(what: str, stamps: Sequence[WorkloadStamp], context: StampContext) -> StaleStamps:
    known = [(one, at) for one in stamps if (at := context.made(one)) is not None]
    count, wrong, undecided, worst, last = len(known), 0, 0, 0, None
    not_yet_valid, expired = 0, 0
    for one, at in known:
        off, may_be = _error(one, at, context.tolerance_ns)
        if off:
            wrong += 1
            worst = max(worst, off, key=abs)
            last = max(last or 0, one.done_ns - context.resumed_ns)
        undecided += may_be
        if one.until_ns is not None:
            there = one.done_ns + one.real_minus_raw_ns
            not_yet_valid += one.stamp_ns > there + context.bound_ns
            expired += one.until_ns <= there - context.bound_ns
    in_time, in_window = context.in_time_ns, None
    if in_time is not None:
        in_window = sum(at.high_ns <= in_time for _, at in known)
    return StaleStamps(
        count, wrong, worst, last, undecided,
        what, in_window, _disordered(stamps, known, context.bound_ns), not_yet_valid, expired,
    )  # fmt: skip


def _error(stamp: WorkloadStamp, at: Interval, tolerance_ns: int) -> tuple[int, bool]:
    """The error that is certain, with its sign, 0 when none is; and whether there may be one all the same."""

    def right(time_ns: int) -> int:
        return (time_ns + stamp.real_minus_raw_ns) // stamp.unit_ns * stamp.unit_ns

    given = stamp.stamp_ns
    if given < right(at.low_ns - tolerance_ns):
        return given - right(at.low_ns), False
    if given > right(at.high_ns + tolerance_ns):
        return given - right(at.high_ns), False
    return 0, not right(at.high_ns - tolerance_ns) <= given <= right(at.low_ns + tolerance_ns)


def _disordered(
    stamps: Sequence[WorkloadStamp], known: Iterable[tuple[WorkloadStamp, Interval]], bound_ns: int
) -> int:
    """How many of those known have an earlier stamp than one that was there before them."""
    before = sorted(stamps, key=lambda one: one.done_ns)
    found, place, latest = 0, 0, -1
    for one, at in sorted(known, key=lambda each: each[1].low_ns):
        while place < len(before) and before[place].done_ns + bound_ns <= at.low_ns:
            latest = max(latest, before[place].stamp_ns)
            place += 1
        found += one.stamp_ns + one.unit_ns <= latest
    return found
