"""Resumes a frozen guest without its controller; one class for each way to freeze.

The controller describes a rescue (a frozen dataclass, sent as JSON with its descriptors), and the dead-man
opens it before the freeze, which is refused if a monitor cannot be reached. The rescue queries the state from
QEMU and the kernel when it acts, because the controller may have been stopped between any two of its steps.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from lab.errors import HypervisorError
from lab.hypervisor.deadman.channel import Token
from lab.hypervisor.deadman.guest_process import TRY_S as TRY_S
from lab.hypervisor.deadman.guest_process import MonitorAddress as MonitorAddress
from lab.hypervisor.deadman.guest_process import Process
from lab.hypervisor.deadman.guest_process import Rescued as Rescued
from lab.hypervisor.deadman.guest_process import now as now
from lab.hypervisor.migration import is_over, is_post_copy, was_taken_back
from lab.hypervisor.process import QemuProcess
from lab.hypervisor.qmp import NEVER_RAN, MonitorError, migration_status, status, take_port

_END_S = 5.0
_PAUSE_S = 0.01
REST_S = 60.0
"""How long the rest of a guest's memory may take in post-copy, in seconds, before its old process is left
alone."""


@dataclass(frozen=True)
class ResumePlan:
    """How to resume one guest after a way to freeze. pid, monitor: of its process before the freeze."""

    guest: str
    pid: int
    monitor: MonitorAddress
    needs_libvirt: ClassVar[bool] = False
    """Whether the rescue is possible only after the controller has ended and released libvirt."""

    lingers: ClassVar[bool] = False
    """Whether an action of the controller may stop the guest after the controller's end."""

    def open(self, files: list[int]) -> Opened:
        return Opened(self, [Process(self.pid, files[0], self.monitor)])

    def rescue(self, opened: Opened) -> Rescued:
        """Resume the guest. MonitorError, HypervisorError or OSError when that fails."""
        raise NotImplementedError

    def holder(self, opened: Opened) -> Process:
        """The process in which the guest is after its rescue."""
        return opened.process


@dataclass(frozen=True)
class Continue(ResumePlan):
    """For a guest in its own process: suspended by QEMU's `stop`, stopped by a signal, frozen in a cgroup of
    the lab's, or asleep."""

    def rescue(self, opened: Opened) -> Rescued:
        return opened.process.let_run("it was resumed")


@dataclass(frozen=True)
class Wake(Continue):
    """For a guest that was asked to suspend itself to RAM, and may still be falling asleep."""

    lingers: ClassVar[bool] = True


@dataclass(frozen=True)
class HandOver(ResumePlan):
    """in-place: there are two processes, one of which may run. The first to take the token (channel.Token)
    decides which. port: on 127.0.0.1, which the successor's user-mode network takes over; 0: none."""

    successor_pid: int = 0
    successor: MonitorAddress = field(default_factory=MonitorAddress)
    port: int = 0

    def open(self, files: list[int]) -> Opened:
        old, new, token = files
        return Opened(
            self,
            [Process(self.pid, old, self.monitor), Process(self.successor_pid, new, self.successor)],
            Token(token),
        )

    def rescue(self, opened: Opened) -> Rescued:
        old, new = opened.processes
        if opened.token.take():
            # The controller has not told the successor to run, and no longer can.
            with contextlib.suppress(HypervisorError):
                new.process.kill(_END_S)
            what = "its hand-over was called off: it was put back to the old process"
            return old.let_run(what, leaving=True)
        # QEMU may forget a `cont` at the very end of a hand-over. So let_run checks, and sends it again.
        rescued = new.let_run("its successor was resumed")
        if rescued.act == "ended" and not new.has_resumed:
            return old.let_run("its successor ended before it ran: it was put back to the old process")
        if rescued.act in ("resumed", "running"):
            self._retire(old, new)
        return rescued

    def _retire(self, old: Process, new: Process) -> None:
        """End the old process, and let the new one have the port."""
        with contextlib.suppress(HypervisorError):
            old.process.kill(_END_S)
        if self.port:
            with contextlib.suppress(MonitorError):
                take_port(new.monitor.execute, self.port)

    def holder(self, opened: Opened) -> Process:
        old, new = opened.processes
        return old if opened.token.take() or not new.alive else new


@dataclass(frozen=True)
class Migration(HandOver):
    """live-migrate. As a hand-over, but a controller that has taken the token may have begun post-copy. Once
    QEMU has switched to it, the guest goes on in its successor and needs its old process for the rest of its
    memory. Before that it is put back, and if its successor ends before it has the devices' state, QEMU 10.2
    and later take it back."""

    def rescue(self, opened: Opened) -> Rescued:
        old, new = opened.processes
        if opened.token.take() or not old.alive:
            return super().rescue(opened)
        if (found := migration_status(old.monitor)) == "completed":
            return super().rescue(opened)
        if not is_post_copy(found):
            with contextlib.suppress(HypervisorError):
                new.process.kill(_END_S)
            return old.let_run("its migration was called off: it stayed where it was", leaving=True)
        rescued = self._go_on(new)
        if rescued.act in ("resumed", "running") and _await_end(old):
            self._retire(old, new)
        if rescued.act == "ended" and was_taken_back(lambda: migration_status(old.monitor), _END_S):
            return old.let_run("its successor ended before it had the guest, which stayed where it was")
        return rescued

    def _go_on(self, new: Process) -> Rescued:
        """Let the successor run as soon as it has the devices' state."""
        end, called = time.monotonic() + TRY_S, None
        while time.monotonic() < end:
            if not new.alive:
                return Rescued("ended", "its successor has ended in post-copy")
            with contextlib.suppress(MonitorError):
                found = status(new.monitor)
                if found == "running":
                    if called is None:
                        return Rescued("running")
                    return Rescued("resumed", "its successor was resumed, in post-copy", called, now())
                if found in NEVER_RAN and found != "inmigrate":
                    called = now()
                    new.monitor.execute("cont")
            time.sleep(_PAUSE_S)
        return Rescued("failed", "its successor does not run, in post-copy")


def _await_end(process: Process) -> bool:
    """Wait until its migration is over. Returns whether it is."""
    end = time.monotonic() + REST_S
    while time.monotonic() < end and process.alive:
        with contextlib.suppress(MonitorError):
            if is_over(migration_status(process.monitor)):
                return True
        time.sleep(_PAUSE_S)
    return not process.alive


@dataclass(frozen=True)
class Restore(ResumePlan):
    """save-restore: the guest is in its process while that exists, and in the file afterwards. path: the
    file. home: the lab's state folder, whose embedded driver restores the guest, or uri: the libvirt that
    does."""

    path: str = ""
    home: str = ""
    uri: str = ""
    needs_libvirt: ClassVar[bool] = True

    def rescue(self, opened: Opened) -> Rescued:
        if opened.process.alive:
            rescued = opened.process.let_run("its save was called off: it was resumed")
            if rescued.act in ("resumed", "running"):
                self._forget()
            if rescued.act != "ended":
                return rescued
        if not Path(self.path).exists():
            return Rescued("ended", "its QEMU process has ended, and it was not saved")
        from lab.hypervisor.deadman.libvirt_monitor import restore

        called, returned = restore(self.home, self.uri, self.path)
        self._forget()
        return Rescued("resumed", "it was restored from its file", called, returned)

    def _forget(self) -> None:
        for path in {Path(self.path), Path(self.home, "saved", Path(self.path).name)}:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Relaunch(ResumePlan):
    """A cold exchange: the guest is in its old process until the controller takes the token, and then in
    `memory_file` (RAM) and `state_file` (device state), from which a new process is started.

    domain_xml: a domain of the old emulator that waits for a state. agents: a folder for its socket.
    """

    state_file: str = ""
    memory_file: str = ""
    home: str = ""
    domain_xml: str = ""
    agents: str = ""
    needs_libvirt: ClassVar[bool] = True

    def open(self, files: list[int]) -> Opened:
        return Opened(self, [Process(self.pid, files[0], self.monitor)], Token(files[1]))

    def rescue(self, opened: Opened) -> Rescued:
        if opened.token.take():
            return opened.process.let_run("its exchange was called off: it was resumed", leaving=True)
        from lab.hypervisor.deadman.libvirt_monitor import relaunch

        with contextlib.suppress(HypervisorError):
            opened.process.process.kill(_END_S)
        for process in self._newer(opened.process.process.pid):
            with process:
                if process.is_stopped():
                    process.send_continue()
        stamps = relaunch(
            self.guest,
            self.home,
            self.domain_xml,
            memory_file=self.memory_file,
            state_file=self.state_file,
            agents=self.agents,
        )
        if stamps is None:
            return Rescued("running")
        return Rescued("resumed", "a new process of its old emulator was started with its state", *stamps)

    def _newer(self, old_pid: int) -> Iterator[QemuProcess]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != old_pid:
                process = QemuProcess.open(int(entry.name), Path(self.memory_file).name)
                if process is not None:
                    yield process


class Opened:
    """A rescue that is ready: its processes are held by pidfds, and their monitors are connected.
    kernel_told: see deadman.thaw."""

    kernel_told = False

    def __init__(self, rescue: ResumePlan, processes: list[Process], token: Token | None = None) -> None:
        self.plan, self.processes = rescue, processes
        self._token = token
        try:
            for process in processes:
                if not process.alive:
                    raise MonitorError("its QEMU process has ended")
                _ = process.monitor  # connected now, before the freeze
        except BaseException:
            self.close()
            raise

    @property
    def process(self) -> Process:
        return self.processes[0]

    @property
    def token(self) -> Token:
        if self._token is None:
            raise ValueError("this way to freeze has no token")
        return self._token

    def rescue(self) -> Rescued:
        """Resume the guest. Errors are in the result."""
        try:
            return self.plan.rescue(self)
        except (MonitorError, HypervisorError, OSError) as error:
            return Rescued("failed", str(error).split("\n")[0])
        except Exception as error:  # noqa: BLE001 - the history records it; nobody reads a traceback
            return Rescued("failed", f"{type(error).__name__}: {error}")
        finally:
            self.process.process.leave_freezer()

    def stands_still(self) -> bool:
        """Whether the guest is stopped in the process that should run it; False when that is unknown."""
        process = self.plan.holder(self)
        try:
            return process.alive and not process.runs()
        except MonitorError:
            return False

    def close(self) -> None:
        for process in self.processes:
            process.close()
        if self._token is not None:
            self._token.close()
