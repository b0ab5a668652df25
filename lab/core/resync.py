"""Resync: how, when and how well a guest's clock came back to the host's (MEASURING.md, "Resync")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from lab.core.clock import Interval
from lab.core.mechanism import ResyncMechanism
from lab.core.offsets import Sample
from lab.core.timeline import ClockStep
from lab.core.units import NS_PER_S, format_duration

LARGEST_BLIND_NS = 1 * NS_PER_S
"""Samples further apart than this do not count as one unbroken stretch."""


class SyncOutcome(StrEnum):
    SYNCED = "synced"
    NOT_SYNCED = "not synced"
    UNDECIDED = "undecided"


class Correction(StrEnum):
    """How the clock was moved."""

    STEP = "step"
    SLEW = "slew"
    BOTH = "step and slew"
    NONE = "none"


@dataclass(frozen=True)
class CurvePoint:
    """The offset (guest REALTIME minus host REALTIME) at an instant from_ns to at_ns after the resume."""

    at_ns: int
    offset: Interval
    from_ns: int = 0


@dataclass(frozen=True)
class Reached:
    """time: from the resume to the first instant from which |offset| stays within limit_ns for the hold time;
    None when it was not seen to."""

    limit_ns: int
    time: Interval | None


@dataclass(frozen=True)
class ResyncResult:
    """time: from the resume call's return to the first instant from which the offset stays in tolerance
    for the hold time, as bounds; None unless synced.
    step_ns: the largest single step, signed. backward_steps: how many went backward.
    overshoot_ns: how far past zero the clock certainly went.
    reached: when it was within 1 s, 100 ms, 10 ms and 1 ms. slew_ppm: the fastest that the offset was moved
    between steps, for long enough to be told; None when it was not told.
    area_ns_s: the area under |offset|, nanoseconds times seconds, between first and last sample.
    """

    outcome: SyncOutcome
    why: str
    time: Interval | None
    correction: Correction | None
    step_ns: int | None
    backward_steps: int
    overshoot_ns: int
    area_ns_s: float
    curve: tuple[CurvePoint, ...]
    reached: tuple[Reached, ...] = ()
    slew_ppm: float | None = None


def _time_to_sync(
    curve: Sequence[CurvePoint], tolerance_ns: int, hold_ns: int
) -> tuple[SyncOutcome, str, Interval | None]:
    """Two walks at once. In the strict one a stretch in tolerance is made of samples that are certainly
    in; one that is not, or blindness longer than LARGEST_BLIND_NS, ends it: the first such stretch that
    lasts for hold_ns bounds the time from above. In the generous one only a sample that is certainly out
    ends a stretch: where the first that could have lasted for hold_ns begins bounds it from below.

    Between two samples that are in, at most LARGEST_BLIND_NS apart, the offset is taken to have stayed in.
    """
    last_out = 0  # the generous stretch could have begun here
    could_have: int | None = None
    start: CurvePoint | None = None
    previous: CurvePoint | None = None
    for point in curve:
        if point.offset.smallest_ns > tolerance_ns:
            if could_have is None and point.at_ns - last_out >= hold_ns:
                could_have = last_out
            last_out, start, previous = point.from_ns, None, None
            continue
        if point.offset.largest_ns > tolerance_ns:
            start = previous = None
            continue
        if start is None or previous is None or point.at_ns - previous.from_ns > LARGEST_BLIND_NS:
            start = point
        previous = point
        if point.from_ns - start.at_ns >= hold_ns:
            low = last_out if could_have is None else could_have
            return SyncOutcome.SYNCED, "", Interval(min(low, start.at_ns), start.at_ns)
    if not curve:
        return SyncOutcome.UNDECIDED, "no readings after the resume", None
    if curve[-1].offset.smallest_ns > tolerance_ns:
        if could_have is None:
            return SyncOutcome.NOT_SYNCED, "still out of tolerance at the end of the watch", None
        return SyncOutcome.UNDECIDED, "out of tolerance at the end, but too little was seen before", None
    if start is not None:
        return SyncOutcome.UNDECIDED, "in tolerance, but not seen there for the hold time", None
    return SyncOutcome.UNDECIDED, "the readings' bounds straddle the tolerance", None


def _correction(
    at_resume: Interval | None, final: Interval | None, steps: Sequence[ClockStep] | None
) -> Correction | None:
    """None when not all of it is known."""
    if at_resume is None or final is None or steps is None:
        return None
    total = final.mid_ns - at_resume.mid_ns
    if final.meets(at_resume) and not steps:
        return Correction.NONE
    stepped = sum(s.by_ns for s in steps)
    if abs(total) <= at_resume.half_width_ns + final.half_width_ns:
        return Correction.STEP if steps else Correction.NONE
    share = stepped / total
    return Correction.STEP if share > 0.9 else Correction.SLEW if share < 0.1 else Correction.BOTH


def measure_resync(
    offsets: Sequence[Sample],
    resumed_raw_ns: int,
    at_resume: Interval | None,
    final: Interval | None,
    steps: Sequence[ClockStep] | None,
    tolerance_ns: int,
    hold_ns: int,
) -> ResyncResult:
    """The resync after a resume at host MONOTONIC_RAW `resumed_raw_ns`.

    offsets: REALTIME samples, in order. steps: what the in-guest sampler saw of REALTIME moving
    against MONOTONIC_RAW since the resume; None when it did not watch.
    """
    curve = tuple(
        CurvePoint(s.to_raw_ns - resumed_raw_ns, s.offset, max(0, s.from_raw_ns - resumed_raw_ns))
        for s in offsets
        if s.to_raw_ns >= resumed_raw_ns
    )
    outcome, why, time = _time_to_sync(curve, tolerance_ns, hold_ns)
    overshoot = 0
    if at_resume is not None and 0 not in at_resume:
        behind = at_resume.high_ns < 0
        overshoot = max((p.offset.low_ns if behind else -p.offset.high_ns for p in curve), default=0)
    area = 0.0
    for earlier, later in pairwise(curve):
        mean = (abs(earlier.offset.mid_ns) + abs(later.offset.mid_ns)) / 2
        area += mean * (later.at_ns - earlier.at_ns) / NS_PER_S
    return ResyncResult(
        outcome,
        why,
        time,
        _correction(at_resume, final, steps),
        max((s.by_ns for s in steps), key=abs, default=None) if steps else None,
        sum(s.by_ns < 0 for s in steps) if steps else 0,
        max(0, overshoot),
        area,
        curve,
    )


CHRONY_MAKESTEP_NS = 1 * NS_PER_S  # makestep 1.0 -1, as lab.guest.timesync writes it


def predict(mechanism: ResyncMechanism, pause_ns: int, stopped: bool) -> str:
    """What a mechanism's own rules say will happen after a pause. stopped: the guest's clocks stop
    during it (regime resumed).

    agent: guest-set-time sets CLOCK_REALTIME once (QEMU, qga/commands-posix.c).
    chrony: steps when the offset exceeds makestep's threshold, with limit -1 at any update; below
    it, slews by at most maxslewrate, 83333 ppm (chrony.conf(5)).
    """
    if not stopped:
        return "nothing to repair: the guest's clocks run on"
    if mechanism is ResyncMechanism.NONE:
        return f"stays behind by {format_duration(pause_ns)}"
    if mechanism is ResyncMechanism.AGENT:
        return "one step at once, to the agent's latency"
    if pause_ns > CHRONY_MAKESTEP_NS:
        return "one step within a few polls of 1 s"
    return "slewed, at most 83 ms a second"
