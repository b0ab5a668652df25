"""The offset of a clock that is set from the guest's RTC.

QEMU starts the RTC with time(2)'s whole seconds (hw/rtc/mc146818rtc.c, rtc_set_date_from_host), up to a
second behind, and by default lets it run on while the guest is stopped (-rtc clock=host).

Status keys, both optional: `rtc_minus_real_ns` the RTC minus REALTIME before the freeze, when REALTIME had
just been set to the host's; `rtc_bound_ns` its bound (10 ms without).
"""

from __future__ import annotations

from lab.core.clock import Interval
from lab.core.timesync.texts import number
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS

UNKNOWN = Interval(-1000 * NS_PER_MS, 500 * NS_PER_MS)
"""The offset of an RTC from the host's clock when it was not read."""

TICK_LATE_NS = 200 * NS_PER_MS
"""The largest delay of the tick from the RTC's interrupt to a program: an estimate."""

SMALL_NS = 5 * NS_PER_MS
"""A clock that is ahead by less than this after a correction is so by the readings' bound and the guest's
drift, not by the correction."""

QEMU_RTC = "QEMU hw/rtc/mc146818rtc.c"
TRACK = "libvirt formatdomain, timer track=guest"
STOOD_STILL = "the RTC stood still with the guest"


def by_rtc(setup: Setup, corrected_ns: int = 0) -> Interval:
    """The offset (guest minus host) of a clock that is set at the RTC's tick. corrected_ns: added to the
    RTC's time."""
    rtc, known = UNKNOWN, number(setup.status, "rtc_minus_real_ns")
    if known is not None:
        rtc = Interval(known, known).widened(abs(number(setup.status, "rtc_bound_ns") or 10 * NS_PER_MS))
    rtc = rtc.shifted(corrected_ns)
    return Interval(rtc.low_ns - TICK_LATE_NS, rtc.high_ns + SMALL_NS)
