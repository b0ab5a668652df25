"""What all ways to freeze a guest have in common: an object for each guest and cycle, from prepare to finish.

    prepare   while the guest runs        refuses with a reason, and then leaves nothing behind
    stop      the guest stands still      or was put back to running, with the reason
    resume    it runs again               however often it is asked; from any thread
    finish    after the watch             ends what is left over

Each method is a module of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import ResumePlan
from lab.ports import Call, Freezing, Frozen, Resumed


class Freeze(Protocol):
    """One guest's freeze."""

    @property
    def monitor_ok(self) -> bool:
        """QEMU can be spoken to. Not when its process is stopped."""

    @property
    def is_stopped(self) -> bool:
        """The guest stands still in a way that libvirt does not call paused."""

    @property
    def settled(self) -> bool:
        """Once it was resumed or called off: the guest cannot come to stand still by it any more."""

    def prepare(self) -> None: ...

    def stop(self, deadline_raw_ns: int) -> Frozen: ...

    def resume(self) -> Resumed: ...

    def finish(self) -> None: ...

    def abandon(self) -> None:
        """As finish, for a guest that is ended whatever it is in: nothing of it is kept."""

    def charge(self) -> Charge | None:
        """How the dead-man has the guest run again; None when it is not going to stand still. Asked once it
        is prepared."""


class Nothing:
    """A control cycle: the guest runs on."""

    monitor_ok = True
    is_stopped = False
    settled = True

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing

    def prepare(self) -> None:
        return None

    def stop(self, deadline_raw_ns: int) -> Frozen:  # noqa: ARG002 - Freeze's
        return Frozen(self._mark())

    def resume(self) -> Resumed:
        return Resumed(self._mark())

    def finish(self) -> None:
        return None

    def abandon(self) -> None:
        self.finish()

    def charge(self) -> Charge | None:
        return None

    def _mark(self) -> Call:
        self._context.domain(self._guest)
        return Call(self._context.clock.now(), self._context.clock.now())


def charge(way: type[ResumePlan], context: LibvirtContext, guest: str, *files: int, **more: Any) -> Charge:
    """What the dead-man needs for a guest: its process, its monitor, and what this way to freeze adds."""
    process = context.process(guest)
    rescue = way(guest, process.pid, context.monitor(guest), **more)
    return Charge(rescue, (process.pidfd, *files))
