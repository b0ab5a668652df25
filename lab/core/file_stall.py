"""How long a guest's file systems stood still, as felt by a writer in it that syncs each write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.step import Step

FREEZE_FILES, THAW_FILES = "freeze files", "thaw files"
"""Names of the steps in which a guest's agent freezes and thaws its file systems."""

LATE_NS = 10_000_000
"""A write that takes less is not recorded (LATE_NS in lab/guest/inside/disk_writer.py)."""


@dataclass(frozen=True, slots=True)
class LateWrite:
    """A write that took long. Guest MONOTONIC_RAW. before: when the write before it was synced."""

    before_raw_ns: int
    begun_raw_ns: int
    ended_raw_ns: int


@dataclass(frozen=True)
class FileWrites:
    """The record of the writer in the guest (lab/guest/inside/disk_writer.py) over one cycle.

    usual_ns: the median time of a write with its sync. late: those that took much longer, in order. failed:
    why it gave up. thawed: how many file systems it has thawed, because nobody else had.
    """

    count: int
    usual_ns: int
    first_raw_ns: int
    last_raw_ns: int
    late: tuple[LateWrite, ...] = ()
    failed: str = ""
    thawed: int = 0


@dataclass(frozen=True)
class FileStall:
    """How long file systems stood still. Host time.

    calls: by the host's calls, from the end of the freeze's to the begin of the thaw's at least, from the
    begin of the freeze's to the end of the thaw's at most. felt: by the writer; None: not measured. Its
    longest write lasted no longer than the file system stood still, but for the time that a write takes; and
    the file system stood still for at most from the write before to its end. With a guest that was suspended
    meanwhile, whose clock stood still, the lag is added.
    """

    calls: Interval
    felt: Interval | None

    @property
    def agrees(self) -> bool | None:
        """Whether the two meet; None: the writer does not know."""
        return None if self.felt is None else self.calls.meets(self.felt)


def calls_of(steps: Sequence[Step]) -> Interval | None:
    """The host's bounds from the steps of a freeze; None when one of the two is missing."""
    freeze = next((step for step in steps if step.name == FREEZE_FILES), None)
    thaw = next((step for step in steps if step.name == THAW_FILES), None)
    if freeze is None or thaw is None:
        return None
    least = thaw.began_raw_ns - freeze.ended_raw_ns
    return Interval(max(0, least), thaw.ended_raw_ns - freeze.began_raw_ns)


def stall_of(
    steps: Sequence[Step],
    writes: FileWrites | None,
    stop: Interval | None,
    resume: Interval | None,
    lag: Interval | None,
) -> FileStall | None:
    """The stall of a cycle; None when no file system was frozen. stop, resume: the guest's MONOTONIC_RAW at
    the calls; lag: for how long that stood still. None: unknown, and then the writer is not asked."""
    calls = calls_of(steps)
    if calls is None:
        return None
    if writes is None or stop is None or resume is None or lag is None or not writes.count:
        return FileStall(calls, None)
    if writes.first_raw_ns > stop.low_ns or writes.last_raw_ns < resume.low_ns:
        return FileStall(calls, None)
    there = [w for w in writes.late if w.ended_raw_ns >= stop.low_ns and w.begun_raw_ns <= resume.high_ns]
    if there:
        longest = max(there, key=lambda w: w.ended_raw_ns - w.begun_raw_ns)
        least = longest.ended_raw_ns - longest.begun_raw_ns - writes.usual_ns
        felt = Interval(max(0, least), longest.ended_raw_ns - longest.before_raw_ns)
    else:
        felt = Interval(0, max(LATE_NS, 3 * writes.usual_ns))
    stood = Interval(max(0, lag.low_ns), max(0, lag.high_ns))
    return FileStall(calls, felt + stood)
