"""The clocks of a fleet's hosts on one scale, the controller's.

Each host's times are of its own CLOCK_MONOTONIC_RAW. The controller has measured how far that is from its own
from time to time, as a guest's is, with four stamps a reading. So an instant of a host's clock lies in an
interval of the controller's, which has the bounds of the offset then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lab.core.clock import Interval, Stamp
from lab.core.offsets import Sample, offset_at

APART_PPM = 100.0
"""How fast the MONOTONIC_RAW of two machines may part: their crystals are good for 50 ppm each, and nothing
disciplines that clock."""

_SLACK_PPM = 0.02
"""A rate of 100 ppm in the time of one clock is 100.01 ppm in that of the other."""

OntoOne = Callable[[str, Interval], Interval | None]
"""Maps what is known of an instant, in the MONOTONIC_RAW of a cell's host, to a clock that all cells share.
None when that is not known."""


def as_it_is(_cell: str, at: Interval) -> Interval:
    """For cells of one host."""
    return at


def ahead_at(samples: Sequence[Sample], at_raw_ns: int) -> Interval | None:
    """A host's MONOTONIC_RAW minus the controller's at an instant of the latter. None without samples, or
    when they contradict each other."""
    return offset_at(samples, at_raw_ns, APART_PPM)


class FleetClocks:
    """samples: of each host's MONOTONIC_RAW minus the controller's, at instants of the controller's, by the
    host's cell. apart_ns: the controller's REALTIME minus its MONOTONIC_RAW; None in older records."""

    def __init__(self, samples: Mapping[str, Sequence[Sample]], apart_ns: int | None = None) -> None:
        self._there = {cell: [_in_its_time(one) for one in given] for cell, given in samples.items()}
        self._apart_ns = apart_ns

    def controllers(self, cell: str, at: Interval) -> Interval | None:
        """The controller's MONOTONIC_RAW at an instant of the host's that lies in `at`: an OntoOne."""
        known = self._there.get(cell, [])
        first = offset_at(known, at.low_ns, APART_PPM + _SLACK_PPM)
        last = offset_at(known, at.high_ns, APART_PPM + _SLACK_PPM)
        if first is None or last is None:
            return None
        return Interval(at.low_ns - first.high_ns, at.high_ns - last.low_ns)

    def stamp(self, raw_ns: int, there: Stamp) -> Stamp:
        """The controller's clocks at an instant of its MONOTONIC_RAW. there: what a host had; its REALTIME is
        used where the controller's is not known."""
        return Stamp(raw_ns, there.real_ns if self._apart_ns is None else raw_ns + self._apart_ns)

    def controllers_stamp(self, cell: str, there: Stamp) -> Stamp:
        """The controller's clocks, at the likeliest, when a host had these; the host's where nothing is
        known."""
        at = self.controllers(cell, Interval(there.raw_ns, there.raw_ns))
        return there if at is None else self.stamp(at.mid_ns, there)


def _in_its_time(sample: Sample) -> Sample:
    """The sample, at instants of the host's clock."""
    low, high = sample.offset.low_ns, sample.offset.high_ns
    return Sample(sample.from_raw_ns + low, sample.to_raw_ns + high, sample.offset)
