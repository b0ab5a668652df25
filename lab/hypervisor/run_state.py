"""Stops and resumes a guest in its process: QEMU's `stop` and `cont`, with the stamps that bound a pause.

An order is made, sent, and its answer is awaited. Many guests can be stopped, or resumed, at the same time:
their orders are all made first, then all sent, and then the answers are awaited. A guest without a monitor
for the controller is stopped and resumed by libvirt, which waits for QEMU.

From the stop to the resume, the threads of QEMU that obey come before all others on the host, and so does the
controller's own thread while it sends and waits, and the vCPUs while they stop, because each has to run once
more for that. On a host with more vCPUs than CPUs, an order would otherwise wait for their time slices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest

from lab.core.clock import Stamp
from lab.errors import HypervisorError
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.process import first_of_all
from lab.hypervisor.qmp import MonitorError, QmpSocket, status
from lab.ports import Call

_STOP_S = 5.0
"""Time limit for QEMU's answer to `stop`, which waits for the vCPUs and the disk; it takes milliseconds."""

_MOMENT_S = 0.1
"""How long the vCPUs come first, and the other guests wait, when QEMU does not answer."""

_STOPPED = ("paused", "postmigrate")
"""States that `cont` ends (QEMU, qapi/run-state.json); the second is that of a guest whose state was sent."""

_EVENT_WAIT_S = 0.25
"""How long to wait for QEMU's own stamp, which libvirt passes on, after its `returned` stamp. The event has
usually arrived by then, because QEMU emits it before it answers the command."""


OrderSteps = tuple[Callable[[], None], ...]
"""What sends an order, and what waits a moment for the answer; () for what cannot be ordered so."""


def send_all(orders: Iterable[OrderSteps]) -> None:
    """Send all of these orders, then wait for all answers. What fails is left to done(), which meets it
    again."""
    with first_of_all():
        for step in chain.from_iterable(zip_longest(*orders)):
            if step is not None:
                with contextlib.suppress(HypervisorError):
                    step()


class StopOrder:
    """One guest's `stop`. HypervisorError when there is no such guest, or it does not answer."""

    def __init__(self, context: LibvirtContext, guest: str) -> None:
        self._context, self._guest = context, guest
        self._domain = context.domains.find(guest)
        with contextlib.suppress(HypervisorError):
            context.process(guest)  # held open, so that state() notices its end before libvirt does
        self._control = context.control(guest)
        self._number: int | None = None  # None: not sent
        self._called = context.clock.now()
        self._returned: Stamp | None = None
        if isinstance(self._control, QmpSocket):
            context.come_first(guest, True)

    def send(self) -> None:
        """Send it, unless libvirt has to. HypervisorError when it cannot be sent."""
        if isinstance(self._control, QmpSocket):
            self._called = self._context.clock.now()
            self._number = self._sent(self._control)
            self._context.come_first(self._guest, True, vcpus=True)

    def wait(self) -> None:
        """Wait a moment for the answer."""
        if isinstance(self._control, QmpSocket) and self._number is not None:
            if self._control.wait(self._number, _MOMENT_S):
                self._returned = self._context.clock.now()
            self._context.come_first(self._guest, True)

    def _sent(self, control: QmpSocket) -> int:
        try:
            return control.send("stop")
        except MonitorError as error:
            raise self._failed(error) from error

    def _failed(self, error: MonitorError) -> HypervisorError:
        return HypervisorError(f"cannot be suspended: {error}", where=self._guest)

    def done(self) -> Call:
        """Wait until the guest is stopped; the order is sent if it was not. HypervisorError when that fails;
        the guest runs on then."""
        if self._number is None:
            with first_of_all():
                self.send()
                self.wait()
        if isinstance(self._control, QmpSocket) and self._number is not None:
            try:
                self._control.answer(self._number, _STOP_S)
            except MonitorError as error:
                self._context.come_first(self._guest, False)
                with contextlib.suppress(MonitorError):
                    self._control.send("cont")
                raise self._failed(error) from error
            returned = self._returned or self._context.clock.now()
            self._context.expect_state(self._guest, self._domain, "paused", self._called.real_ns)
            stop = self._control.event("STOP", self._called.real_ns)
            return Call(self._called, returned, stop.real_ns if stop is not None else None)
        return self._by_libvirt()

    def _by_libvirt(self) -> Call:
        context = self._context
        domain, uuid = context.domain(self._guest)
        called = context.clock.now()
        try:
            domain.suspend()
            returned = context.clock.now()
        except libvirt.libvirtError as error:
            with contextlib.suppress(libvirt.libvirtError):
                domain.resume()
            raise as_hypervisor_error(error, "cannot be suspended", self._guest) from error
        stamp = context.events.wait_qemu(uuid, "STOP", called.real_ns, _EVENT_WAIT_S)
        return Call(called, returned, stamp)


class ResumeOrder:
    """One guest's `cont`. A guest that runs is left alone."""

    def __init__(self, context: LibvirtContext, guest: str) -> None:
        self._context, self._guest = context, guest
        self._domain = context.domains.find(guest)
        self._control: QmpSocket | None = None
        self._number: int | None = None  # None: not sent
        self._stopped = False
        self._running, self._ran_ns = context.running(guest), 0
        self._called = context.clock.now()
        self._returned: Stamp | None = None
        with contextlib.suppress(HypervisorError, MonitorError):  # libvirt's resume finds out why
            control = context.control(guest)
            if isinstance(control, QmpSocket):
                self._look(control)

    def _look(self, control: QmpSocket) -> None:
        # To `cont` in a guest that runs, QEMU answers with the events of a stop and a resume that were none.
        control.drain()
        state = "paused" if control.last(("STOP", "RESUME")) == "STOP" else status(control)
        self._stopped = state in _STOPPED
        if self._stopped or state == "running":
            self._control = control

    def send(self) -> None:
        """Send it, unless the guest runs, or libvirt has to."""
        if self._control is None or not self._stopped:
            return
        self._called = self._context.clock.now()
        try:
            self._number = self._control.send("cont")
        except MonitorError:
            self._control = None  # libvirt's resume finds out why

    def wait(self) -> None:
        """Wait a moment for the answer."""
        if self._control is None or self._number is None:
            return
        if self._control.wait(self._number, _MOMENT_S):
            self._has_answered()

    def _has_answered(self) -> Stamp:
        if self._returned is None:
            self._ran_ns = self._running.so_far_ns() if self._running else 0
            self._returned = self._context.clock.now()
        return self._returned

    def done(self) -> Call:
        """Wait until the guest has been resumed; the order is sent if it was not. HypervisorError when it has
        ended."""
        if self._number is None:
            with first_of_all():
                self.send()
                self.wait()
        try:
            return self._done()
        finally:
            self._context.come_first(self._guest, False)

    def _done(self) -> Call:
        if self._control is not None and self._number is None:
            return Call(self._called, self._context.clock.now())
        if self._control is not None and self._number is not None:
            with contextlib.suppress(MonitorError):
                self._control.answer(self._number)
                returned = self._has_answered()
                self._context.expect_state(self._guest, self._domain, "running", self._called.real_ns)
                resume = self._control.event("RESUME", self._called.real_ns)
                stamp = resume.real_ns if resume is not None else None
                return Call(self._called, returned, stamp, self._ran_ns)
        return self._by_libvirt()

    def _by_libvirt(self) -> Call:
        context, guest = self._context, self._guest
        domain, uuid = context.domain(guest)
        called = context.clock.now()
        try:
            domain.resume()
            ran_ns = self._running.so_far_ns() if self._running else 0
            returned = context.clock.now()
        except libvirt.libvirtError as error:
            returned = context.clock.now()
            if is_code(error, "VIR_ERR_NO_DOMAIN"):
                raise context.died(guest) from error
            # libvirt refuses to resume a guest that runs or has ended, so the state decides.
            state = context.state(guest)
            if state in ("shut off", "crashed"):
                raise context.died(guest) from error
            if state != "running":
                raise as_hypervisor_error(error, "cannot be resumed", guest) from error
            return Call(called, returned)
        stamp = context.events.wait_qemu(uuid, "RESUME", called.real_ns, _EVENT_WAIT_S)
        return Call(called, returned, stamp, ran_ns)
