"""The forecast of any set-up; each family of programs has its own module with rules.

The rules do not know of a server that is deliberately off: their offsets are against the time that the
mechanism regards as right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lab.core.clock import Interval
from lab.core.mechanism import Means
from lab.core.resync import Correction
from lab.core.timesync import chrony, host, ntpd, openntpd, phc2sys, timesyncd, vmclock, w32time
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import Situation
from lab.core.timesync_setup import SILENT, Setup

_RULES: dict[Means, Callable[[Setup, Situation], Forecast]] = {
    Means.AGENT_TIME: host.agent_time,
    Means.AGENT_SECONDS: host.agent_seconds,
    Means.AGENT_RTC: host.from_rtc,
    Means.HWCLOCK: host.from_rtc,
    Means.PUSH: host.push,
    Means.CHRONYD: chrony.forecast,
    Means.VMCLOCK: vmclock.forecast,
    Means.TIMESYNCD: timesyncd.forecast,
    Means.TIMESYNCD_RESYNC: timesyncd.forecast,
    Means.NTPD: ntpd.forecast,
    Means.OPENNTPD: openntpd.forecast,
    Means.PHC2SYS: phc2sys.forecast,
    Means.W32TIME: w32time.forecast,
}

BOOTED = Forecast(None, None, None, None, "set at boot, from the RTC's whole seconds", ("rtc(4)",))
"""The forecast for a guest that was rebooted."""


def slept(setup: Setup) -> Forecast:
    """The forecast for a guest that slept: its kernel has set the clock from the RTC at the wake-up, to some
    seconds (Linux, kernel/time/timekeeping.c, timekeeping_resume), so the rest to correct is not known in
    advance."""
    text = f"what is missing to whole seconds: {setup.mechanism.about}"
    return Forecast(None, None, None, None, text, ("Linux kernel/time/timekeeping.c (timekeeping_resume)",))


def forecast(
    setup: Setup,
    pause: Interval,
    stopped: bool,
    watch_ns: int | None,
    lost: Interval | None = None,
    before: Interval | None = None,
    *,
    cut: bool = False,
    migrated: bool = False,
) -> Forecast:
    """The forecast of a guest's REALTIME after a pause.

    pause: its length, as bounds. stopped: the guest's clocks stand still during it (regime resumed), so they
    are behind by the pause; else they run on. watch_ns: the length of the watch after the resume. lost: what
    its clocks lose although they run on (core.clocksource). before: the offset (guest minus host) before the
    pause; None, not known, counts as in time. cut: the pause cut the guest's network connections.
    migrated: it goes on in a process that has loaded its state.
    """
    if stopped:
        lost = Interval(max(0, pause.low_ns), max(0, pause.high_ns))
    at, mechanism = Situation(lost or Interval(0, 0), pause, watch_ns, before, cut, migrated), setup.mechanism
    if not mechanism.repairs:
        return _nothing(at)
    if SILENT in setup.status:
        return replace(_nothing(at), text=f"{_nothing(at).text}: {setup.status[SILENT]}")
    if setup.server_fault and mechanism.is_daemon:
        return Forecast(None, None, None, None, f"open: the time server is {setup.server_fault}")
    return _RULES[mechanism.means](setup, at)


def _nothing(at: Situation) -> Forecast:
    """The forecast without a mechanism: after a stop of the guest's clocks, CLOCK_REALTIME continues from its
    last value (Linux, kernel/time/timekeeping.c; it reads the RTC only after the guest's own suspend)."""
    source = ("Linux kernel/time/timekeeping.c",)
    if at.right:
        return Forecast(True, Correction.NONE, None, Interval(0, 0), "nothing to repair", source)
    text = f"stays {at.side}"
    return Forecast(False, Correction.NONE, None, -at.lost, text, source)
