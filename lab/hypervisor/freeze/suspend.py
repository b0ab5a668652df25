"""suspend: QEMU's `stop` and `cont`, as libvirt's suspend and resume give them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Continue
from lab.hypervisor.freeze.base import Nothing, charge
from lab.hypervisor.run_state import OrderSteps, ResumeOrder, StopOrder
from lab.ports import Freezing, Frozen, Resumed


class Suspend(Nothing):
    """QEMU stops the vCPUs and the guest's clocks."""

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        super().__init__(context, guest, freezing)
        self._lock = threading.RLock()  # the guard may resume it from another thread
        self._stop: StopOrder | None = None
        self._resume: ResumeOrder | None = None

    def prepare(self) -> None:
        self._context.control(self._guest)

    def begin_stop(self) -> OrderSteps:
        self._stop = order = StopOrder(self._context, self._guest)
        return order.send, order.wait

    def stop(self, deadline_raw_ns: int) -> Frozen:  # noqa: ARG002 - Freeze's
        order, self._stop = self._stop, None
        return Frozen((order or StopOrder(self._context, self._guest)).done())

    def begin_resume(self) -> OrderSteps:
        with self._lock:
            self._resume = order = ResumeOrder(self._context, self._guest)

        def unless_the_guard(step: Callable[[], None]) -> None:
            with self._lock:
                if self._resume is order:
                    step()

        return partial(unless_the_guard, order.send), partial(unless_the_guard, order.wait)

    def resume(self) -> Resumed:
        with self._lock:
            order, self._resume = self._resume, None
            return Resumed((order or ResumeOrder(self._context, self._guest)).done())

    def charge(self) -> Charge | None:
        return charge(Continue, self._context, self._guest)
