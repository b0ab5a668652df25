"""What speaks against what was seen of a cycle: a clock that somebody moved meanwhile, a busy host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.core.clock import GuestClock, Interval
from lab.core.offsets import HOST_SLEW_PPM, SLEW_PPM, ageing_ns, apart
from lab.core.quantities import format_step
from lab.core.timeline import Observation, Reading
from lab.core.units import NS_PER_MS, NS_PER_S

HOST_STEP_NS = 1 * NS_PER_MS
"""What the host's REALTIME moved against its MONOTONIC_RAW in a cycle beyond this, and beyond what NTP may
slew it by, was a step: offsets before and after it do not compare."""


BUSY_NS = 50 * NS_PER_MS
"""A reading that takes longer was held up by the host. On a calm one it takes 2-5 ms, seldom 30; with six
workers of stress-ng on two cores 50-140 ms were seen, and an agent that was told the time set it as late."""


BUSY_SHARE = 0.1
"""QEMU waits for a CPU for a larger part of the time on a busy host only: 20 to 100 % were seen with six
workers of stress-ng on two cores."""

STARVED_NS = 1 * NS_PER_S
"""A stop that takes longer is asked whether the guest's QEMU had a CPU meanwhile."""


@dataclass(frozen=True)
class Delay:
    """By how much the busy host may have delayed what corrects the guest's clock after the resume; zeros on a
    host that is not busy. round_trip_ns: the longest round trip of a reading. waited_ns: how long QEMU waited
    for a CPU until the correction was done."""

    round_trip_ns: int = 0
    waited_ns: int = 0

    @property
    def longest_ns(self) -> int:
        return max(self.round_trip_ns, self.waited_ns)

    def off(self, at_resume: Interval | None) -> Interval:
        """How far off the clock may be by it. A round trip delays one of the two ways, so a clock that is set
        by it is off to either side. One that is corrected late is still on the side on which the pause put
        it. at_resume: its offset then; None, or of both signs: either side."""
        wait, trip = self.waited_ns, self.round_trip_ns
        ahead = at_resume is None or at_resume.high_ns >= 0
        behind = at_resume is None or at_resume.low_ns <= 0
        return Interval(-max(trip, wait * behind), max(trip, wait * ahead))


def delay_of(obs: Observation, in_time: Interval | None = None) -> Delay:
    """in_time: when the clock was in time again, after the resume."""
    if obs.resume is None:
        return Delay()
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
    """How long the threads of the guest's QEMU, all together, waited for a CPU between two moments (host
    MONOTONIC_RAW), at most: from the last look before the one to the first after the other. A process that
    was not looked at before began in between."""
    begun = max((n for n, wait in enumerate(obs.cpu_waits) if wait.at_raw_ns <= from_raw_ns), default=0)
    waited, last = 0, dict[int, int]()
    for wait in obs.cpu_waits[: begun + 1]:
        last[wait.pid] = wait.waited_ns
    for wait in obs.cpu_waits[begun + 1 :]:
        # Threads that have ended take theirs with them, so a sum may shrink.
        waited += max(0, wait.waited_ns - last.get(wait.pid, 0))
        last[wait.pid] = wait.waited_ns
        if wait.at_raw_ns >= until_raw_ns:
            break
    return waited


def explained_by_busy_host(obs: Observation, least_ns: int | None) -> bool:
    """Whether QEMU waited for a CPU for at least `least_ns` while it was looked at, and for a share of the
    time that only a busy host explains. least_ns: None: nothing is explained by that."""
    if least_ns is None or len(obs.cpu_waits) < 2:
        return False
    first, last = obs.cpu_waits[0].at_raw_ns, obs.cpu_waits[-1].at_raw_ns
    waited = cpu_waited_ns(obs, first, last)
    return waited >= least_ns and waited >= BUSY_SHARE * (last - first)


def starved(obs: Observation) -> bool:
    """Whether the guest was stopped only after long, and QEMU waited for a CPU for most of it: what was not
    done in time then tells nothing of the guest or the method."""
    if obs.stop is None:
        return False
    took = obs.stop.returned.raw_ns - obs.stop.called.raw_ns
    waited = cpu_waited_ns(obs, obs.stop.called.raw_ns, obs.stop.returned.raw_ns)
    return took > STARVED_NS and 2 * waited >= took


def moved(readings: Sequence[Reading]) -> bool:
    """Whether the guest's REALTIME was certainly stepped between two of the readings."""
    for earlier, later in pairwise(readings):
        most = later.t3[GuestClock.RAW] - earlier.t2[GuestClock.RAW]
        if 0 not in (apart(later) - apart(earlier)).widened(ageing_ns(max(0, most), SLEW_PPM)):
            return True
    return False


def host_step(obs: Observation) -> list[str]:
    """The problem that the host's own REALTIME was stepped in the cycle, if it was."""
    span = obs.readings[-1].t4.raw_ns - obs.readings[0].t1.raw_ns if obs.readings else 0
    if abs(obs.host_step_ns) <= HOST_STEP_NS + ageing_ns(max(0, span), HOST_SLEW_PPM):
        return []
    return [f"the host's REALTIME was stepped by {format_step(obs.host_step_ns)} during the cycle"]
