"""suspend: libvirt's suspend, which is QEMU's `stop`, and libvirt's resume."""

from __future__ import annotations

from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Continue
from lab.hypervisor.freeze.base import Nothing, charge
from lab.ports import Frozen, Resumed


class Suspend(Nothing):
    """libvirt's suspend: QEMU stops the vCPUs and the guest's clocks."""

    def stop(self, deadline_raw_ns: int) -> Frozen:  # noqa: ARG002 - Freeze's
        return Frozen(self._context.suspend(self._guest))

    def resume(self) -> Resumed:
        return Resumed(self._context.let_run(self._guest))

    def charge(self) -> Charge | None:
        return charge(Continue, self._context, self._guest)
