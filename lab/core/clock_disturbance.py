"""What speaks against the readings of a cycle: a clock that somebody moved meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lab.core.clock import GuestClock
from lab.core.offsets import HOST_SLEW_PPM, SLEW_PPM, ageing_ns, apart
from lab.core.quantities import format_step
from lab.core.timeline import Observation, Reading
from lab.core.units import NS_PER_MS

HOST_STEP_NS = 1 * NS_PER_MS
"""What the host's REALTIME moved against its MONOTONIC_RAW in a cycle beyond this, and beyond what NTP may
slew it by, was a step: offsets before and after it do not compare."""


BUSY_NS = 50 * NS_PER_MS
"""A reading that takes longer was held up by the host. On a calm one it takes 2-5 ms, seldom 30; with six
workers of stress-ng on two cores 50-140 ms were seen, and an agent that was told the time set it as late."""


def delay_ns(obs: Observation) -> int:
    """For how long the host held up what went on between it and the guest after the resume: the longest round
    trip of a reading, 0 where that was an ordinary one. What brings a clock back there is held up
    likewise."""
    if obs.resume is None:
        return 0
    began = obs.resume.returned.raw_ns
    longest = max((r.t4.raw_ns - r.t1.raw_ns for r in obs.readings if r.t1.raw_ns >= began), default=0)
    return longest if longest > BUSY_NS else 0


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
