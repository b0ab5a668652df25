"""Offsets from readings: the intersection of many intervals.

Each reading bounds the offset, whatever the network's delays. A burst is intersected after every interval is
extrapolated to a common instant, as in Marzullo's algorithm and RFC 5905 (section 11.2.1), but with nothing
discarded: a reading that contradicts the others is a fact, not an outlier.

Only MONOTONIC_RAW is extrapolated: nothing steps or slews it, so its rate against the host's is one number
(within PHI), which the readings themselves bound. REALTIME is derived from it: each reading has the
difference of REALTIME and MONOTONIC_RAW inside the guest, to the microseconds between two clock readings
there. So nothing has to be assumed about what chrony, an agent or a step does to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import PHI_PPM, GuestClock, Interval, Stamp, intersect
from lab.core.timeline import Reading
from lab.core.units import NS_PER_S

STAMP_NS = 2_000
"""In at least one of an exchange's two host stamps, the two clocks are read within this time of each other: a
longer interruption hits only one of the stamps."""

HOST_SLEW_PPM = 500
"""The kernel's limit of frequency correction (adjtimex(2)): how fast the host's REALTIME and MONOTONIC_RAW
may part, except for steps."""

SLEW_PPM = 100_000.0
"""The largest slew rate of a guest's REALTIME: adjtimex(2) changes the tick by at most a tenth."""

CROSS_NS = 1_000
"""How far a cross-timestamp may be off: what both kernels round, some nanoseconds, and room for the host's
kernel and its programs taking the time from two copies of the same figures."""

_PPT = 10**12


@dataclass(frozen=True)
class Sample:
    """An offset at some instant of the host's MONOTONIC_RAW interval [from_raw_ns, to_raw_ns]."""

    from_raw_ns: int
    to_raw_ns: int
    offset: Interval

    def age_ns(self, at_raw_ns: int) -> int:
        """The largest distance of the sample's instant from `at_raw_ns`."""
        return max(abs(at_raw_ns - self.from_raw_ns), abs(at_raw_ns - self.to_raw_ns))


@dataclass(frozen=True)
class Rate:
    """The rate of change of an offset: between low_ppm and high_ppm at every instant."""

    low_ppm: float
    high_ppm: float

    @classmethod
    def within(cls, ppm: float) -> Rate:
        return cls(-ppm, ppm)

    @property
    def largest_ppm(self) -> float:
        return max(abs(self.low_ppm), abs(self.high_ppm))

    @property
    def ppt(self) -> tuple[int, int]:
        """The bounds in parts per 10**12, rounded outward: integers, so that arithmetic is exact."""
        return math.floor(self.low_ppm * 1e6), math.ceil(self.high_ppm * 1e6)

    def change_ns(self, least_ns: int, most_ns: int) -> Interval:
        """The change of the offset over a time that lies in [least_ns, most_ns]; either may be negative."""
        low, high = self.ppt
        products = (low * least_ns, low * most_ns, high * least_ns, high * most_ns)
        return Interval(min(products) // _PPT, -(-max(products) // _PPT))

    def host_time(self, guest: Interval) -> Interval:
        """Host time in which the guest's clock advances by what lies in `guest` (not negative)."""
        low, high = self.ppt
        return Interval(guest.low_ns * _PPT // (_PPT + high), -(-guest.high_ns * _PPT // (_PPT + low)))

    def or_rate(self, other: Rate) -> Rate:
        """The rate that contains both."""
        return Rate(min(self.low_ppm, other.low_ppm), max(self.high_ppm, other.high_ppm))


def by_cross_timestamp(reading: Reading) -> Interval | None:
    """Guest minus host MONOTONIC_RAW by the reading's cross-timestamp; None without one."""
    cross = reading.cross
    if cross is None:
        return None
    host = Interval(cross.host_real_ns, cross.host_real_ns) - host_apart(reading.t1, reading.t4)
    guest = Interval(cross.least_raw_ns, cross.most_raw_ns).widened(reading.resolution_ns - 1)
    return (guest - host).widened(CROSS_NS)


def sample(reading: Reading, clock: GuestClock) -> Sample:
    """The reading's sample. A cross-timestamp that contradicts the exchange is not used."""
    offset = reading.offset(clock)
    if clock is GuestClock.RAW and (by := by_cross_timestamp(reading)) is not None:
        offset = intersect((offset, by)) or offset
    return Sample(reading.t1.raw_ns, reading.t4.raw_ns, offset)


def samples(readings: Sequence[Reading], clock: GuestClock) -> list[Sample]:
    """Samples of the readings that have this clock."""
    return [sample(r, clock) for r in readings if clock in r.t3]


def ageing_ns(age_ns: int, phi_ppm: float) -> int:
    """How far two clocks can drift apart in `age_ns`, rounded up."""
    return int(age_ns * phi_ppm / 1e6) + 1


def offset_at(
    given: Sequence[Sample], at_raw_ns: int, phi_ppm: float = PHI_PPM, rate: Rate | None = None
) -> Interval | None:
    """The offset at host instant `at_raw_ns` (MONOTONIC_RAW) that all samples allow.

    rate: the offset's rate of change; default ± phi_ppm. None without samples, or when they contradict each
    other: then the clock was moved in between.
    """
    if not given:
        return None
    if rate is None:
        return intersect(s.offset.widened(ageing_ns(s.age_ns(at_raw_ns), phi_ppm)) for s in given)
    return intersect(
        s.offset + rate.change_ns(at_raw_ns - s.to_raw_ns, at_raw_ns - s.from_raw_ns) for s in given
    )


def smoothed(given: Sequence[Sample], rate: Rate) -> list[Sample] | None:
    """Every sample, narrowed by all others, which are extrapolated to it at `rate`; each result is valid at
    every instant of its exchange. None when they contradict each other. Of samples that overlap in time only
    the first is used.

    One pass in each direction is enough: an earlier sample's bound for a later one is its own bound plus a
    term of its own time plus a term of the later one's, so a running extreme covers all pairs.
    """
    used: list[Sample] = []
    for s in given:
        if not used or s.from_raw_ns >= used[-1].to_raw_ns:
            used.append(s)
    slow, fast = rate.ppt
    low: list[int] = []
    high: list[int] = []
    for s in used:
        own = s.offset + rate.change_ns(s.from_raw_ns - s.to_raw_ns, s.to_raw_ns - s.from_raw_ns)
        low.append(own.low_ns * _PPT)
        high.append(own.high_ns * _PPT)
    # The time from an earlier sample to a later one is least from its end and most from its start. A
    # positive rate adds least over the least time, a negative one over the most; and the other way round.
    least = most = None
    for i, s in enumerate(used):
        begin, end = s.from_raw_ns, s.to_raw_ns
        if least is not None and most is not None:
            low[i] = max(low[i], least + slow * (begin if slow >= 0 else end))
            high[i] = min(high[i], most + fast * (end if fast >= 0 else begin))
        from_low = s.offset.low_ns * _PPT - slow * (end if slow >= 0 else begin)
        from_high = s.offset.high_ns * _PPT - fast * (begin if fast >= 0 else end)
        least = from_low if least is None else max(least, from_low)
        most = from_high if most is None else min(most, from_high)
    least = most = None
    for i in range(len(used) - 1, -1, -1):
        s = used[i]
        begin, end = s.from_raw_ns, s.to_raw_ns
        if least is not None and most is not None:
            low[i] = max(low[i], least + fast * (begin if fast >= 0 else end))
            high[i] = min(high[i], most + slow * (end if slow >= 0 else begin))
        from_low = s.offset.low_ns * _PPT - fast * (end if fast >= 0 else begin)
        from_high = s.offset.high_ns * _PPT - slow * (begin if slow >= 0 else end)
        least = from_low if least is None else max(least, from_low)
        most = from_high if most is None else min(most, from_high)
    found = []
    for s, below, above in zip(used, low, high, strict=True):
        if below > above:
            return None
        found.append(Sample(s.from_raw_ns, s.to_raw_ns, Interval(below // _PPT, -(-above // _PPT))))
    return found


def apart(reading: Reading) -> Interval:
    """Guest REALTIME minus guest MONOTONIC_RAW at the instant of the answer's REALTIME.

    This relies on the order of the probe's readings: MONOTONIC_RAW is the first clock read on receipt and the
    last before the answer. So the answer's REALTIME lies between two readings of it. Its upper bound is the
    difference on receipt plus the largest slew since, unless REALTIME was stepped forward in between: that
    shows as a contradiction, except for steps below the time between two readings, some microseconds."""
    real, raw = reading.t3[GuestClock.REAL], reading.t3[GuestClock.RAW]
    since = raw - reading.t2[GuestClock.RAW]
    low, high = real - raw, real - reading.t2[GuestClock.RAW]
    then = reading.t2[GuestClock.REAL] - reading.t2[GuestClock.RAW] + ageing_ns(max(0, since), SLEW_PPM)
    slack = 2 * (reading.resolution_ns - 1)
    if low - slack <= then + slack:
        high = min(high, then)
    return Interval(min(low, high), max(low, high)).widened(slack)


def host_apart(called: Stamp, returned: Stamp) -> Interval:
    """Host REALTIME minus host MONOTONIC_RAW at any instant between two stamps. In a stamp REALTIME is
    read last, so that an interruption in between makes the difference too large, never too small."""
    one, two = called.real_ns - called.raw_ns, returned.real_ns - returned.raw_ns
    slew = ageing_ns(max(0, returned.raw_ns - called.raw_ns), HOST_SLEW_PPM)
    return Interval(min(one, two) - STAMP_NS - slew, max(one, two) + slew)


def real_sample(reading: Reading, raw: Sample | None) -> Sample:
    """The REALTIME offset at the instant of the answer's REALTIME stamp.

    raw: the MONOTONIC_RAW offset throughout the same exchange, from `smoothed`.
    """
    real, host = reading.t3[GuestClock.REAL], host_apart(reading.t1, reading.t4)
    low, high = real - reading.t4.raw_ns, real - reading.t1.raw_ns
    # By way of the host's MONOTONIC_RAW, also here: its REALTIME may be stepped within the exchange.
    offset = Interval(min(low, high), max(low, high)).widened(reading.resolution_ns - 1) - host
    if raw is not None:
        derived = raw.offset + apart(reading) - host
        offset = intersect((offset, derived)) or derived
    return Sample(reading.t1.raw_ns, reading.t4.raw_ns, offset)


ALONE_NS = NS_PER_S
"""No busy host was observed to delay a reading for that long."""


def real_samples(readings: Sequence[Reading], raw: Sequence[Sample] | None) -> list[Sample]:
    """REALTIME samples of the readings. raw: their MONOTONIC_RAW offsets from `smoothed`.

    The first and the last reading have neighbours on one side only. If such a reading took ALONE_NS or
    longer, the guest may have been stopped during it, and the bounds from its neighbours are not used."""
    known = {s.from_raw_ns: s for s in raw or ()}
    for edge in (*readings[:1], *readings[-1:]):
        if edge.round_trip_ns >= ALONE_NS:
            known.pop(edge.t1.raw_ns, None)
    return [real_sample(r, known.get(r.t1.raw_ns)) for r in readings]


def thinned(given: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples: the narrowest of each of equal stretches of time."""
    if len(given) <= most:
        return list(given)
    first, last = given[0].from_raw_ns, given[-1].from_raw_ns
    length = max(1, last - first + 1)
    best: dict[int, Sample] = {}
    for s in given:
        cell = (s.from_raw_ns - first) * most // length
        narrowest = best.get(cell)
        if narrowest is None or s.offset.half_width_ns < narrowest.offset.half_width_ns:
            best[cell] = s
    return [best[cell] for cell in sorted(best)]
