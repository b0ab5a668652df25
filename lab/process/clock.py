"""The host's clocks: the real `ports.Clock`."""

from __future__ import annotations

import time

from lab.core.clock import Stamp
from lab.core.units import NS_PER_S

_SLICE_NS = NS_PER_S // 4
"""Longest single sleep. CLOCK_MONOTONIC_RAW cannot be slept on; time.sleep uses CLOCK_MONOTONIC, which the
host's own NTP may run up to 500 ppm (adjtimex(2)) faster or slower: 125 µs in a slice."""

_FINISH_NS = 300_000
"""The last stretch is slept up to here only, then re-measured, so that a slewed host clock does not
overshoot."""


class HostClock:
    """CLOCK_MONOTONIC_RAW and CLOCK_REALTIME of this machine."""

    def now(self) -> Stamp:
        """Both clocks, raw first; the real one is read within a fraction of a microsecond."""
        return Stamp(
            time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), time.clock_gettime_ns(time.CLOCK_REALTIME)
        )

    def sleep_until(self, raw_ns: int) -> None:
        """Return at CLOCK_MONOTONIC_RAW `raw_ns` or just after, never before; at once when that is past.
        An exception from a signal handler passes through at once."""
        while (left := raw_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)) > 0:
            if left > 2 * _FINISH_NS:
                left = min(left - _FINISH_NS, _SLICE_NS)
            time.sleep(left / NS_PER_S)
