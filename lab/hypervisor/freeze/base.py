"""The interface of all freeze methods: an object for each guest and cycle, from prepare to finish.

    prepare   while the guest runs        raises an error with the reason, and then leaves nothing behind
    begin     the stop, or the resume     begin_stop and begin_resume, for many guests before any is ordered
    stop      the guest is stopped        or was rolled back to running, with the reason
    resume    the guest runs again        may be called repeatedly, from any thread
    finish    after the watch             ends what is left over

Each method is a module of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import ResumePlan
from lab.hypervisor.run_state import OrderSteps
from lab.ports import Call, Freezing, Frozen, Resumed


class Freeze(Protocol):
    """One guest's freeze."""

    @property
    def monitor_ok(self) -> bool:
        """Whether QEMU's monitor answers; it does not while its process is stopped."""

    @property
    def is_stopped(self) -> bool:
        """Whether the guest is stopped in a way that libvirt does not report as paused."""

    @property
    def settled(self) -> bool:
        """Whether, after a resume or roll-back, the freeze can no longer stop the guest."""

    def prepare(self) -> None: ...

    def begin_stop(self) -> OrderSteps:
        """Do what comes before the stop. The result is for send_all(); stop() then does the rest."""

    def begin_resume(self) -> OrderSteps:
        """Do what comes before the resume. The result is for send_all(); resume() then does the rest."""

    def stop(self, deadline_raw_ns: int) -> Frozen: ...

    def resume(self) -> Resumed: ...

    def finish(self) -> None: ...

    def abandon(self) -> None:
        """Like finish, for a guest that is being ended in any state; nothing of it is kept."""

    def charge(self) -> Charge | None:
        """The dead-man's data to resume the guest; None when the guest will not be stopped. Called after
        prepare."""


class OneByOne:
    """A freeze whose stop and resume cannot be ordered without waiting."""

    def begin_stop(self) -> OrderSteps:
        return ()

    def begin_resume(self) -> OrderSteps:
        return ()


class Nothing(OneByOne):
    """The freeze of a control cycle, which leaves the guest running."""

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
    """The dead-man's data for a guest: its process, its monitor, and the fields of this way to freeze."""
    process = context.process(guest)
    rescue = way(guest, process.pid, context.monitor(guest), **more)
    return Charge(rescue, (process.pidfd, *files))
