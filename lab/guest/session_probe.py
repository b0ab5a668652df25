"""What a session asks of a probe, whatever the depth."""

from __future__ import annotations

from typing import Protocol

from lab.core.depth import Depth, ProbeLimits
from lab.core.history.run_events import Timing
from lab.guest.serial import SerialClockLine
from lab.guest.ssh import SSH
from lab.ports import Clock, Probe


class SessionProbe(Probe, Protocol):
    """A probe of a guest; GuestProbe and AgentProbe are ones.

    depth: PYTHON, SHELL or AGENT. limits: of its readings. resting: nothing of it uses the guest's CPU now.
    current: the present SSH connection, for other threads. ssh: a connection; a lost one is re-established.
    GuestError without any.
    """

    @property
    def depth(self) -> Depth: ...

    @property
    def limits(self) -> ProbeLimits: ...

    @property
    def resting(self) -> bool: ...

    @property
    def current(self) -> SSH | None: ...

    @property
    def ssh(self) -> SSH: ...

    def clock_line(self, clock: Clock) -> SerialClockLine | None:
        """A line to a program in the guest that sets its clock; None without one."""

    def close(self) -> None:
        """End it. Does not wait for a guest that is gone."""


def probe_timings(probe: SessionProbe) -> dict[str, Timing]:
    """What is recorded of a probe beside the timings of its guest's start."""
    return {
        "probe": probe.depth,
        "probe_resolution_ns": probe.limits.resolution_ns,
        "probe_steady": probe.limits.steady,
        "probe_period_ns": probe.limits.period_ns,
    }
