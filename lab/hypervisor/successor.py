"""The QEMU process that takes a guest over: plans it, starts it paused and waiting for a state, and removes
it when it is not needed. freeze/in_place.py decides when, and whether the guest runs in it."""

from __future__ import annotations

import contextlib
import functools
import secrets
from pathlib import Path
from typing import Any

from lab.errors import HypervisorError, Refused
from lab.hypervisor import migration
from lab.hypervisor.binding import libvirt
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.process import QemuProcess
from lab.ports import Freezing

END_S = 5.0
"""Time limit for a killed process to be gone; unmapping gigabytes takes tenths of a second."""

_FILES = 128
"""The minimum size of a successor's table of open files; the kernel starts with 64."""


class SuccessorProcess:
    """One guest's successor in one exchange. old: the guest's present domain, set by plan(). spec: the
    successor's, set by the caller of plan(). domain, process: set by start(). socket: where it waits for the
    state."""

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self.old: DomainSpec
        self.spec: DomainSpec | None = None
        self.domain: Any = None
        self.process: QemuProcess | None = None
        self.socket: Path | None = None

    def plan(self) -> DomainSpec:
        """The successor's specification, with a new socket for the state. Refused when none is possible."""
        old = self._context.specs.get(self._guest)
        if old is None:
            raise Refused("only a guest that this lab has started can move to a successor", where=self._guest)
        if old.memory_file is None:
            raise Refused("its RAM is not a shared file, so no successor can map it", where=self._guest)
        self.old = old
        self._refuse_others()
        self.socket = self._context.sockets / f"{secrets.token_hex(4)}.state"
        return self.described(Path(self._freezing.successor.emulator or old.emulator))

    def described(self, emulator: Path) -> DomainSpec:
        """A successor's specification, with its own sockets."""
        old, run = self.old, self._context.sockets
        agent = run / f"{secrets.token_hex(4)}.agent" if old.agent_socket is not None else None
        probe = run / f"{secrets.token_hex(4)}.probe" if old.probe_socket is not None else None
        monitor = run / f"{secrets.token_hex(4)}.monitor" if old.monitor_socket is not None else None
        return old.successor(emulator, agent, probe, monitor)

    def start(self, spec: DomainSpec) -> None:
        """Start the successor, paused. HypervisorError when that fails."""
        self.domain = self._context.domains.create(spec, paused=True)
        self.process = QemuProcess.find(spec.uuid, self._guest)
        self._widen(self.process)
        self._context.successors[self._guest] = spec

    def _widen(self, process: QemuProcess) -> None:
        """Enlarge the successor's table of open files before the pause. QEMU opens its 65th file when its
        devices start, after RESUME and before the vCPUs. To enlarge the table of a process with threads,
        Linux then waits for an RCU grace period (fs/file.c, expand_fdtable), which would lengthen the pause
        by 10 to 15 ms."""
        more: list[str] = []
        while 0 < process.file_table < _FILES and len(more) < _FILES:
            name = f"labfile{len(more)}"
            backend = {"type": "file", "data": {"out": "/dev/null"}}
            self._context.qmp(self.domain, self._guest, "chardev-add", id=name, backend=backend)
            more.append(name)
        for name in more:
            self._context.qmp(self.domain, self._guest, "chardev-remove", id=name)

    def _refuse_others(self) -> None:
        wanted, old = self._freezing.successor, self.old
        for what, asked, has in (
            ("machine type", wanted.machine, old.machine),
            ("CPU model", wanted.cpu, old.cpu),
        ):
            if asked and asked != has:
                raise Refused(
                    f"the successor would have another {what}: {asked} instead of {has}, whose "
                    "device state it would not accept",
                    where=self._guest,
                    hint=f"leave {what.split()[0].lower()} out of the patch: the guest keeps its own",
                )

    def ask(self, domain: Any) -> migration.Ask:
        """A function that runs QMP commands in one of the two processes."""
        return functools.partial(self._context.qmp, domain, self._guest)

    def offer(self, domain: Any) -> None:
        """Set the migration capabilities that both sides must share."""
        migration.set_capabilities(self.ask(domain), "x-ignore-shared", "events")

    def listen(self) -> None:
        """Make the successor wait for the state at its socket."""
        context, guest = self._context, self._guest
        status = context.qmp(self.domain, guest, "query-status")["status"]
        if status != "inmigrate":
            raise HypervisorError(f"its successor is {status} instead of waiting", where=guest)
        self.offer(self.domain)
        context.qmp(self.domain, guest, "migrate-incoming", uri=f"unix:{self.socket}")

    def last_words(self) -> str:
        """The successor's last messages, with ": " before them; they may take a moment to reach libvirt's
        log."""
        if self.spec is None:
            return ""
        last = self._context.events.wait_until(
            lambda: self._context.logs.last(self.spec.name) or None if self.spec else None, 0.05
        )
        return f": {last}" if last else ""

    def kill(self) -> None:
        """Kill the successor and wait until it is gone; only then may another process use the disk and
        RAM."""
        if self.process is not None:
            self.process.kill(END_S)

    def clear(self) -> None:
        """Remove a successor that is not needed, which takes libvirt a second or two. It finds the successor
        even when a signal came after libvirt had started it and before it was recorded here."""
        if self.spec is not None and self.domain is None:
            with contextlib.suppress(libvirt.libvirtError):
                self.domain = self._context.connection.lookupByUUIDString(self.spec.uuid)
            with contextlib.suppress(HypervisorError):
                self.process = QemuProcess.find(self.spec.uuid, self._guest)
        self._context.successors.pop(self._guest, None)
        self.kill()
        if self.domain is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self.domain.destroy()
        if self.process is not None:
            self.process.close()
        self.process = self.domain = None
        for path in (self.socket, *(self.spec.sockets if self.spec is not None else ())):
            if path is not None:
                path.unlink(missing_ok=True)
