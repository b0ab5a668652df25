"""How a time-sync set-up reaches its guest: SSH, the guest agent, the host's NTP server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab.guest.ssh import SSH
from lab.ports import Call, Clock


@dataclass(frozen=True)
class Agent:
    """What the host can do through the guest's agent. Each blocks until the agent has answered, and gives
    back when it was called and when it returned. HypervisorError when the agent does not answer, or refuses.

    ping: nothing but that. set_time: set the clock to the host's, in nanoseconds. set_seconds: in whole
    seconds, as `virsh domtime --now`. read_rtc: have the guest set its clock from its RTC (libvirt's flag
    SYNC).
    """

    ping: Callable[[], Call]
    set_time: Callable[[], Call]
    set_seconds: Callable[[], Call]
    read_rtc: Callable[[], Call]


@dataclass(frozen=True)
class GuestAccess:
    """guest: its name. ssh: a connection to it, had again when it was lost; used by the caller's thread
    only, and never closed. server, port: the host's NTP server as the guest sees it; "" when there is none
    for it.
    agent: None when the host has no channel to one. rtc_stops: the guest's RTC stands still with it.
    """

    guest: str
    ssh: Callable[[], SSH]
    clock: Clock
    server: str = ""
    port: int = 0
    agent: Agent | None = None
    rtc_stops: bool = False

    @property
    def where(self) -> str:
        return f"guest {self.guest}"
