"""The guest's clocks in nanoseconds: a part of every program that reads them."""

import time

MS, S = 1000000, 1000000000
REAL, MONO, RAW = time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW
BOOT = 7  # time.CLOCK_BOOTTIME came with Python 3.7

if hasattr(time, "clock_gettime_ns"):
    RESOLUTION_NS = 1
    gettime = time.clock_gettime_ns  # novm
else:
    RESOLUTION_NS = 512  # a double near 2e9 s is good to 2**-22 s

    def gettime(clock: int) -> int:
        return int(time.clock_gettime(clock) * 1e9)
