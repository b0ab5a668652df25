"""sigstop: stops the whole QEMU process by SIGSTOP, and continues it by SIGCONT."""

from __future__ import annotations

import contextlib

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError, Refused
from lab.hypervisor.context import LibvirtContext, Steps
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Continue
from lab.hypervisor.freeze.base import Nothing, charge
from lab.hypervisor.process import QemuProcess
from lab.ports import Call, Freezing, Frozen, Resumed

_STOP_NS = NS_PER_S
"""Time limit for the process to stop, which takes microseconds unless it hangs in the kernel."""


class Sigstop(Nothing):
    """Freeze by a signal to the whole QEMU process, which neither QEMU nor libvirt notices."""

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        super().__init__(context, guest, freezing)
        self._stopped: QemuProcess | None = None
        self._steps = Steps(context, guest)

    def prepare(self) -> None:
        """Refused when this user may not stop the guest's QEMU process."""
        process = self._context.process(self._guest)
        if not process.may_signal():
            who = process.owner()
            what = f"you may not stop its QEMU process, which runs as {who}"
            hint = f"run freezelab as root or as {who}, or use method suspend"
            raise Refused(what, where=self._guest, hint=hint)

    @property
    def monitor_ok(self) -> bool:  # type: ignore[override]
        return self._stopped is None

    @property
    def is_stopped(self) -> bool:  # type: ignore[override]
        return self._stopped is not None

    def stop(self, deadline_raw_ns: int) -> Frozen:  # noqa: ARG002 - Freeze's
        clock = self._context.clock
        process = self._context.process(self._guest)
        self._stopped = process  # before the signal, so that an interrupt continues it
        called = clock.now()
        try:
            self._order(process)
            stopped = self._wait(process, called.raw_ns + _STOP_NS)
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
                f"its QEMU process did not stop within {_STOP_NS / NS_PER_MS:g} ms", where=self._guest
            )
        return Frozen(Call(called, returned), self._steps.hand_out())

    def _order(self, process: QemuProcess) -> None:
        process.send_stop()

    def _wait(self, process: QemuProcess, deadline_raw_ns: int) -> bool:
        return process.wait_stopped(self._context.clock, deadline_raw_ns)

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
