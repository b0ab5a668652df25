"""The QEMU process that takes a guest over: plans it, starts it paused and waiting for a state, and removes
it when it is not needed. freeze/in_place.py decides when, and whether the guest runs in it."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.errors import HypervisorError, Refused
from lab.hypervisor import migration
from lab.hypervisor.binding import libvirt
from lab.hypervisor.context import END_S, LibvirtContext
from lab.hypervisor.control import QemuControl, wait_for
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.process import QemuProcess, Running
from lab.hypervisor.qmp import MonitorError, QemuEvent
from lab.ports import Call, Freezing

RUN_S = 2.0
_EVENT_S = 0.25
"""How long the RESUME event may come after the answer to `cont`; QEMU sends it before."""

_LAST_S = 0.5
"""How long libvirt may take to pass on the last events of a process that has ended."""

_LEAST_S = 0.1
"""The shortest time limit for the successor to report that it runs, even when the budget is used up."""

_ANSWER_S = 10.0
"""Time limit for an answer while the guest runs, where nothing is in a hurry."""

_FILES = 128
"""The minimum size of a successor's table of open files; the kernel starts with 64."""


def asker(control: QemuControl, guest: str) -> migration.Ask:
    """A function that runs QMP commands in one process. It raises HypervisorError."""

    def ask(command: str, **arguments: Any) -> Any:
        try:
            return control.execute(command, _ANSWER_S, **arguments)
        except MonitorError as error:
            raise HypervisorError(str(error), where=guest) from error

    return ask


def offer(ask: migration.Ask) -> None:
    """Set the migration capabilities that both sides must share."""
    migration.set_capabilities(ask, "x-ignore-shared", "events")


class SuccessorProcess:
    """One guest's successor in one exchange. old: the guest's present domain, set by plan(). spec: the
    successor's, set by the caller of plan(). domain, process, control: set by start(). socket: where it waits
    for the state."""

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self.old: DomainSpec
        self.spec: DomainSpec | None = None
        self.domain: Any = None
        self.process: QemuProcess | None = None
        self.control: QemuControl | None = None
        self._running: Running | None = None
        self.socket: Path | None = None

    def plan(self, *, shares_memory: bool) -> DomainSpec:
        """The successor's specification, with a new socket for the state. shares_memory: it maps the guest's
        RAM. Refused when none is possible."""
        old = self._context.specs.get(self._guest)
        if old is None:
            raise Refused("only a guest that this lab has started can move to a successor", where=self._guest)
        if shares_memory and old.memory_file is None:
            raise Refused("its RAM is not a shared file, so no successor can map it", where=self._guest)
        self.old = old
        self._refuse_others()
        self.socket = self._context.sockets / f"{secrets.token_hex(4)}.state"
        return self.described(Path(self._freezing.successor.emulator or old.emulator))

    def described(self, emulator: Path) -> DomainSpec:
        """A successor's specification, with its own sockets."""
        return self.old.successor(emulator).with_sockets_in(self._context.sockets)

    def start(self, spec: DomainSpec) -> None:
        """Start the successor, paused. HypervisorError when that fails."""
        self.domain = self._context.domains.create(spec, paused=True)
        self.process = QemuProcess.find(spec.uuid, self._guest)
        self.control = self._context.open_control(spec, self.domain, self._guest)
        self._running = Running(self.process)
        self._widen(self.process)
        self._keep_page_cache(self.process)
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
            self.ask("chardev-add", id=name, backend=backend)
            more.append(name)
        for name in more:
            self.ask("chardev-remove", id=name)

    def _keep_page_cache(self, process: QemuProcess) -> None:
        """Tell the successor that no other host has written its disk images. Otherwise it would drop the
        host's page cache for them in the pause, for which Linux begins to write out what is dirty
        (drop-cache, on by default; QEMU, block/file-posix.c, raw_co_invalidate_cache; Linux, mm/fadvise.c).
        """
        for word in process.arguments:
            if word.startswith("{") and '"driver":"file"' in word and '"filename"' in word:
                self.ask("blockdev-reopen", options=[json.loads(word) | {"drop-cache": False}])

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

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command in the successor."""
        if self.control is None:
            raise HypervisorError("the successor was not started", where=self._guest)
        return asker(self.control, self._guest)(command, **arguments)

    def listen(self, offer: Callable[[migration.Ask], None]) -> None:
        """Make the successor wait for the state at its socket. offer: sets what both sides must share."""
        status = self.ask("query-status")["status"]
        if status != "inmigrate":
            raise HypervisorError(f"its successor is {status} instead of waiting", where=self._guest)
        offer(self.ask)
        self.ask("migrate-incoming", uri=f"unix:{self.socket}")

    def run(self, deadline_raw_ns: int) -> tuple[Call, str]:
        """Tell the successor to run. Returns the call, and why it certainly has not run, "" otherwise."""
        context, process, control = self._context, self.process, self.control
        called = context.clock.now()
        if process is None or control is None or self._running is None or not process.alive:
            return Call(called, called), f"the successor died{self.last_words()}"
        self._running.again()
        patience = min(RUN_S, max(_LEAST_S, context.left_s(deadline_raw_ns)))
        called, hangs = context.clock.now(), False
        try:
            control.execute("cont", patience)
        except MonitorError:
            hangs = process.alive
        ran_ns = self._running.so_far_ns()
        returned = context.clock.now()
        context.expect_state(self._guest, self.domain, "running", called.real_ns)

        def resumed(wait_s: float) -> QemuEvent | None:
            return wait_for(
                [control], lambda: control.event("RESUME", called.real_ns), wait_s, context.events
            )

        resume = resumed(0 if hangs else _EVENT_S)
        if resume is None:
            # Decide only when the process is gone and all of its events have been read.
            process.kill(END_S)
            resume = resumed(_LAST_S)
        if resume is None:
            how = "hangs" if hangs else "did not run"
            return Call(called, context.clock.now()), f"the successor {how}{self.last_words()}"
        if process.alive:  # perhaps it reports that late
            return Call(called, returned, resume.real_ns, ran_ns), ""
        raise HypervisorError(
            "the successor died just after it had begun to run; the guest is lost",
            where=self._guest,
            hint=context.logs.tail(self.spec.name) if self.spec is not None else "",
        )

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
        if self.control is not None:
            self.control.close()
        self.process = self.domain = self.control = None
        for path in (self.socket, *(self.spec.sockets if self.spec is not None else ())):
            if path is not None:
                path.unlink(missing_ok=True)
