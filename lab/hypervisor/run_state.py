"""Stops and resumes a guest in its process: QEMU's `stop` and `cont`, with the stamps that bound a pause.

An order is sent when it is made, and its answer is awaited by done(). So many guests can be stopped, or
resumed, at the same time: their orders are all sent before the first answer is awaited. A guest without a
monitor for the controller is stopped and resumed by libvirt, which waits for QEMU.
"""

from __future__ import annotations

import contextlib

from lab.errors import HypervisorError
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.qmp import MonitorError, QmpSocket, status
from lab.ports import Call

_STOP_S = 5.0
"""Time limit for QEMU's answer to `stop`, which waits for the vCPUs and the disk; it takes milliseconds."""

_STOPPED = ("paused", "postmigrate")
"""States that `cont` ends (QEMU, qapi/run-state.json); the second is that of a guest whose state was sent."""

_EVENT_WAIT_S = 0.25
"""How long to wait for QEMU's own stamp, which libvirt passes on, after its `returned` stamp. The event has
usually arrived by then, because QEMU emits it before it answers the command."""


class StopOrder:
    """One guest's `stop`, which is sent when this object is made. HypervisorError when it cannot be sent."""

    def __init__(self, context: LibvirtContext, guest: str) -> None:
        self._context, self._guest = context, guest
        self._domain = context.domains.find(guest)
        with contextlib.suppress(HypervisorError):
            context.process(guest)  # held open, so that state() notices its end before libvirt does
        self._control = context.control(guest)
        self._number = -1
        self._called = context.clock.now()
        if isinstance(self._control, QmpSocket):
            self._number = self._sent(self._control)

    def _sent(self, control: QmpSocket) -> int:
        try:
            return control.send("stop")
        except MonitorError as error:
            raise self._failed(error) from error

    def _failed(self, error: MonitorError) -> HypervisorError:
        return HypervisorError(f"cannot be suspended: {error}", where=self._guest)

    def done(self) -> Call:
        """Wait until the guest is stopped. HypervisorError when that fails; the guest runs on then."""
        if isinstance(self._control, QmpSocket):
            try:
                self._control.answer(self._number, _STOP_S)
            except MonitorError as error:
                with contextlib.suppress(MonitorError):
                    self._control.send("cont")
                raise self._failed(error) from error
            returned = self._context.clock.now()
            self._context.expect_state(self._guest, self._domain, "paused")
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
    """One guest's `cont`, which is sent when this object is made. A guest that runs is left alone."""

    def __init__(self, context: LibvirtContext, guest: str) -> None:
        self._context, self._guest = context, guest
        self._domain = context.domains.find(guest)
        self._control: QmpSocket | None = None
        self._number: int | None = None  # None: it runs already
        self._running = context.running(guest)
        self._called = context.clock.now()
        with contextlib.suppress(HypervisorError, MonitorError):  # libvirt's resume finds out why
            control = context.control(guest)
            if isinstance(control, QmpSocket):
                self._send(control)

    def _send(self, control: QmpSocket) -> None:
        # To `cont` in a guest that runs, QEMU answers with the events of a stop and a resume that were none.
        control.drain()
        state = "paused" if control.last(("STOP", "RESUME")) == "STOP" else status(control)
        if state in _STOPPED:
            self._called = self._context.clock.now()
            self._number = control.send("cont")
        if state in (*_STOPPED, "running"):
            self._control = control

    def done(self) -> Call:
        """Wait until the guest has been resumed. HypervisorError when it has ended."""
        if self._control is not None and self._number is None:
            return Call(self._called, self._context.clock.now())
        if self._control is not None and self._number is not None:
            with contextlib.suppress(MonitorError):
                self._control.answer(self._number)
                ran_ns = self._running.so_far_ns() if self._running else 0
                returned = self._context.clock.now()
                self._context.expect_state(self._guest, self._domain, "running")
                resume = self._control.event("RESUME", self._called.real_ns)
                return Call(self._called, returned, resume.real_ns if resume is not None else None, ran_ns)
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
