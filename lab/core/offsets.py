"""Offsets from readings: many intervals, one answer.

Each reading bounds the offset whatever the network did. A burst is intersected, after every
interval was widened by PHI times its age, as in Marzullo's algorithm and RFC 5905 (section 11.2.1),
but with nothing discarded: a reading that contradicts the others is a fact, not an outlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import PHI_PPM, GuestClock, Interval, intersect
from lab.core.timeline import Reading


@dataclass(frozen=True)
class Sample:
    """An offset at some instant of the host's MONOTONIC_RAW interval [from_raw_ns, to_raw_ns]."""

    from_raw_ns: int
    to_raw_ns: int
    offset: Interval

    def age_ns(self, at_raw_ns: int) -> int:
        """The farthest that the sample's instant can be from `at_raw_ns`."""
        return max(abs(at_raw_ns - self.from_raw_ns), abs(at_raw_ns - self.to_raw_ns))


def sample(reading: Reading, clock: GuestClock) -> Sample:
    return Sample(reading.t1.raw_ns, reading.t4.raw_ns, reading.offset(clock))


def samples(readings: Sequence[Reading], clock: GuestClock) -> list[Sample]:
    return [sample(r, clock) for r in readings]


def ageing_ns(age_ns: int, phi_ppm: float) -> int:
    """How far two clocks can part in `age_ns`, rounded up."""
    return int(age_ns * phi_ppm / 1e6) + 1


def offset_at(given: Sequence[Sample], at_raw_ns: int, phi_ppm: float = PHI_PPM) -> Interval | None:
    """The offset at host instant `at_raw_ns` (MONOTONIC_RAW) that all samples allow.

    phi_ppm: bound of the drift between the two clocks over the samples' time. None when there are
    no samples, or when they contradict each other: then the clock was moved in between.
    """
    if not given:
        return None
    return intersect(s.offset.widened(ageing_ns(s.age_ns(at_raw_ns), phi_ppm)) for s in given)


def thinned(given: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples: in equal stretches of time, the narrowest of each."""
    if len(given) <= most:
        return list(given)
    first, last = given[0].from_raw_ns, given[-1].from_raw_ns
    length = max(1, last - first + 1)
    best: dict[int, Sample] = {}
    for s in given:
        cell = (s.from_raw_ns - first) * most // length
        kept = best.get(cell)
        if kept is None or s.offset.half_width_ns < kept.offset.half_width_ns:
            best[cell] = s
    return [best[cell] for cell in sorted(best)]
