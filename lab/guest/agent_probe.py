"""Looks into a guest through qemu-guest-agent alone: for guests without SSH, of any operating system.

guest-get-time is REALTIME and nothing else. There are no heartbeats and no samples, so nothing but the host
tells how long a pause was, and whether the guest ran in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from lab.core.clock import GuestClock
from lab.core.depth import Depth, ProbeLimits
from lab.core.timeline import Call, Heartbeat, ProbeFacts, Reading, SamplerReport
from lab.core.timesync_setup import WINDOWS
from lab.core.units import NS_PER_S
from lab.errors import AgentError, GuestError, HypervisorError, Refused
from lab.guest.serial import SerialClockLine
from lab.guest.ssh import SSH
from lab.ports import Clock
from lab.process.clock import HostClock

CHANNEL = "agent"
RESOLUTION_NS = 1_000
"""Of guest-get-time: GLib's g_get_real_time() has microseconds (QEMU, qga/commands.c)."""

WINDOWS_RESOLUTION_NS = 17_000_000
"""Of guest-get-time on Windows: its clock may advance in ticks of 15.625 ms, of which GetSystemTime shows
whole milliseconds (QEMU, qga/commands-win32.c, qmp_guest_get_time)."""

AGAIN_S, PAUSE_S = 20.0, 0.05
"""How long, and how often, a silent agent is asked again: libvirt connects anew to a restored one."""


class AgentProbe:
    """ports.Probe over the agent, and what a session asks of a probe (SessionProbe).

    get_time: see hypervisor.agent.get_time; system: see hypervisor.agent.system; look: raises GuestGone when
    the guest is known to have ended.
    """

    depth = Depth.AGENT
    resting = True  # it leaves no program that would use CPU time
    current = None

    def __init__(
        self,
        guest: str,
        get_time: Callable[[], tuple[Call, int]],
        system: Callable[[], dict[str, str]],
        look: Callable[[], None],
    ) -> None:
        self.guest = guest
        self._get_time, self._system, self._look = get_time, system, look
        self.limits = ProbeLimits(RESOLUTION_NS, steady="")
        self._kernel = ""

    def open(self) -> AgentProbe:
        """Wait for the agent's first answer. GuestError when it does not answer, or refuses to."""
        self.read()
        system = self._system()
        self._kernel = system.get("kernel-release", "")
        if system.get("id") == WINDOWS:
            self.limits = replace(self.limits, resolution_ns=WINDOWS_RESOLUTION_NS)
        return self

    @property
    def ssh(self) -> SSH:
        """GuestError: there is none."""
        raise GuestError("it is looked into by its agent alone: there is no SSH", where=f"guest {self.guest}")

    def clock_line(self, clock: Clock) -> SerialClockLine | None:  # noqa: ARG002 - GuestProbe's
        """None: no program of the lab runs there."""
        return None

    def close(self) -> None:
        """Nothing is left in the guest."""

    def read(self) -> Reading:
        """See ports.Probe. An agent that is silent is asked again for AGAIN_S; one that refuses is not."""
        deadline = time.monotonic() + AGAIN_S
        while True:
            try:
                call, real = self._get_time()
            except HypervisorError as error:
                self._look()
                if isinstance(error, AgentError | Refused) or time.monotonic() > deadline:
                    raise GuestError(error.what, where=f"guest {self.guest}", hint=error.hint) from error
                time.sleep(PAUSE_S)
            else:
                clocks = {GuestClock.REAL: real}
                return Reading(
                    call.called, clocks, clocks, call.returned, self.limits.resolution_ns, channel=CHANNEL
                )

    def start_cycle(self) -> None:
        """Nothing is recorded in the guest."""

    def rest(self) -> None:
        """Nothing runs in the guest."""

    def heartbeats(self) -> Sequence[Heartbeat]:
        return ()

    def samples(self) -> SamplerReport | None:
        return None

    def facts(self) -> ProbeFacts:
        return ProbeFacts("", "", self._kernel, kernel_lines=None, depth=Depth.AGENT, steady="")

    def restart(self, deadline_raw_ns: int) -> None:
        """See ports.Probe."""
        while True:
            try:
                self.read()
            except GuestError:
                if HostClock().now().raw_ns + NS_PER_S > deadline_raw_ns:
                    raise
            else:
                return
