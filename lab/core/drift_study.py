"""A guest's clocks over minutes: bursts of readings, a point from each burst, and the result of all points.

A burst becomes one point: its narrowest reading, intersected with all others, which are extrapolated to it.
So ten minutes have some hundred points. The guest's MONOTONIC_RAW is free-running; programs in the guest
discipline its REALTIME; the host's REALTIME against its MONOTONIC_RAW shows the host's own NTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import PHI_PPM, GuestClock, Interval
from lab.core.drift import Drift, average_drift, drift_over, segments, wander_ns
from lab.core.offsets import HOST_SLEW_PPM, SLEW_PPM, Rate, Sample, host_apart, real_sample, samples, smoothed
from lab.core.rates import UNKNOWN_DRIFT_PPM
from lab.core.stats import quantile
from lab.core.timeline import ClockStep, Reading, SamplerReport

FREE = Rate.within(UNKNOWN_DRIFT_PPM + PHI_PPM)
"""The rate at which an undisciplined clock may run against the host's."""

WANTED_PPM = 1.0

STA_PLL, STA_FLL, STA_UNSYNC = 0x0001, 0x0008, 0x0040
"""Bits of adjtimex(2)'s status (include/uapi/linux/timex.h)."""
USUAL_TICK_US = 10_000


@dataclass(frozen=True)
class Discipline:
    """The state of adjtimex(2): status bits, frequency correction in ppm (positive: faster), tick in
    microseconds, maximum error in microseconds. programs: running programs that discipline clocks."""

    status: int
    freq_ppm: float
    tick_us: int
    maxerror_us: int
    programs: tuple[str, ...]

    @property
    def unsynced(self) -> bool:
        return bool(self.status & STA_UNSYNC)

    @property
    def disciplined(self) -> bool:
        """True when a program keeps the clock in time, or has changed its rate."""
        return (
            bool(self.programs)
            or bool(self.status & (STA_PLL | STA_FLL))
            or not self.unsynced
            or self.freq_ppm != 0
            or self.tick_us != USUAL_TICK_US
        )


@dataclass(frozen=True)
class DriftPoint:
    """One burst. guest_ns: the guest's MONOTONIC_RAW from its first reading's receipt to its last answer.
    raw, real: offsets of the guest's clocks. host: the host's REALTIME minus its MONOTONIC_RAW."""

    guest_ns: Interval
    raw: Sample
    real: Sample
    host: Sample


@dataclass(frozen=True)
class Course:
    """The course of an offset.

    drift: one rate through all segments between the steps; where no line passes, the mean rate over the
    longest segment, and straight is False. None when the time is too short. wander_ns: how far the offset
    certainly deviates from a straight line. segments: their number. width_ns: the median of half the width of
    a point.
    """

    drift: Drift | None
    straight: bool
    wander_ns: int
    segments: int
    width_ns: int

    @property
    def resolves(self) -> bool:
        """True when the drift is known to ± WANTED_PPM."""
        return self.drift is not None and self.drift.bound_ppm <= WANTED_PPM

    @property
    def window_ns(self) -> int | None:
        """The window in which equally good points would give the drift to ± WANTED_PPM."""
        return None if self.drift is None else self.drift.window_for_ns(WANTED_PPM)


@dataclass(frozen=True)
class Look:
    """A guest's clocks over length_ns. noise: the same of a probe on this host itself, whose offset and drift
    are zero. steps: steps of the guest's REALTIME. restarts: how often the guest's probe was restarted and
    lost its record of steps. The disciplines are those at the beginning and at the end."""

    length_ns: int
    points: int
    raw: Course
    real: Course
    host: Course
    noise: Course | None
    steps: tuple[ClockStep, ...]
    restarts: int
    before: Discipline | None
    after: Discipline | None


def point(readings: Sequence[Reading]) -> DriftPoint | None:
    """A burst's point; None without readings. If they contradict each other, the clock stood still in
    between, and only the narrowest counts."""
    if not readings:
        return None
    plain = samples(readings, GuestClock.RAW)
    best = min(smoothed(plain, FREE) or plain, key=lambda s: s.offset.half_width_ns)
    chosen = next(r for r in readings if r.t1.raw_ns == best.from_raw_ns)
    host = host_apart(chosen.t1, chosen.t4)
    # Of a clock that stood still, receipt may seem to come after an answer.
    first, last = readings[0].t2[GuestClock.RAW], readings[-1].t3[GuestClock.RAW]
    return DriftPoint(
        Interval(min(first, last), max(first, last)),
        best,
        real_sample(chosen, best),
        Sample(chosen.t1.raw_ns, chosen.t4.raw_ns, host),
    )


def between_steps(points: Sequence[DriftPoint], sampler: SamplerReport | None) -> list[list[Sample]]:
    """The REALTIME samples, divided where the guest's sampler recorded a step. A burst with a step in it is
    left out."""
    if sampler is None:
        return [[p.real for p in points]]
    before = {hole.to_raw_ns: hole.from_raw_ns for hole in sampler.holes}
    spans = [
        Interval(min(s.at_raw_ns, before.get(s.at_raw_ns, s.at_raw_ns - sampler.floor_ns)), s.at_raw_ns)
        for s in sampler.steps
    ]
    cut: dict[int, list[Sample]] = {}
    for p in points:
        if not any(p.guest_ns.meets(span) for span in spans):
            cut.setdefault(sum(span.high_ns < p.guest_ns.low_ns for span in spans), []).append(p.real)
    return [cut[number] for number in sorted(cut)]


def course(parts: Sequence[Sequence[Sample]], rate: Rate) -> Course:
    """The course of an offset that is already divided at known steps. It is divided further where a change at
    `rate` does not explain it."""
    whole = [piece for part in parts for piece in segments(part, rate)]
    widths = [s.offset.half_width_ns for piece in whole for s in piece]
    width = round(quantile(widths, 0.5).value) if widths else 0
    straight = drift_over(whole)
    if straight is not None:
        return Course(straight, True, 0, len(whole), width)
    longest = max(whole, key=lambda piece: piece[-1].to_raw_ns - piece[0].from_raw_ns, default=[])
    return Course(average_drift(longest), False, wander_ns(whole), len(whole), width)


def look(
    points: Sequence[DriftPoint],
    noise: Sequence[DriftPoint],
    sampler: SamplerReport | None,
    restarts: int = 0,
    before: Discipline | None = None,
    after: Discipline | None = None,
) -> Look | None:
    """The result of all points; None without any. noise: points of this host's own probe. sampler: the
    guest's; None when it was lost."""
    if not points:
        return None
    steps = sampler.steps if sampler is not None else ()
    return Look(
        length_ns=points[-1].raw.to_raw_ns - points[0].raw.from_raw_ns,
        points=len(points),
        raw=course([[p.raw for p in points]], FREE),
        real=course(between_steps(points, sampler), Rate.within(SLEW_PPM)),
        host=course([[p.host for p in points]], Rate.within(HOST_SLEW_PPM)),
        noise=course([[p.raw for p in noise]], FREE) if noise else None,
        steps=steps,
        restarts=restarts,
        before=before,
        after=after,
    )
