"""reboot: no freeze. The guest powers itself off; the adapter starts it again."""

from __future__ import annotations

from lab.errors import HypervisorError
from lab.hypervisor.binding import mapped
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.domains import state_of
from lab.ports import Call


def shut_down(context: LibvirtContext, guest: str, deadline_raw_ns: int) -> Call:
    """Make the guest power itself off. HypervisorError when it has not by CLOCK_MONOTONIC_RAW
    `deadline_raw_ns`; it may still do so later."""
    domain, uuid = context.domain(guest)
    called = context.clock.now()
    if context.last_end(uuid) is not None or state_of(domain) == "shut off":
        return Call(called, called)
    start = len(context.events.lifecycle(uuid))
    with mapped("cannot be shut down", guest):
        domain.shutdown()
    left_s = context.left_s(deadline_raw_ns)
    if context.events.wait_lifecycle(uuid, lambda e: e.ends_guest, left_s, start) is None:
        raise HypervisorError("did not power itself off in time", where=guest)
    context.forget(guest)
    return Call(called, context.clock.now())
