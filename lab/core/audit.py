"""Compares a guest's own claims with its true offset, through the whole cycle.

The truth at a claim needs no assumption about who steps or slews the guest's REALTIME: the watcher in the
guest compares REALTIME with MONOTONIC_RAW when the claim is made, and MONOTONIC_RAW's offset is known from
the readings, carried at a rate that they bound. The only assumption is that between two comparisons the
offset lies between their values: a step there and back within a claim (some milliseconds) or between two
points (at most 100 ms) is not seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.core.claims import Audit, Claim
from lab.core.clock import GuestClock, Interval, intersect
from lab.core.offsets import (
    HOST_SLEW_PPM,
    Rate,
    Sample,
    ageing_ns,
    host_apart,
    real_samples,
    samples,
    smoothed,
)
from lab.core.quantities import format_about
from lab.core.timeline import Call, Reading
from lab.core.units import NS_PER_MS

_NEAR = 2  # samples on either side: they were narrowed by all the others already


@dataclass(frozen=True)
class AuditPoint:
    """The guest's REALTIME offset at some instant of [from_raw_ns, to_raw_ns], the host's MONOTONIC_RAW."""

    from_raw_ns: int
    to_raw_ns: int
    offset: Interval

    @property
    def at_raw_ns(self) -> int:
        return (self.from_raw_ns + self.to_raw_ns) // 2


class _Window:
    """Readings without a pause between them, with one rate of the guest's MONOTONIC_RAW."""

    def __init__(self, readings: Sequence[Reading], rate: Rate) -> None:
        raw = samples(readings, GuestClock.RAW)
        self.rate, self.readings = rate, readings
        self.raw = smoothed(raw, rate) or raw
        self.guest = [s.from_raw_ns + s.offset.mid_ns for s in self.raw]
        self.host = [r.t1.raw_ns for r in readings]
        self.points = [
            AuditPoint(s.from_raw_ns, s.to_raw_ns, s.offset) for s in real_samples(readings, self.raw)
        ]

    def raw_offset(self, guest_raw_ns: int) -> Interval:
        """The offset of MONOTONIC_RAW when the guest's showed `guest_raw_ns`."""
        at = bisect_right(self.guest, guest_raw_ns)
        return _together(self._carried(s, guest_raw_ns) for s in self.raw[max(0, at - _NEAR) : at + _NEAR])

    def _carried(self, sample: Sample, guest_raw_ns: int) -> Interval:
        far = abs(guest_raw_ns - sample.from_raw_ns - sample.offset.mid_ns) + NS_PER_MS
        slack = ageing_ns(far, self.rate.largest_ppm)
        least = guest_raw_ns - sample.offset.high_ns - slack - sample.to_raw_ns
        most = guest_raw_ns - sample.offset.low_ns + slack - sample.from_raw_ns
        return sample.offset + self.rate.change_ns(least, most)

    def host_apart(self, host: Interval) -> Interval:
        """The host's REALTIME less its MONOTONIC_RAW at an instant in `host`."""
        at = bisect_right(self.host, host.mid_ns)
        found = []
        for reading in self.readings[max(0, at - 1) : at + 1]:
            far = max(abs(host.low_ns - reading.t4.raw_ns), abs(host.high_ns - reading.t1.raw_ns))
            apart = host_apart(reading.t1, reading.t4)
            found.append(apart.widened(ageing_ns(far, HOST_SLEW_PPM)))
        return _together(found)

    def point(self, claim: Claim) -> AuditPoint:
        """The true offset at a claim that was made in this window."""
        one, two = self.raw_offset(claim.from_raw_ns), self.raw_offset(claim.to_raw_ns)
        host = Interval(claim.from_raw_ns - one.high_ns, max(claim.to_raw_ns, claim.from_raw_ns) - two.low_ns)
        if claim.apart_ns is not None:
            apart = Interval(*claim.apart_ns)
            return AuditPoint(host.low_ns, host.high_ns, apart + _hull([one, two]) - self.host_apart(host))
        near = [p for p in self.points if p.to_raw_ns >= host.low_ns and p.from_raw_ns <= host.high_ns]
        at = bisect_right([p.at_raw_ns for p in self.points], host.mid_ns)
        near += self.points[max(0, at - 1) : at + 1]
        return AuditPoint(host.low_ns, host.high_ns, _hull([p.offset for p in near]))


def _hull(given: Sequence[Interval]) -> Interval:
    return Interval(min(i.low_ns for i in given), max(i.high_ns for i in given))


def _together(given: Iterable[Interval]) -> Interval:
    """The intersection of the intervals, or their hull when they contradict each other."""
    found = list(given)
    return intersect(found) or _hull(found)


class Truth:
    """The guest's REALTIME offset in a cycle, at its claims and at its readings.

    stop_guest, resume_guest: the guest's MONOTONIC_RAW at the stop and at the resume; None when it is not
    known. In regime resumed both have the same value, so a claim beside it may belong to either side; then
    its interval contains both.
    """

    def __init__(
        self,
        early: Sequence[Reading],
        late: Sequence[Reading],
        rates: tuple[Rate, Rate],
        stop_guest: Interval | None,
        resume_guest: Interval | None,
    ) -> None:
        self.before = _Window(early, rates[0]) if early else None
        self.after = _Window(late, rates[1]) if late else None
        self._stop, self._resume = stop_guest, resume_guest

    @property
    def points(self) -> list[AuditPoint]:
        return [p for window in (self.before, self.after) if window is not None for p in window.points]

    def at(self, claim: Claim) -> AuditPoint | None:
        """The true offset at a claim; None when it is not known."""
        if self._stop is None or self._resume is None or self.before is None or self.after is None:
            return None
        if claim.to_raw_ns < self._stop.low_ns:
            return self.before.point(claim)
        if claim.from_raw_ns > self._resume.high_ns:
            return self.after.point(claim)
        # It may also have begun on one side and ended on the other.
        one, two = self.before.point(claim), self.after.point(claim)
        return AuditPoint(
            min(one.from_raw_ns, two.from_raw_ns),
            max(one.to_raw_ns, two.to_raw_ns),
            _hull([one.offset, two.offset]),
        )


@dataclass(frozen=True)
class _Placed:
    claim: Claim
    truth: AuditPoint | None

    @property
    def wrong_by_ns(self) -> int:
        """By how much the offset certainly exceeds the claimed bound; not positive when the claim may be
        right."""
        if self.truth is None or not self.claim.stands:
            return 0
        return self.truth.offset.smallest_ns - self.claim.claimed_ns


def _audit(source: str, placed: Sequence[_Placed], points: Sequence[AuditPoint], pause: _Pause) -> Audit:
    wrong = [p for p in placed if p.wrong_by_ns > 0]
    worst = max(wrong, key=lambda p: p.wrong_by_ns, default=None)
    return Audit(
        source,
        len(placed),
        sum(p.truth is not None and p.claim.stands for p in placed),
        len(wrong),
        _wrong_for(placed, points, pause),
        worst.wrong_by_ns if worst is not None else 0,
        _unsynced_for(placed, points, pause),
        _example(worst) if worst is not None else "",
    )


@dataclass(frozen=True)
class _Pause:
    """A pause on the host's MONOTONIC_RAW: certainly from inner.low_ns to inner.high_ns, certainly not
    outside of outer. Nothing can ask a paused guest, so a pause does not count in the time for which
    something was claimed."""

    inner: Interval
    outer: Interval

    def least(self, begin: int, end: int) -> int:
        """The least time from `begin` to `end` without the pause."""
        return max(0, end - begin - _common(begin, end, self.outer))

    def most(self, begin: int, end: int) -> int:
        return max(0, end - begin - _common(begin, end, self.inner))


def _common(begin: int, end: int, other: Interval) -> int:
    return max(0, min(end, other.high_ns) - max(begin, other.low_ns))


def _wrong_for(placed: Sequence[_Placed], points: Sequence[AuditPoint], pause: _Pause) -> Interval:
    """For how long a wrong claim was in force. A claim is in force until the next one of its source. The
    lower bound counts runs of points at which the clock is certainly off by more than the claim in force, for
    claims that were wrong when they were made. The upper bound counts runs at which it may be, from the point
    before to the point after."""
    low = high = 0
    run: list[AuditPoint] = []
    doubt: list[AuditPoint] = []
    last_sound: AuditPoint | None = None
    standing: _Placed | None = None
    events: list[tuple[AuditPoint, _Placed | None]] = [(p.truth, p) for p in placed if p.truth is not None]
    events += [(p, None) for p in points]
    for point, claim in sorted(events, key=lambda event: (event[0].at_raw_ns, event[1] is None)):
        if claim is not None:
            standing = claim
        stands = standing is not None and standing.claim.stands
        limit = standing.claim.claimed_ns if standing is not None else 0
        certain = stands and point.offset.smallest_ns > limit
        if certain and standing is not None and standing.wrong_by_ns > 0:
            run.append(point)
        else:
            low += pause.least(run[0].to_raw_ns, run[-1].from_raw_ns) if run else 0
            run = []
        if stands and point.offset.largest_ns > limit:
            doubt.append(point)
            continue
        if doubt:
            high += pause.most((last_sound or doubt[0]).from_raw_ns, point.to_raw_ns)
            doubt = []
        last_sound = point
    low += pause.least(run[0].to_raw_ns, run[-1].from_raw_ns) if run else 0
    if doubt:
        high += pause.most((last_sound or doubt[0]).from_raw_ns, doubt[-1].to_raw_ns)
    return Interval(low, max(low, high))


def _unsynced_for(placed: Sequence[_Placed], points: Sequence[AuditPoint], pause: _Pause) -> Interval:
    """For how long the source reported that the clock is not synchronised. The lower bound is from the first
    to the last such claim of a run; the upper bound from the claim before the run to the one after it, or to
    the end of the watch."""
    low = high = 0
    run: list[AuditPoint] = []
    before: AuditPoint | None = None
    for claim, at in [(p.claim, p.truth) for p in placed if p.truth is not None]:
        if claim.synced is False:
            run.append(at)
            continue
        if run:
            low += pause.least(run[0].to_raw_ns, run[-1].from_raw_ns)
            high += pause.most((before or run[0]).from_raw_ns, at.to_raw_ns)
            run = []
        before = at
    if run:
        end = max([run[-1].to_raw_ns, *(p.to_raw_ns for p in points[-1:])])
        low += pause.least(run[0].to_raw_ns, run[-1].from_raw_ns)
        high += pause.most((before or run[0]).from_raw_ns, end)
    return Interval(low, max(low, high))


def _example(placed: _Placed) -> str:
    if placed.truth is None:
        return ""
    offset, claim = placed.truth.offset, placed.claim
    words = "claims synced" if claim.synced else "claims"
    bound = f" ± {format_about(claim.bound_ns)}" if claim.bound_ns is not None else ""
    side = "behind" if offset.high_ns < 0 else "ahead"
    return f"{words}{bound}, is {format_about(offset.smallest_ns)} {side}"


def audit(claims: Sequence[Claim], truth: Truth, stop: Call, resume: Call, frozen: bool) -> tuple[Audit, ...]:
    """Compares each source's claims with the truth, sources in the order of their first claim. A claim is
    wrong only when the clock was certainly off by more than the claimed bound throughout the claim's
    interval."""
    if not claims:
        return ()
    nothing = Interval(stop.called.raw_ns, stop.called.raw_ns)
    pause = _Pause(nothing, nothing)
    if frozen:
        inner = Interval(stop.returned.raw_ns, max(stop.returned.raw_ns, resume.called.raw_ns))
        pause = _Pause(inner, Interval(stop.called.raw_ns, max(inner.high_ns, resume.returned.raw_ns)))
    placed = [_Placed(claim, truth.at(claim)) for claim in claims]
    looked = [p.truth for p in placed if p.truth is not None and p.claim.apart_ns is not None]
    points = sorted(truth.points + looked, key=lambda point: point.at_raw_ns)
    sources = dict.fromkeys(claim.source for claim in claims)
    own = {source: [p for p in placed if p.claim.source == source] for source in sources}
    return tuple(_audit(source, own[source], points, pause) for source in sources)
