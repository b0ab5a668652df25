"""What makes a cycle's observations unreliable: a clock that was stepped during the cycle, or a busy host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.core.clock import GuestClock, Interval
from lab.core.offsets import HOST_SLEW_PPM, SLEW_PPM, ageing_ns, apart
from lab.core.quantities import format_about, format_step
from lab.core.timeline import Observation, Reading
from lab.core.units import NS_PER_MS, NS_PER_S

HOST_STEP_NS = 1 * NS_PER_MS
"""The host's REALTIME was stepped when it moved against MONOTONIC_RAW during a cycle by more than this plus
the largest NTP slew. Offsets before and after a step are not comparable."""

BUSY_NS = 50 * NS_PER_MS
"""A reading that takes longer was delayed by the host. On an idle host a reading takes 2-5 ms, seldom 30.
With six workers of stress-ng on two cores it took 50-140 ms, and an agent set the guest's clock as late."""

BUSY_SHARE = 0.1
"""QEMU waits for a CPU for a larger share of the time only on a busy host: 20 to 100 % were measured with six
workers of stress-ng on two cores."""

STARVED_NS = 1 * NS_PER_S
"""After a stop that takes longer, `starved` checks whether the guest's QEMU had a CPU meanwhile."""


@dataclass(frozen=True)
class Delay:
    """How long a busy host may have delayed the correction of the guest's clock after the resume. Both values
    are 0 on a host that is not busy. round_trip_ns: the longest round trip of a reading. waited_ns: how long
    QEMU waited for a CPU until the correction was done."""

    round_trip_ns: int = 0
    waited_ns: int = 0

    @property
    def longest_ns(self) -> int:
        return max(self.round_trip_ns, self.waited_ns)

    @property
    def text(self) -> str:
        return f"the busy host delayed the correction by up to {format_about(self.longest_ns)}"

    def off(self, at_resume: Interval | None) -> Interval:
        """How far off the guest's clock may be because of the delay; positive: ahead of the host's. A clock
        that is set over a network may be off to either side, because a round trip may be delayed on either
        way. A clock that is corrected late is still on the side on which the pause put it. at_resume: the
        offset at the resume; when it is None or has both signs, either side is possible."""
        wait, trip = self.waited_ns, self.round_trip_ns
        ahead = at_resume is None or at_resume.high_ns >= 0
        behind = at_resume is None or at_resume.low_ns <= 0
        return Interval(-max(trip, wait * behind), max(trip, wait * ahead))


NO_DELAY = Delay()


def delay_of(obs: Observation, in_time: Interval | None = None) -> Delay:
    """The delay in one cycle. in_time: how long after the resume the clock was in time again, if it was."""
    if obs.resume is None:
        return NO_DELAY
    began = obs.resume.returned.raw_ns
    until = obs.resync_finished_raw_ns
    if until is None and in_time is not None:
        until = began + in_time.high_ns
    after = [r for r in obs.readings if r.t1.raw_ns >= began]
    if until is None and after:
        until = after[-1].t4.raw_ns
    longest = max((r.t4.raw_ns - r.t1.raw_ns for r in after), default=0)
    waited = cpu_waited_ns(obs, obs.resume.called.raw_ns, until) if until is not None else 0
    return Delay(*(delay if delay > BUSY_NS else 0 for delay in (longest, waited)))


def cpu_waited_ns(obs: Observation, from_raw_ns: int, until_raw_ns: int) -> int:
    """At most how long all threads of the guest's QEMU together waited for a CPU between two times (host
    MONOTONIC_RAW): from the last sample before the first time to the first sample after the second. A process
    without an earlier sample was started in between."""
    begun = max((n for n, wait in enumerate(obs.cpu_waits) if wait.at_raw_ns <= from_raw_ns), default=0)
    waited, last = 0, dict[int, int]()
    for wait in obs.cpu_waits[: begun + 1]:
        last[wait.pid] = wait.waited_ns
    for wait in obs.cpu_waits[begun + 1 :]:
        # A sum may shrink, because it leaves out threads that have ended.
        waited += max(0, wait.waited_ns - last.get(wait.pid, 0))
        last[wait.pid] = wait.waited_ns
        if wait.at_raw_ns >= until_raw_ns:
            break
    return waited


def cpu_wait_share(obs: Observation) -> float | None:
    """The part of the time, from before the stop to the end of the watch, for which QEMU waited for a CPU;
    more than 1 when several of its threads did. None when that was not looked at."""
    sampled = _sampled(obs)
    return None if sampled is None else sampled[0] / max(1, sampled[1])


def _sampled(obs: Observation) -> tuple[int, int] | None:
    """How long QEMU waited for a CPU from the first sample to the last, and how long that was, nanoseconds;
    None without two samples."""
    if len(obs.cpu_waits) < 2:
        return None
    first, last = obs.cpu_waits[0].at_raw_ns, obs.cpu_waits[-1].at_raw_ns
    return cpu_waited_ns(obs, first, last), last - first


def explained_by_busy_host(obs: Observation, least_ns: int | None) -> bool:
    """Whether QEMU waited for a CPU for at least `least_ns` between the first and the last sample, and for at
    least BUSY_SHARE of that time. least_ns: None: always False."""
    sampled = _sampled(obs)
    if least_ns is None or sampled is None:
        return False
    waited, span = sampled
    return waited >= least_ns and waited >= BUSY_SHARE * span


def starved(obs: Observation) -> bool:
    """Whether the stop took longer than STARVED_NS and QEMU waited for a CPU for at least half of that. What
    was late then says nothing about the guest or the method."""
    if obs.stop is None:
        return False
    took = obs.stop.returned.raw_ns - obs.stop.called.raw_ns
    waited = cpu_waited_ns(obs, obs.stop.called.raw_ns, obs.stop.returned.raw_ns)
    return took > STARVED_NS and 2 * waited >= took


def moved(readings: Sequence[Reading]) -> bool:
    """Whether the guest's REALTIME was certainly stepped between two of the readings."""
    for earlier, later in pairwise(r for r in readings if GuestClock.RAW in r.t3):
        most = later.t3[GuestClock.RAW] - earlier.t2[GuestClock.RAW]
        if 0 not in (apart(later) - apart(earlier)).widened(ageing_ns(max(0, most), SLEW_PPM)):
            return True
    return False


def host_step(obs: Observation) -> list[str]:
    """The problem that the host's REALTIME was stepped during the cycle; [] when it was not."""
    span = obs.readings[-1].t4.raw_ns - obs.readings[0].t1.raw_ns if obs.readings else 0
    if abs(obs.host_step_ns) <= HOST_STEP_NS + ageing_ns(max(0, span), HOST_SLEW_PPM):
        return []
    return [f"the host's REALTIME was stepped by {format_step(obs.host_step_ns)} during the cycle"]
