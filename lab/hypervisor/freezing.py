"""The ways to freeze a guest, as objects: one for each guest and cycle, from prepare to finish.

    prepare   while the guest runs        refuses with a reason, and then leaves nothing behind
    stop      the guest stands still      or was put back to running, with the reason
    resume    it runs again               however often it is asked; from any thread
    finish    after the watch             ends what is left over

Here are the two that only stop and continue; saving, sleeping and exchange are modules of their own.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Continue, ResumePlan
from lab.hypervisor.process import QemuProcess
from lab.ports import Call, Frozen, Resumed

_SIGSTOP_WAIT_NS = NS_PER_S


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

    def __init__(self, context: LibvirtContext, guest: str) -> None:
        self._context, self._guest = context, guest

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


class Suspend(Nothing):
    """libvirt's suspend: QEMU stops the vCPUs and the guest's clocks."""

    def stop(self, deadline_raw_ns: int) -> Frozen:  # noqa: ARG002 - Freeze's
        return Frozen(self._context.suspend(self._guest))

    def resume(self) -> Resumed:
        return Resumed(self._context.let_run(self._guest))

    def charge(self) -> Charge | None:
        return charge(Continue, self._context, self._guest)


def charge(way: type[ResumePlan], context: LibvirtContext, guest: str, *files: int, **more: Any) -> Charge:
    """What the dead-man needs for a guest: its process, its monitor, and what this way to freeze adds."""
    process = context.process(guest)
    rescue = way(guest, process.pid, context.monitor(guest), **more)
    return Charge(rescue, (process.pidfd, *files))


class Sigstop(Nothing):
    """The whole QEMU process stopped by a signal, which neither QEMU nor libvirt notices."""

    def __init__(self, context: LibvirtContext, guest: str) -> None:
        super().__init__(context, guest)
        self._stopped: QemuProcess | None = None

    @property
    def monitor_ok(self) -> bool:  # type: ignore[override]
        return self._stopped is None

    @property
    def is_stopped(self) -> bool:  # type: ignore[override]
        return self._stopped is not None

    def stop(self, deadline_raw_ns: int) -> Frozen:  # noqa: ARG002 - Freeze's
        clock = self._context.clock
        process = self._context.process(self._guest)
        self._stopped = process  # before the signal: an interrupt must find it among those to continue
        called = clock.now()
        try:
            process.send_stop()
            stopped = process.wait_stopped(clock, called.raw_ns + _SIGSTOP_WAIT_NS)
            returned = clock.now()
        except ProcessLookupError as error:
            self._stopped = None
            raise self._context.died(self._guest) from error
        except PermissionError as error:
            self._stopped = None
            raise HypervisorError("not allowed to stop its QEMU process", where=self._guest) from error
        if not stopped:
            with contextlib.suppress(ProcessLookupError):
                process.send_continue()
            self._stopped = None
            raise HypervisorError(
                f"its QEMU process did not stop within {_SIGSTOP_WAIT_NS / NS_PER_MS:g} ms", where=self._guest
            )
        return Frozen(Call(called, returned))

    def charge(self) -> Charge | None:
        return charge(Continue, self._context, self._guest)

    def resume(self) -> Resumed:
        process = self._stopped or self._context.process(self._guest)
        called = self._context.clock.now()
        try:
            process.send_continue()
            returned = self._context.clock.now()
        except ProcessLookupError as error:
            raise self._context.died(self._guest) from error
        if not process.alive:
            raise self._context.died(self._guest)
        self._stopped = None
        return Resumed(Call(called, returned))
