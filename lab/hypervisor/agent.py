"""qemu-guest-agent in a guest: commands, and setting the guest's clock."""

from __future__ import annotations

import json
from typing import Any

from lab.core.clock import Stamp
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor.binding import as_hypervisor_error, libvirt, libvirt_qemu, mapped
from lab.ports import Call, Clock

_PING_S = 2
_POLL_NS = 20 * NS_PER_MS


def command(
    domain: Any, where: str, name: str, arguments: dict[str, Any] | None = None, timeout_s: int = 5
) -> Any:
    """Run one agent command and return what it returns. HypervisorError when the agent is not
    connected, does not answer within `timeout_s`, or refuses."""
    request: dict[str, Any] = {"execute": name}
    if arguments:
        request["arguments"] = arguments
    with mapped(f"the agent's {name} failed", where):
        answer = libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), timeout_s, 0)
    return json.loads(answer).get("return")


def set_time(domain: Any, where: str, clock: Clock) -> Call:
    """Set the guest's clock to the host's CLOCK_REALTIME, read right before the call, in nanoseconds.
    What the call itself takes to reach the guest is the error it leaves: the guest ends behind."""
    called: Stamp = clock.now()
    seconds, nanoseconds = divmod(called.real_ns, NS_PER_S)
    try:
        domain.setTime({"seconds": seconds, "nseconds": nanoseconds}, 0)
    except libvirt.libvirtError as error:
        raise as_hypervisor_error(error, "the agent did not set the time", where) from error
    return Call(called, clock.now())


def wait_ready(domain: Any, where: str, clock: Clock, deadline_raw_ns: int) -> None:
    """Return when the agent answers. HypervisorError, with its last answer, at the deadline."""
    while True:
        try:
            command(domain, where, "guest-ping", timeout_s=_PING_S)
        except HypervisorError as error:
            now = clock.now().raw_ns
            if now >= deadline_raw_ns or "no such guest" in error.what:
                raise
            clock.sleep_until(min(now + _POLL_NS, deadline_raw_ns))
        else:
            return
