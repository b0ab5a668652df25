"""The host's clocks: the real `ports.Clock`."""

from __future__ import annotations

import time

from lab.core.clock import Stamp
from lab.core.units import NS_PER_S

_SLICE_NS = NS_PER_S // 4
"""The longest single sleep. Linux has no sleep on CLOCK_MONOTONIC_RAW; time.sleep uses CLOCK_MONOTONIC, which
the host's NTP may run up to 500 ppm faster or slower (adjtimex(2)): 125 µs in a slice."""

_FINISH_NS = 300_000
"""A sleep ends this long before its target and the rest is measured again, so that a slewed host clock does
not overshoot."""


class HostClock:
    """CLOCK_MONOTONIC_RAW and CLOCK_REALTIME of this machine."""

    def now(self) -> Stamp:
        """Both clocks. REALTIME is read after MONOTONIC_RAW, within a fraction of a microsecond."""
        return Stamp(
            time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), time.clock_gettime_ns(time.CLOCK_REALTIME)
        )

    def sleep_until(self, raw_ns: int) -> None:
        """Return at CLOCK_MONOTONIC_RAW `raw_ns` or just after, never before; at once when that time is past.
        Exceptions from signal handlers pass through at once."""
        while (left := raw_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)) > 0:
            if left > 2 * _FINISH_NS:
                left = min(left - _FINISH_NS, _SLICE_NS)
            time.sleep(left / NS_PER_S)
