"""Time-sync set-ups inside a guest, by name: install() returns a ports.Resync, whose remove() uninstalls it.

none agent agent-rtc domtime-now hwclock push    act from the host, on the resume: host_actions.py, push.py
chrony… timesyncd ntpd openntpd phc2sys …        programs of the distribution: daemon.py, services.py
vmclock timesyncd-resync                         one of these, told to poll: vmclock.py, timesyncd_resync.py

Setup.status, by mechanism (all texts; `services` has those of the programs):

agent, domtime-now   round_trip_ns: of a ping through the agent; `silent` instead when it did not answer
agent-rtc, hwclock   round_trip_ns
these, chrony-rtc    rtc_minus_real_ns, rtc_bound_ns: the guest's RTC less its REALTIME, which had just been
                     set to the host's, when this was installed
agent, domtime-now   windows: its name, where the agent says that the guest is one
push                 push_bound_ns: half the width of one reading of the offset; push_channel: PUSH_SERIAL or
                     PUSH_SSH
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from lab.core.depth import Depth
from lab.core.mechanism import Means, PtpClock, ResyncMechanism
from lab.core.timesync_setup import WINDOWS
from lab.errors import FreezelabError, Refused
from lab.guest.ssh import SSH
from lab.guest.timesync import push, services, shell_setting
from lab.guest.timesync.access import Agent, GuestAccess
from lab.guest.timesync.daemon import CLEAN, START_S, STOP_OWN, DaemonResync
from lab.guest.timesync.host_actions import AgentResync, HwclockResync, NoResync, WindowsResync
from lab.guest.timesync.push import PushResync
from lab.guest.timesync.put_back import PutBack, check_daemon
from lab.guest.timesync.setter import setter
from lab.guest.timesync.timesyncd_resync import TimesyncdResync
from lab.guest.timesync.vmclock import VmclockResync
from lab.ports import Resync

T = TypeVar("T", bound=Resync)

__all__ = ["Agent", "GuestAccess", "install"]


_KINDS: dict[Means, type[DaemonResync]] = {
    Means.VMCLOCK: VmclockResync,
    Means.TIMESYNCD_RESYNC: TimesyncdResync,
}


def install(mechanism: ResyncMechanism, access: GuestAccess, *, config: str | None = None) -> Resync:
    """Install the mechanism in the guest, in place of any other, in the state that it reaches after running
    for long. The guest's clock is first set to the host's, within the bound of some readings.

    config: a configuration instead of the lab's own. Refused, with the reason, when this guest or host does
    not support the mechanism; GuestError, with its own message, when it does not work. The guest has no
    mechanism then.
    """
    if mechanism.is_of_windows:
        return _of_windows(mechanism, access)
    if mechanism.uses_ntp and not access.server:
        raise Refused("the host's NTP server cannot be reached from this guest", where=access.where)
    if access.depth is Depth.AGENT and not (mechanism.uses_agent or not mechanism.repairs):
        raise Refused(f"{mechanism} needs SSH", where=access.where)
    if access.own or access.depth is Depth.AGENT:
        return _in_own(mechanism, access)
    if not access.untouched:
        access.ssh().check(CLEAN, START_S)
    elif access.foreign:
        access.ssh().check(STOP_OWN, START_S)
    if mechanism.means.needs_python and access.depth is Depth.SHELL:
        raise Refused(f"{mechanism} needs python3", where=access.where)
    if mechanism.means is Means.PUSH:
        return _or_nothing(pushed := PushResync(access), pushed.install)
    with setter(access) as line:
        if access.depth is Depth.SHELL:
            shell_setting.set_clock(line)
        else:
            push.set_clock(line)
        rtc = push.rtc_minus_real(line) if mechanism.reads_rtc else None
    if not mechanism.repairs:
        return NoResync()
    if mechanism.uses_agent:
        return AgentResync(mechanism, access).install(rtc)
    if mechanism.means is Means.HWCLOCK:
        return _or_nothing(hwclock := HwclockResync(access), lambda: hwclock.install(rtc))
    device = _ptp_device(access.ssh(), mechanism.traits.ptp) if mechanism.traits.ptp else ""
    behind_ns = -rtc.mid_ns if rtc is not None else 0
    text = config if config is not None else mechanism.config(access.server, access.port, device, behind_ns)
    programs = services.DAEMONS[mechanism.means](mechanism, access.server, access.port)
    daemon = _KINDS.get(mechanism.means, DaemonResync)(mechanism, programs, access)
    daemon.check()
    return _or_nothing(daemon, lambda: daemon.install(text, rtc))


def _in_own(mechanism: ResyncMechanism, access: GuestAccess) -> Resync:
    """Install it in a guest of the user's own, or in one that has the agent alone. With none, and with those
    of the agent, the guest's own time services go on, and nothing sets the clock before. Any other takes
    their place until it is removed."""
    if not mechanism.repairs:
        return NoResync()
    if mechanism.uses_agent:
        return AgentResync(mechanism, access).install(None)
    if not access.is_root:
        what = f"{mechanism} needs root in the guest, and sudo asks for a password"
        raise Refused(what, where=access.where, hint="log in as root, or allow sudo without one")
    if mechanism.is_daemon:
        program = services.DAEMONS[mechanism.means](mechanism, access.server, access.port)[0]
        if mechanism.uses_ntp and mechanism.means not in (Means.CHRONYD, Means.VMCLOCK):
            what = f"{mechanism} asks port 123 of its server, and only the lab's image asks another"
            raise Refused(what, where=access.where, hint="use resync chrony")
        check_daemon(program, access)
    kept = PutBack(access)
    kept.set_aside()
    return _or_nothing(kept, lambda: setattr(kept, "inner", install(mechanism, replace(access, own=False))))


def _of_windows(mechanism: ResyncMechanism, access: GuestAccess) -> Resync:
    """The service of a Windows, which goes on as it is. Refused when the agent names another system, or the
    guest is the lab's."""
    if not access.own:
        raise Refused(
            f"{mechanism} is a part of Windows, and this is a guest of the lab's", where=access.where
        )
    system = access.agent.system() if access.agent is not None else {}
    name = system.get("pretty-name") or system.get("name", "")
    if system.get("id", WINDOWS) != WINDOWS:
        what = f"{mechanism} is a part of Windows, and the agent says that this is {name or system['id']}"
        raise Refused(what, where=access.where)
    return WindowsResync(mechanism, name)


def _ptp_device(ssh: SSH, clock: PtpClock) -> str:
    """The path of the guest's PTP device for a clock of the host (ptp_kvm's). Refused, with the
    guest's own message, when it has none."""
    where = f"guest {ssh.address.guest}"
    loaded = ssh.run(f"modprobe {clock.module}")
    found = ssh.run(f"grep -l '^{clock.name}' /sys/class/ptp/*/clock_name").out.split()
    if found:
        return f"/dev/{found[0].split('/')[-2]}"
    if loaded.status != 0:
        why = (loaded.err.strip().splitlines() or ["no message"])[-1]
        raise Refused(f"no {clock.module} in this guest: {why}", where=where, hint=clock.kernels)
    raise Refused(f"{clock.module} has no device in this guest", where=where)


def _or_nothing(made: T, act: Callable[[], object]) -> T:
    """Call `act` and return `made`; when `act` fails, `made` is removed first."""
    try:
        act()
    except BaseException:
        with suppress(FreezelabError):
            made.remove()
        raise
    return made
