"""What a set-up's own rules say before the freeze: each family of programs has a module of its own.

A server that is off on purpose is not known to them: they speak of the time that the mechanism takes for
right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lab.core.clock import Interval
from lab.core.mechanism import Means
from lab.core.resync import Correction
from lab.core.timesync import chrony, host, ntpd, timesyncd
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
    Means.TIMESYNCD: timesyncd.forecast,
    Means.NTPD: ntpd.forecast,
}

BOOTED = Forecast(None, None, None, None, "set at boot, from the RTC's whole seconds", ("rtc(4)",))
"""Of a guest that was rebooted."""


def slept(setup: Setup) -> Forecast:
    """Of a guest that slept: its kernel has set the clock from the RTC when it woke, to some seconds (Linux,
    kernel/time/timekeeping.c, timekeeping_resume), so what is left to repair is not known before."""
    text = f"what is missing to whole seconds: {setup.mechanism.about}"
    return Forecast(None, None, None, None, text, ("Linux kernel/time/timekeeping.c (timekeeping_resume)",))


def forecast(
    setup: Setup,
    pause: Interval,
    stopped: bool,
    watch_ns: int | None,
    lost: Interval | None = None,
    before: Interval | None = None,
) -> Forecast:
    """What becomes of a guest's REALTIME after a pause.

    pause: its length, as bounds. stopped: the guest's clocks stand still during it (regime resumed), so that
    it is behind by the pause; else it keeps the time. watch_ns: how long it is watched, from the resume on.
    lost: what its clocks lose although they run on (core.clocksource). before: the offset (guest minus host)
    before the pause; None when nobody knows, as of one in time.
    """
    if stopped:
        lost = Interval(max(0, pause.low_ns), max(0, pause.high_ns))
    at, mechanism = Situation(lost or Interval(0, 0), pause, watch_ns, before), setup.mechanism
    if not mechanism.repairs:
        return _nothing(at)
    if SILENT in setup.status:
        return replace(_nothing(at), text=f"{_nothing(at).text}: {setup.status[SILENT]}")
    if setup.server_fault and mechanism.is_daemon:
        return Forecast(None, None, None, None, f"open: the time server is {setup.server_fault}")
    return _RULES[mechanism.means](setup, at)


def _nothing(at: Situation) -> Forecast:
    """Nobody sets a clock that nobody sets: where the clocks of a guest stood still, CLOCK_REALTIME goes on
    from where it was (Linux, kernel/time/timekeeping.c; only a suspend of the guest's own makes it look at
    the RTC)."""
    source = ("Linux kernel/time/timekeeping.c",)
    if at.right:
        return Forecast(True, Correction.NONE, None, Interval(0, 0), "nothing to repair", source)
    text = f"stays {at.side}"
    return Forecast(False, Correction.NONE, None, -at.lost, text, source)
