"""Forecasts of mechanisms that the host triggers: the agent's three ways, hwclock, and the push.

They act once, on the resume, whatever the offset is. So they also act on a guest whose clocks ran on and are
right, and may make them worse.

On Linux guest-set-time with a time calls settimeofday and then hwclock -w, which sets the RTC from the clock;
without a time it calls hwclock -s, which sets the clock from the RTC (QEMU, qga/commands-posix.c,
qmp_guest_set_time). libvirt's virDomainSetTime passes its nanoseconds, or with VIR_DOMAIN_TIME_SYNC nothing
(qemu_agent.c, qemuAgentSetTime); `virsh domtime --now` passes time(2)'s whole seconds and no nanoseconds
(virsh-domain.c, cmdDomTime).

On Windows guest-set-time with a time calls SetSystemTime, with whole milliseconds, and leaves the RTC alone;
without a time it starts `w32tm /resync /nowait`, which is no use of the RTC (qga/commands-win32.c,
qmp_guest_set_time). The lab was never run with Windows.

hwclock -s waits for the tick of the RTC's next second and sets the clock to it (hwclock(8); util-linux,
sys-utils/hwclock.c, synchronize_to_clock_tick, which gives up after 1.5 s, or after 10 s without an
interrupt). So it does not lose the fraction of a second, but comes no nearer than the RTC's own seconds are:
QEMU starts the RTC with time(2)'s whole seconds (hw/rtc/mc146818rtc.c, rtc_set_date_from_host), up to a
second behind, and Linux sets it half a second early or late at worst (drivers/rtc/lib.c and systohc.c; the
MC146818 counts its next second 0.5 s after it was set).

hwclock -s takes the RTC for local time when /etc/adjtime says LOCAL, unless it is told --utc, and corrects
what it reads by the drift that /etc/adjtime knows of (hwclock(8), "The Adjust Function").

Status keys, all optional: those of core.timesync.rtc; `rtc_zone_s` by how many seconds the zone lies east of
UTC in which the RTC is read, and `rtc_drift_ns` what is added to it for its drift, both 0 without;
`push_bound_ns` the bound of the offset that a push steps by; `push_channel` the channel that it uses;
`windows` the guest is one.
"""

from __future__ import annotations

from lab.core.clock import Interval
from lab.core.mechanism import UNSEEN
from lab.core.quantities import format_about
from lab.core.resync import Correction
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.rtc import QEMU_RTC, SMALL_NS, STOOD_STILL, TRACK, by_rtc
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import number
from lab.core.timesync_setup import PUSH_CHANNEL, PUSH_SSH, WINDOWS_NAME, Setup
from lab.core.units import NS_PER_MS, NS_PER_S

AGENT_NS = 200 * NS_PER_MS
"""The longest time from the host's reading of its clock to the agent's settimeofday: 9 ms were observed under
TCG at rest, up to 390 ms on a busy host or guest. An estimate, for when the step itself was not observed
(Forecast.latency_ns)."""

AGENT_SLOWEST_NS = 5 * NS_PER_S
"""libvirt's time limit for an agent is 5 s (VIR_DOMAIN_QEMU_AGENT_WAIT_TIME, qemu_agent.h)."""

TICK_NS = 10 * NS_PER_S
"""hwclock's time limit for a tick."""

PUSH_NS = 10 * NS_PER_MS
PUSH_SLOWEST_NS = 2 * NS_PER_S
"""The longest time of a push: its measurement takes some ms a reading over the lab's own channel, which also
carries the result."""

PUSH_REGAINS_NS = 20 * NS_PER_S
"""The same over an SSH connection that the pause has cut: QEMU's forwarded port is back after seconds, and
the guest has to log the host in (guest/timesync/push.py, REGAIN_S)."""

QGA = "QEMU qga/commands-posix.c (qmp_guest_set_time)"
QGA_WINDOWS = "QEMU qga/commands-win32.c (qmp_guest_set_time)"
LIBVIRT = "libvirt src/qemu/qemu_agent.c (qemuAgentSetTime)"
HWCLOCK = "hwclock(8); util-linux sys-utils/hwclock.c"


def agent_time(setup: Setup, at: Situation) -> Forecast:
    """The host's time in nanoseconds, through the agent."""
    return _set(setup, at, Interval(-AGENT_NS, SMALL_NS), "to the agent's latency", LIBVIRT)


def agent_seconds(setup: Setup, at: Situation) -> Forecast:
    """The host's whole seconds, through the agent."""
    left = Interval(-NS_PER_S - AGENT_NS, SMALL_NS)
    virsh = "libvirt tools/virsh-domain.c (cmdDomTime)"
    return _set(setup, at, left, "to a whole second, 0 to 1 s behind", virsh)


def _set(setup: Setup, at: Situation, left: Interval, where: str, source: str) -> Forecast:
    """One step to the host's time."""
    within, sources = Interval(0, AGENT_SLOWEST_NS), (QGA, source)
    text = f"a right clock is stepped, {where}" if at.right else f"one step at once, {where}"
    if WINDOWS_NAME in setup.status:
        left, sources = Interval(left.low_ns - NS_PER_MS, left.high_ns), (QGA_WINDOWS, source)
        text = f"{text}; {UNSEEN}"
    return Forecast(True, _step(at), within, left, text, sources, once=True, latency_ns=AGENT_NS)


def _step(at: Situation) -> Correction | None:
    """A step; None for a clock that was right, whose step may be too small to see."""
    return Correction.STEP if at.off.low_ns > SMALL_NS else None


def push(setup: Setup, at: Situation) -> Forecast:
    """The host measures the offset and the guest steps by it, as Hyper-V's time synchronisation service sends
    the host's time on a resume (Linux, drivers/hv/hv_util.c, adj_guesttime: ICTIMESYNCFLAG_SYNC)."""
    bound = max(PUSH_NS, 2 * (number(setup.status, "push_bound_ns") or 0))
    channel = setup.status.get(PUSH_CHANNEL, "")
    regains = at.cut and channel == PUSH_SSH
    left, within = Interval(-bound, bound), Interval(0, PUSH_REGAINS_NS if regains else PUSH_SLOWEST_NS)
    sources = ("Linux drivers/hv/hv_util.c (the model)", "lab/guest (the push itself)")
    text = f"stepped {'once SSH is back' if regains else 'at once'}, by the offset measured"
    if at.right:
        text = "a right clock is stepped, by next to nothing"
    text += f", over {channel}" if channel else ""
    return Forecast(True, _step(at), within, left, text, sources)


def from_rtc(setup: Setup, at: Situation) -> Forecast:
    """The guest's RTC, through hwclock, which the agent calls as well."""
    zone_s, drift_ns = number(setup.status, "rtc_zone_s") or 0, number(setup.status, "rtc_drift_ns") or 0
    left = by_rtc(setup, drift_ns - zone_s * NS_PER_S)
    within, sources = Interval(0, TICK_NS), (HWCLOCK, QEMU_RTC, QGA)
    if setup.rtc_stops and at.stopped:
        left = left - at.lost
        text = f"left behind by {format_about(at.lost.mid_ns)}: {STOOD_STILL}"
        where = (*sources, TRACK)
        if at.before is not None and at.before.largest_ns > SOURCE_NS:
            # A clock that was off before is set all the same: to the time that the RTC has left.
            return Forecast(True, _step(at), within, left, f"one step, and {text}", where, once=True)
        return Forecast(False, None, None, left, text, where)
    text = "a right clock is set, to the RTC's second" if at.right else "one step, to the RTC's second"
    if zone_s:
        side = "east" if zone_s > 0 else "west"
        text += f", read as local time, {format_about(abs(zone_s) * NS_PER_S)} {side} of UTC"
    return Forecast(True, _step(at), within, left, text, sources, once=True)
