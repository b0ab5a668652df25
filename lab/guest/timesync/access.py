"""How a time-sync set-up reaches its guest: SSH, the guest agent, the host's NTP server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.core.depth import Depth
from lab.guest.serial import SerialClockLine
from lab.guest.ssh import SSH
from lab.ports import Call, Clock


@dataclass(frozen=True)
class Agent:
    """The host's calls to the guest's agent. Each blocks until the agent has answered, and returns when it
    was called and when it returned. HypervisorError when the agent does not answer, or returns an error.

    ping: do nothing. set_time: set the clock to the host's, in nanoseconds. set_seconds: likewise in whole
    seconds, as `virsh domtime --now`. read_rtc: make the guest set its clock from its RTC
    (VIR_DOMAIN_TIME_SYNC). system: what it says of the guest's operating system, such as id and pretty-name;
    {} from one that does not know, and for guests of the lab.
    """

    ping: Callable[[], Call]
    set_time: Callable[[], Call]
    set_seconds: Callable[[], Call]
    read_rtc: Callable[[], Call]
    system: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True)
class GuestAccess:
    """Access to one guest. guest: its name. ssh: returns a connection, re-established if it was lost; used
    only by the caller's thread, and never closed. server, port: the host's NTP server as the guest sees it;
    "" without one. agent: None when the host has no channel to the agent. rtc_stops: whether the guest's RTC
    stops with the guest. push_sockets: see PushPort. clock_line: see GuestProbe. untouched: nothing was
    installed in it since it began. own: it is the user's own, and nothing may be left different in it.
    is_root: commands in it are root's. foreign: it is of an imported image, and may start time daemons by
    itself. depth: what looks into it; without Python its clock is set by a shell, and with AGENT nothing is
    run in it.
    """

    guest: str
    ssh: Callable[[], SSH]
    clock: Clock
    server: str = ""
    port: int = 0
    agent: Agent | None = None
    rtc_stops: bool = False
    push_sockets: Callable[[], tuple[Path, ...]] = tuple
    clock_line: Callable[[], SerialClockLine | None] = lambda: None
    untouched: bool = False
    own: bool = False
    is_root: bool = True
    foreign: bool = False
    depth: Depth = Depth.PYTHON

    @property
    def where(self) -> str:
        return f"guest {self.guest}"
