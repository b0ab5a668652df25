"""Resync: how, when and how well a guest's clock came back to the host's (docs/measuring.md, "Resync")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.offsets import Sample
from lab.core.timeline import ClockStep
from lab.core.units import NS_PER_MS, NS_PER_S

LARGEST_BLIND_NS = 1 * NS_PER_S
"""Samples further apart than this do not count as one unbroken stretch."""


LIMITS = (1 * NS_PER_S, 100 * NS_PER_MS, 10 * NS_PER_MS, 1 * NS_PER_MS)
"""The distances for which ResyncResult.reached has a time."""

UNDISCIPLINED_PPM = 515.0
"""The largest drift of a clock that nothing corrects: a guest's calibration of its clock may be off by the
500 ppm that the kernel can correct (adjtimex(2), MAXFREQ), and RFC 5905's PHI comes on top."""

RUNAWAY_PPM = 101_000
"""The most by which a program can make a clock run fast or slow: 10 % by the tick, 500 ppm by the frequency
(adjtimex(2)), and what the clock itself is off. What is faster has a kernel that took its counter for slower
than it is, as one that calibrates the TSC on a busy host does, and no program keeps it in time."""

SLEW_WINDOWS = (NS_PER_S // 2, 2 * NS_PER_S, 8 * NS_PER_S, 32 * NS_PER_S)
"""The windows over which a rate is measured: short ones for fast slews, long ones for slow ones."""


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
    None when that was not seen."""

    limit_ns: int
    time: Interval | None


@dataclass(frozen=True)
class ResyncResult:
    """time: from the resume call's return to the first instant from which the offset stays in tolerance for
    the hold time, as bounds; None unless synced. step_ns: the largest single step, signed. backward_steps:
    how many went backward. overshoot_ns: how far past zero the clock certainly went. reached: when it was
    within 1 s, 100 ms, 10 ms and 1 ms. slew_ppm: the fastest that the offset certainly moved between steps,
    signed; None when not more than an undisciplined clock's may. area_ns_s: the area under |offset|,
    nanoseconds times seconds, between first and last sample. settled_step_ns: the largest step, signed, that
    was certainly before the last reading; None without one. settled_step_until_ns: the latest time of that
    step since the resume.
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
    settled_step_ns: int | None = None
    settled_step_until_ns: int | None = None


@dataclass(frozen=True)
class Watched:
    """The in-guest sampler's record of the clock between readings. until_ns: its end since the resume.
    stepped: the times of steps, each somewhere in its interval; by_ns: their sizes. ppm, slack_ns: without a
    step the offset moved no faster than ppm, plus slack_ns at each end of a stretch."""

    until_ns: int
    stepped: tuple[Interval, ...]
    by_ns: tuple[int, ...]
    ppm: float
    slack_ns: int

    def may_have_been_in(
        self, since: CurvePoint | None, later: CurvePoint, target: Interval, hold_ns: int
    ) -> bool:
        """True when the clock may have been in `target` for `hold_ns` between two consecutive readings that
        were outside of it. since: None for the resume."""
        begin = since.from_ns if since is not None else 0
        if later.at_ns > self.until_ns:
            return True
        if any(step.low_ns <= later.at_ns and step.high_ns >= begin for step in self.stepped):
            return True
        way = _outside_ns(later.offset, target) - 2 * self.slack_ns
        if since is not None:
            way += _outside_ns(since.offset, target)
        return (later.at_ns - begin - hold_ns) * self.ppm / 1e6 >= way

    def left(self, since: CurvePoint, later: CurvePoint, target: Interval) -> bool:
        """True when steps moved the clock out of `target` and back between two readings that were inside of
        it."""
        offset = since.offset
        for step, by in zip(self.stepped, self.by_ns, strict=True):
            if since.at_ns < step.low_ns and step.high_ns < later.from_ns:
                offset = offset.shifted(by)
                if not offset.meets(target):
                    return True
        return False


def _outside_ns(offset: Interval, target: Interval) -> int:
    """The least distance of an offset from `target`."""
    return max(0, offset.low_ns - target.high_ns, target.low_ns - offset.high_ns)


def settled(
    curve: Sequence[CurvePoint], target: Interval, hold_ns: int, watched: Watched | None = None
) -> tuple[SyncOutcome, str, Interval | None]:
    """When the offset entered `target` and stayed for hold_ns, as bounds. watched: the record of the sampler
    in the guest; without it a clock may have entered and left between any two readings.

    The upper bound is the first strict stretch that lasts for hold_ns: it has only samples that are certainly
    inside, and ends at any other sample or at a distance of samples above LARGEST_BLIND_NS. The lower bound
    is the begin of the first generous stretch that could have lasted for hold_ns: only a sample that is
    certainly outside ends it.

    Between two samples inside, at most LARGEST_BLIND_NS apart, the offset is assumed to have stayed inside,
    unless the sampler recorded steps out and back.
    """
    low_ns, high_ns = target.low_ns, target.high_ns
    last_out = 0  # the generous stretch could have begun here
    could_have: int | None = None
    start: CurvePoint | None = None
    previous: CurvePoint | None = None
    before: CurvePoint | None = None  # the reading before this one, if it was out
    next_to = True  # nothing but that lies between, or nothing at all since the resume
    for point in curve:
        offset = point.offset
        if offset.low_ns > high_ns or offset.high_ns < low_ns:
            possible = point.at_ns - last_out >= hold_ns and not (
                next_to
                and watched is not None
                and not watched.may_have_been_in(before, point, target, hold_ns)
            )
            if could_have is None and possible:
                could_have = last_out
            last_out, start, previous = point.from_ns, None, None
            before, next_to = point, True
            continue
        next_to = False
        if offset.low_ns < low_ns or offset.high_ns > high_ns:
            start = previous = None
            continue
        if (
            start is None
            or previous is None
            or point.at_ns - previous.from_ns > LARGEST_BLIND_NS
            or (watched is not None and watched.left(previous, point, target))
        ):
            start = point
        previous = point
        if point.from_ns - start.at_ns >= hold_ns:
            low = last_out if could_have is None else could_have
            return SyncOutcome.SYNCED, "", Interval(min(low, start.at_ns), start.at_ns)
    if not curve:
        return SyncOutcome.UNDECIDED, "no readings after the resume", None
    if not curve[-1].offset.meets(target):
        if could_have is None:
            return SyncOutcome.NOT_SYNCED, "still out of tolerance at the end of the watch", None
        return SyncOutcome.UNDECIDED, "out of tolerance at the end, and too few readings before", None
    if start is not None:
        return SyncOutcome.UNDECIDED, "in tolerance, but not for the hold time before the watch ended", None
    return SyncOutcome.UNDECIDED, "the readings' bounds straddle the tolerance", None


def _drifted(span_ns: int, ppm: float) -> int:
    """The change of an offset at `ppm`, rounded up."""
    return math.ceil(span_ns * ppm / 1e6) + 1


def gone_on(before: Drift, span_ns: int) -> Interval:
    """The change of the offset in span_ns if the clock keeps its drift from before the freeze."""
    return Interval(-_drifted(span_ns, -before.low), _drifted(span_ns, before.high))


def running_off(before: Drift | None) -> Drift | None:
    """The drift before the freeze, if the clock certainly ran faster or slower than an undisciplined one
    (because its tick was changed, adjtimex(2)) and that is known well enough to distinguish it from a
    repair."""
    if before is None or before.bound_ppm > UNDISCIPLINED_PPM:
        return None
    return before if before.low > UNDISCIPLINED_PPM or before.high < -UNDISCIPLINED_PPM else None


def runs_wild(before: Drift | None) -> bool:
    """Whether the clock certainly ran faster or slower before the freeze than any program makes it."""
    return before is not None and (before.low > RUNAWAY_PPM or before.high < -RUNAWAY_PPM)


def _correction(
    at_resume: Interval | None,
    final: Interval | None,
    steps: Sequence[ClockStep] | None,
    span_ns: int,
    unseen_ns: int,
    free: Drift | None,
) -> Correction | None:
    """The kind of correction for most of the offset (four fifths of it); None when the record is incomplete,
    or the bounds do not decide. span_ns: the length of the watch: the possible drift of an undisciplined
    clock in it is not a correction, nor is a drift that the clock had before the freeze (free). unseen_ns:
    the largest step that the sampler may have missed."""
    if at_resume is None or final is None or steps is None:
        return None
    stepped = sum(s.by_ns for s in steps)
    moved = (final - at_resume).shifted(-stepped).widened(_drifted(span_ns, UNDISCIPLINED_PPM))
    ways = [moved] if free is None else [moved, moved - gone_on(free, span_ns)]
    if not steps and any(0 in way for way in ways):
        return Correction.NONE
    slewed = Interval(min(way.low_ns for way in ways), max(way.high_ns for way in ways))
    least, most = max(0, slewed.smallest_ns - unseen_ns), slewed.largest_ns + unseen_ns
    if 4 * most < abs(stepped):
        return Correction.STEP
    if 4 * (abs(stepped) + unseen_ns) < least:
        return Correction.SLEW
    return Correction.BOTH if most < 4 * abs(stepped) and abs(stepped) < 4 * least and stepped else None


def _before_last(
    steps: Sequence[ClockStep] | None, stepped: Sequence[Interval] | None, curve: Sequence[CurvePoint]
) -> Sequence[ClockStep] | None:
    """The steps that were over at the last reading: the sampler is read later than that. None when that is
    not known for one of them."""
    if not steps or not stepped or not curve:
        return steps
    last = Interval(curve[-1].from_ns, curve[-1].at_ns)
    if any(when.meets(last) for when in stepped):
        return None
    return [step for step, when in zip(steps, stepped, strict=True) if when.high_ns < last.low_ns]


def _slew_ppm(curve: Sequence[CurvePoint], stepped: Sequence[Interval]) -> float | None:
    """The fastest mean rate at which the offset certainly moved over a window of SLEW_WINDOWS in which no
    step was seen, signed; None when it is no more than an undisciplined clock's."""
    best = 0.0
    edges = sorted((s.low_ns, s.high_ns) for s in stepped)
    for window in SLEW_WINDOWS:
        first = 0
        for later in curve:
            while first + 1 < len(curve) and later.from_ns - curve[first + 1].at_ns >= window:
                first += 1
            earlier = curve[first]
            far = later.at_ns - earlier.from_ns
            if later.from_ns - earlier.at_ns < window:
                continue
            least = max(later.offset.low_ns - earlier.offset.high_ns, 0) or min(
                later.offset.high_ns - earlier.offset.low_ns, 0
            )
            ppm = least / far * 1e6
            if abs(ppm) <= max(abs(best), UNDISCIPLINED_PPM):
                continue
            if not any(low <= later.at_ns and high >= earlier.from_ns for low, high in edges):
                best = ppm
    return best or None


def measure_resync(
    offsets: Sequence[Sample],
    resumed_raw_ns: int,
    at_resume: Interval | None,
    final: Interval | None,
    steps: Sequence[ClockStep] | None,
    tolerance_ns: int,
    hold_ns: int,
    stepped: Sequence[Interval] | None = None,
    unseen_ns: int = 0,
    watched: Watched | None = None,
    free: Drift | None = None,
) -> ResyncResult:
    """The resync after a resume at host MONOTONIC_RAW `resumed_raw_ns`.

    offsets: REALTIME samples, in order. steps: the in-guest sampler's steps of REALTIME against MONOTONIC_RAW
    since the resume; None when it did not run. stepped: the time of each, host time since the resume; None
    when that is not known. unseen_ns: the largest step that the sampler may have taken for a slew. watched:
    its record of the time between readings. free: the drift before the freeze.
    """
    curve = tuple(
        CurvePoint(s.to_raw_ns - resumed_raw_ns, s.offset, max(0, s.from_raw_ns - resumed_raw_ns))
        for s in offsets
        if s.to_raw_ns >= resumed_raw_ns
    )
    outcome, why, time = settled(curve, Interval(-tolerance_ns, tolerance_ns), hold_ns, watched)
    overshoot = 0
    if at_resume is not None and 0 not in at_resume:
        behind = at_resume.high_ns < 0
        overshoot = max((p.offset.low_ns if behind else -p.offset.high_ns for p in curve), default=0)
    certain = _before_last(steps, stepped, curve) if stepped is not None else None
    settled_step, made = None, None
    if certain and steps and stepped:
        settled_step = max(certain, key=lambda step: abs(step.by_ns))
        made = stepped[steps.index(settled_step)]
    area = 0.0
    for earlier, later in pairwise(curve):
        between = (abs(earlier.offset.mid_ns) + abs(later.offset.mid_ns)) / 2
        area += between * (later.at_ns - earlier.at_ns) / NS_PER_S
    return ResyncResult(
        outcome,
        why,
        time,
        _correction(
            at_resume,
            final,
            _before_last(steps, stepped, curve),
            curve[-1].at_ns if curve else 0,
            unseen_ns,
            running_off(free),
        ),
        max((s.by_ns for s in steps), key=abs, default=None) if steps else None,
        sum(s.by_ns < 0 for s in steps) if steps else 0,
        max(0, overshoot),
        area,
        curve,
        tuple(
            Reached(limit, settled(curve, Interval(-limit, limit), hold_ns, watched)[2]) for limit in LIMITS
        ),
        _slew_ppm(curve, stepped) if stepped is not None else None,
        None if settled_step is None else settled_step.by_ns,
        None if made is None else made.high_ns,
    )


def since_earlier(result: ResyncResult, most_ns: int) -> ResyncResult:
    """The result for a guest that was resumed up to most_ns earlier than the call from which the times
    count."""

    def wider(time: Interval | None) -> Interval | None:
        return None if time is None else Interval(time.low_ns, time.high_ns + most_ns)

    reached = tuple(Reached(one.limit_ns, wider(one.time)) for one in result.reached)
    return replace(result, time=wider(result.time), reached=reached)
