"""A frozen guest's QEMU process as the dead-man has it: held by a pidfd, with a monitor of its own."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from lab.core.clock import Stamp
from lab.hypervisor.process import QemuProcess
from lab.hypervisor.qmp import Monitor, MonitorError, QmpSocket, leave_migration, status
from lab.process.clock import HostClock

TRY_S = 10.0
"""How long the resume of one guest is tried, in seconds."""
_PAUSE_S = 0.02

now = HostClock().now


@dataclass(frozen=True)
class Rescued:
    """The result of a rescue. act: "resumed", "running" (the guest ran already), "ended" (its process is
    gone, and nothing is left to resume), or "failed". called, returned: stamps around the call that resumed
    it. event_real_ns: QEMU's own stamp of the resume. text: what was done, or the error. final: a failure
    after which nothing is left to try."""

    act: str
    text: str = ""
    called: Stamp | None = None
    returned: Stamp | None = None
    event_real_ns: int | None = None
    final: bool = False


@dataclass(frozen=True)
class MonitorAddress:
    """The address of a QEMU process's monitor: the Unix socket of the lab's own monitor or, for a daemon's
    guests, libvirt at `uri` with the domain's uuid. own: see OwnMonitor."""

    socket: str = ""
    uri: str = ""
    uuid: str = ""
    own: bool = False

    def open(self, pid: int) -> Monitor:
        """Connect to the monitor. pid: the QEMU process's. MonitorError when it cannot be reached."""
        if self.socket:
            return QmpSocket(self.socket)
        from lab.hypervisor.deadman import libvirt_monitor as monitors

        try:
            return (monitors.OwnMonitor if self.own else monitors.LibvirtMonitor)(self.uri, self.uuid)
        except MonitorError:
            with contextlib.suppress(MonitorError):
                return monitors.OrphanedMonitor(pid)
            raise


class Process:
    """A QEMU process and its monitor. monitor: reopened after it was lost."""

    def __init__(self, pid: int, pidfd: int, address: MonitorAddress) -> None:
        self.process, self._address = QemuProcess(pid, pidfd), address
        self._monitor: Monitor | None = None

    @property
    def monitor(self) -> Monitor:
        if self._monitor is None:
            self._monitor = self._address.open(self.process.pid)
        return self._monitor

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def has_resumed(self) -> bool:
        """Whether it is known to have sent a RESUME event."""
        if isinstance(self._monitor, QmpSocket):
            self._monitor.drain()
            return self._monitor.resumed_real_ns is not None
        return False

    def execute(self, command: str) -> Any:
        try:
            return self.monitor.execute(command)
        except MonitorError:
            self.close_monitor()
            raise

    def runs(self) -> bool:
        """Whether its vCPUs run. MonitorError when QEMU does not answer."""
        if self.process.is_stopped():
            return False
        try:
            return status(self.monitor) == "running"
        except MonitorError:
            self.close_monitor()
            raise

    def let_run(self, what: str, *, leaving: bool = False) -> Rescued:
        """Resume it from any state: stopped by a signal, suspended, in a migration, asleep."""
        end = time.monotonic() + TRY_S
        why = "QEMU did not resume it"
        tried = False
        while time.monotonic() < end:
            if not self.alive:
                return Rescued("ended", "its QEMU process has ended")
            called = now()
            with contextlib.suppress(ProcessLookupError):
                if self.process.is_stopped():
                    tried = True
                    self.process.send_continue()
            try:
                if leaving:  # its migration may be about to stop it
                    leave_migration(self.monitor)
                found = status(self.monitor)
                if found == "running":
                    return self._resumed(what, called) if tried else Rescued("running")
                leave_migration(self.monitor)
                called, tried = now(), True
                self.execute("system_wakeup" if found == "suspended" else "cont")
                why = f"QEMU says: {found}"
            except MonitorError as error:
                why = str(error)
                self.close_monitor()
            if not self._wait_running(0.5):
                time.sleep(_PAUSE_S)
                continue
            return self._resumed(what, called)
        return Rescued("failed", why)

    def _wait_running(self, wait_s: float) -> bool:
        end = time.monotonic() + wait_s
        while time.monotonic() < end and self.alive:
            try:
                if self.runs():
                    return True
            except MonitorError:
                return False
            time.sleep(0.002)
        return False

    def _resumed(self, what: str, called: Stamp) -> Rescued:
        stamp = self._monitor.resumed_real_ns if isinstance(self._monitor, QmpSocket) else None
        if stamp is not None and stamp < called.real_ns - 1000:
            stamp = None
        return Rescued("resumed", what, called, now(), stamp)

    def close_monitor(self) -> None:
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.close()

    def close(self) -> None:
        self.close_monitor()
        self.process.close()
