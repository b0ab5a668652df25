"""qemu-guest-agent in a guest: commands, and setting the guest's clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Any, TypeVar
from xml.etree import ElementTree as ET

from lab.core.clock import Stamp
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import AgentError, HypervisorError, Refused
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt, libvirt_qemu, mapped
from lab.ports import Call, Clock
from lab.process.pace import paced

_PING_S = 2
_FREEZE_S, _THAW_S = 10, 2
_SET_S = 10
"""Time limit in seconds: hwclock, which the agent runs, gives up after as long."""

CHANNEL = "org.qemu.guest_agent.0"
_CHANNEL = "add a virtio channel org.qemu.guest_agent.0 to its XML, and qemu-guest-agent to the guest"
_THAW = "its file systems are frozen; thaw them first: virsh domfsthaw DOMAIN"
_ALLOW = "let qemu-ga in the guest allow it (block-rpcs and allow-rpcs in qemu-ga.conf)"

_POLL_NS = 20 * NS_PER_MS

Answer = TypeVar("Answer")


def command(
    domain: Any, where: str, name: str, arguments: dict[str, Any] | None = None, timeout_s: int = 5
) -> Any:
    """Run one agent command and return its result. HypervisorError when the agent is not connected, does not
    answer within `timeout_s` seconds, or returns an error."""
    request: dict[str, Any] = {"execute": name}
    if arguments:
        request["arguments"] = arguments
    with mapped(f"the agent's {name} failed", where):
        answer = libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), round(paced(timeout_s)), 0)
    return json.loads(answer).get("return")


class SetBy(StrEnum):
    """The source to which the guest's clock is set.

    nanoseconds: the host's CLOCK_REALTIME, read right before the call; the time until the call reaches the
    guest remains as an error. seconds: only its whole seconds, as `virsh domtime --now` (libvirt,
    tools/virsh-domain.c, cmdDomTime). rtc: the guest's own RTC (libvirt's VIR_DOMAIN_TIME_SYNC).
    """

    NANOSECONDS = "nanoseconds"
    SECONDS = "seconds"
    RTC = "rtc"


def set_time(domain: Any, where: str, clock: Clock, by: SetBy = SetBy.NANOSECONDS) -> Call:
    """Set the guest's clock. HypervisorError when the agent is not connected, returns an error, or does not
    answer within _SET_S; the clock may have been set even then."""
    called: Stamp = clock.now()
    seconds, nanoseconds = divmod(called.real_ns, NS_PER_S)
    target = (
        {}
        if by is SetBy.RTC
        else {"seconds": seconds, "nseconds": nanoseconds if by is SetBy.NANOSECONDS else 0}
    )
    try:
        with _time_limit(domain, round(paced(_SET_S))):
            if by is SetBy.RTC:
                # libvirt ignores the time with this flag, but its binding requires one.
                domain.setTime({"seconds": 0, "nseconds": 0}, libvirt.VIR_DOMAIN_TIME_SYNC)
            else:
                domain.setTime(target, 0)
    except libvirt.libvirtError as error:
        # The clock may have been set: without hwclock, agents 10.0 and 11.1 set the clock and then return an
        # error (QEMU, qga/commands-posix.c, qmp_guest_set_time), or hang in it.
        raise _failed(
            error, "the agent's guest-set-time ended with an error", where, "guest-set-time"
        ) from error
    return Call(called, clock.now())


def ping(domain: Any, where: str, clock: Clock, *, plain: bool = False) -> Call:
    """Ping the agent. Returns when the call began and ended. plain: by a call that does not taint the domain.
    HypervisorError when the agent does not answer."""
    if plain:
        return get_time(domain, where, clock)[0]
    called = clock.now()
    command(domain, where, "guest-ping", timeout_s=_PING_S)
    return Call(called, clock.now())


def get_time(domain: Any, where: str, clock: Clock) -> tuple[Call, int]:
    """The guest's REALTIME by guest-get-time, in ns, and when the call began and ended. It does not taint the
    domain. HypervisorError when the agent does not answer, AgentError when it answers with an error.
    Refused when the domain has no channel for one."""
    try:
        with _time_limit(domain, round(paced(_PING_S))):
            called = clock.now()
            time = domain.getTime(0)
            call = Call(called, clock.now())
    except libvirt.libvirtError as error:
        raise _failed(error, "the agent's guest-get-time failed", where, "guest-get-time") from error
    return call, int(time["seconds"]) * NS_PER_S + int(time["nseconds"])


def socket(domain: Any, where: str) -> str:
    """The path of its channel's socket on this host; "" without a channel."""
    with mapped("its domain XML cannot be read", where):
        root = ET.fromstring(domain.XMLDesc(0))  # noqa: S314 - libvirt's own
    for channel in root.iterfind("devices/channel"):
        target, source = channel.find("target"), channel.find("source")
        if target is not None and target.get("name") == CHANNEL and source is not None:
            return source.get("path", "")
    return ""


def freeze_files(domain: Any, where: str, within_s: float) -> int:
    """Freeze the guest's file systems. Returns how many; 0 from an agent that has found none to freeze.
    HypervisorError when the agent fails, or does not answer within `within_s` seconds, at most 10; they may
    be frozen even then."""
    try:
        with _time_limit(domain, max(1, min(_FREEZE_S, round(within_s)))):
            return int(domain.fsFreeze())
    except libvirt.libvirtError as error:
        raise _failed(error, "the agent did not freeze", where, "guest-fsfreeze-freeze") from error


def thaw_files(domain: Any, where: str) -> int:
    """Thaw them. Returns how many were frozen. HypervisorError as for freeze_files."""
    try:
        with _time_limit(domain, _THAW_S):
            return int(domain.fsThaw())
    except libvirt.libvirtError as error:
        raise _failed(error, "the agent did not thaw", where, "guest-fsfreeze-thaw") from error


def _failed(error: Exception, what: str, where: str, name: str) -> HypervisorError:
    """libvirt's error of the agent's command `name`: Refused without a channel, AgentError for an answer that
    is an error. libvirt has no code for such an answer, but quotes the command (src/qemu/qemu_agent.c,
    qemuAgentCheckError)."""
    found = as_hypervisor_error(error, what, where)
    if is_code(error, "VIR_ERR_ARGUMENT_UNSUPPORTED"):
        return Refused(found.what, where=where, hint=_CHANNEL)
    hint = _THAW if "frozen" in found.what else _ALLOW
    return AgentError(found.what, where=where, hint=hint) if f"'{name}'" in found.what else found


def system(domain: Any, where: str) -> dict[str, str]:
    """What the agent says of the guest's operating system (virDomainGetGuestInfo, "os."), such as id and
    kernel-release; {} from an agent that does not know, or does not answer."""
    what = mapped("the agent's guest-get-osinfo failed", where)
    with suppress(HypervisorError), what, _time_limit(domain, _PING_S):
        found = domain.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_OS, 0)
        return {name.removeprefix("os."): str(value) for name, value in found.items()}
    return {}


@contextmanager
def _time_limit(domain: Any, seconds: int) -> Iterator[None]:
    """A context in which libvirt waits this long for an answer of the agent. Without a limit it waits for
    ever for one that hangs between its greeting and the command."""
    domain.agentSetResponseTimeout(seconds, 0)
    try:
        yield
    finally:
        with suppress(libvirt.libvirtError):  # libvirt's default, for whoever uses the agent next
            domain.agentSetResponseTimeout(libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)


def wait_ready(domain: Any, where: str, clock: Clock, deadline_raw_ns: int, *, plain: bool = False) -> None:
    """Wait until the agent answers a ping; errors as answered() has them. plain: see ping()."""
    answered(lambda: ping(domain, where, clock, plain=plain), clock, deadline_raw_ns)


def answered(ask: Callable[[], Answer], clock: Clock, deadline_raw_ns: int) -> Answer:
    """What `ask` returns, called again until the agent answers. HypervisorError, with the last error, at
    CLOCK_MONOTONIC_RAW `deadline_raw_ns`, and at once when that is Refused or AgentError."""
    while True:
        try:
            return ask()
        except HypervisorError as error:
            now = clock.now().raw_ns
            in_vain = isinstance(error, AgentError | Refused)
            if in_vain or now >= deadline_raw_ns or "no such guest" in error.what:
                raise
            clock.sleep_until(min(now + _POLL_NS, deadline_raw_ns))
