"""The common base of all freeze methods: the connection, guests' domains and processes, and the two calls
whose stamps bound a pause.

Stamps are taken right around the call that does the work. All other queries are made before `called` or after
`returned`.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.core.timeline import Step
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor import libvirt_qmp
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt, mapped
from lab.hypervisor.deadman.rescue import MonitorAddress
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.domains import Domains, state_of
from lab.hypervisor.embed import Root
from lab.hypervisor.events import EventLog, LifecycleEvent
from lab.hypervisor.logs import Logs
from lab.hypervisor.process import QemuProcess, Running
from lab.hypervisor.qmp import MonitorError
from lab.ports import Call, Clock

_EVENT_WAIT_S = 0.25
"""How long a freeze or resume waits for QEMU's own stamp after its `returned` stamp. The event has usually
arrived by then, because QEMU emits it before it answers the command."""

_DIED = ("crashed", "failed")
"""Reasons of a `stopped` event for an end that nobody requested."""


class LibvirtContext:
    """One open connection, and the state of its guests.

    specs: the specifications of guests that were started here. successors: those of their successors that
    were started and wait, while the guests run in another process. strangers: guests whose agent has not been
    used since its channel was reset. on_step: called with (guest, step) before each step of a freeze that has
    several; tests make steps fail there.
    """

    def __init__(self, connection: Any, uri: str, home: Path, clock: Clock, root: Root | None) -> None:
        self.connection, self.uri, self.home, self.clock, self.root = connection, uri, home, clock, root
        self.domains = Domains(connection, home, self.recover_command)
        self.events = EventLog(clock.now)
        self.logs = Logs(uri, root)
        self.specs: dict[str, DomainSpec] = {}
        self.successors: dict[str, DomainSpec] = {}
        self.on_step: Callable[[str, str], None] = lambda _guest, _step: None
        self._lock = threading.RLock()
        self._processes: dict[str, QemuProcess] = {}
        self.strangers: set[str] = set()

    @property
    def recover_command(self) -> str:
        """The command that removes what a killed run left on this connection."""
        return "freezelab recover" + (f" --connect {shlex.quote(self.uri)}" if self.root is None else "")

    # -- guests ------------------------------------------------------------------------------------

    def domain(self, guest: str) -> tuple[Any, str]:
        """The guest's domain and its uuid. HypervisorError when there is none."""
        domain = self.domains.find(guest)
        return domain, str(domain.UUIDString())

    def process(self, guest: str) -> QemuProcess:
        """The guest's QEMU process, held open. HypervisorError when it is not on this host."""
        with self._lock:
            if guest not in self._processes:
                self._processes[guest] = QemuProcess.find(self.domain(guest)[1], guest)
            return self._processes[guest]

    def known_process(self, guest: str) -> QemuProcess | None:
        """The guest's QEMU process, if process() has found it before."""
        return self._processes.get(guest)

    def forget(self, guest: str) -> None:
        """Close the guest's known process, because it has another one from now on, or none."""
        with self._lock:
            process = self._processes.pop(guest, None)
            self.strangers.add(guest)
        if process is not None:
            process.close()

    def adopt(self, spec: DomainSpec, domain: Any, process: QemuProcess) -> QemuProcess | None:
        """Record that the guest runs in another domain and process from now on. Returns its previous
        process."""
        with self._lock:
            old = self._processes.pop(spec.guest, None)
            self._processes[spec.guest] = process
            self.specs[spec.guest] = spec
            self.successors.pop(spec.guest, None)
            self.strangers.add(spec.guest)
            self.domains.now(spec.guest, domain)
            return old

    @property
    def sockets(self) -> Path:
        """A folder for sockets whose path is short enough: unix(7) allows 107 bytes."""
        folder = self.home / "agents"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def check_emulator(self, spec: DomainSpec) -> None:
        """HypervisorError when libvirt cannot use the emulator, or the emulator lacks the guest's machine
        type. For each new emulator, libvirt probes its capabilities once, which takes seconds."""
        if not spec.emulator.exists():
            raise HypervisorError(f"no emulator {spec.emulator}", where=spec.guest)
        try:
            self.connection.getDomainCapabilities(
                str(spec.emulator), "x86_64", spec.machine, spec.accelerator.domain_type, 0
            )
        except libvirt.libvirtError as error:
            raise as_hypervisor_error(
                error, f"{spec.emulator} cannot run it as {spec.machine}", spec.guest
            ) from error

    def starting(self) -> contextlib.AbstractContextManager[None]:
        """A context for starting a process during a freeze; see Root.starting."""
        return self.root.starting() if self.root is not None else contextlib.nullcontext()

    def reconnect(self) -> None:
        """Open a new connection to the same URI, and find the same guests there."""
        uuids = self.domains.uuids()
        self.events.unregister(self.connection)
        with contextlib.suppress(libvirt.libvirtError):
            self.connection.close()
        with mapped("libvirt cannot be reached again", self.uri):
            self.connection = libvirt.open(self.uri)
            self.domains.connection = self.connection
            self.events.register(self.connection)
        for guest, uuid in uuids.items():
            with mapped("is gone after the restart of libvirt's daemon", guest):
                self.domains.now(guest, self.connection.lookupByUUIDString(uuid))

    def close(self) -> None:
        for guest in list(self._processes):
            self.forget(guest)

    def last_end(self, uuid: str) -> LifecycleEvent | None:
        """The event that ended the domain; None when it was started again since."""
        for event in reversed(self.events.lifecycle(uuid)):
            if event.ends_guest:
                return event
            if event.kind == "started":
                return None
        return None

    def state(self, guest: str) -> str:
        """The domain's state in libvirt's words. Never waits for QEMU."""
        domain, uuid = self.domain(guest)
        last = self.last_end(uuid)
        if last is not None:
            return "crashed" if last.kind == "crashed" or last.reason in _DIED else "shut off"
        process = self.known_process(guest)
        if process is not None and not process.alive:
            return "crashed"  # libvirt reports it a second later
        return state_of(domain)

    def died(self, guest: str) -> HypervisorError:
        """The error that the guest has ended while it was frozen, with QEMU's last messages."""
        domain, uuid = self.domain(guest)
        end = self.last_end(uuid)
        how = f" ({end.reason})" if end is not None and end.reason else ""
        hint = self.logs.tail(str(domain.name()))
        return HypervisorError(f"the guest has ended while it was frozen{how}", where=guest, hint=hint)

    def monitor(self, guest: str) -> MonitorAddress:
        """The address of a QMP monitor that does not use this process's libvirt."""
        _domain, uuid = self.domain(guest)
        spec = self.specs.get(guest)
        if spec is not None and spec.monitor_socket is not None and spec.uuid == uuid:
            return MonitorAddress(socket=str(spec.monitor_socket))
        return MonitorAddress(uri=self.uri, uuid=uuid)

    # -- QEMU --------------------------------------------------------------------------------------

    def qmp(self, domain: Any, guest: str, command: str, **arguments: Any) -> Any:
        """Run one QMP command and return its result. libvirt marks the domain as tainted."""
        try:
            return libvirt_qmp.execute(domain, command, **arguments)
        except MonitorError as error:
            raise HypervisorError(str(error), where=guest) from error

    def suspend(self, guest: str) -> Call:
        """Suspend the guest through libvirt. HypervisorError when that fails; the guest runs on then."""
        domain, uuid = self.domain(guest)
        with contextlib.suppress(HypervisorError):
            self.process(guest)  # held open, so that state() notices its end before libvirt does
        called = self.clock.now()
        try:
            domain.suspend()
            returned = self.clock.now()
        except libvirt.libvirtError as error:
            with contextlib.suppress(libvirt.libvirtError):
                domain.resume()
            raise as_hypervisor_error(error, "cannot be suspended", guest) from error
        stamp = self.events.wait_qemu(uuid, "STOP", called.real_ns, _EVENT_WAIT_S)
        return Call(called, returned, stamp)

    def let_run(self, guest: str) -> Call:
        """Resume the guest through libvirt; it may be called repeatedly. HypervisorError when the guest has
        ended."""
        domain, uuid = self.domain(guest)
        running = self.running(guest)
        called = self.clock.now()
        try:
            domain.resume()
            ran_ns = running.so_far_ns() if running else 0
            returned = self.clock.now()
        except libvirt.libvirtError as error:
            returned = self.clock.now()
            if is_code(error, "VIR_ERR_NO_DOMAIN"):
                raise self.died(guest) from error
            # libvirt refuses to resume a guest that runs or has ended, so the state decides.
            state = self.state(guest)
            if state in ("shut off", "crashed"):
                raise self.died(guest) from error
            if state != "running":
                raise as_hypervisor_error(error, "cannot be resumed", guest) from error
            return Call(called, returned)
        stamp = self.events.wait_qemu(uuid, "RESUME", called.real_ns, _EVENT_WAIT_S)
        return Call(called, returned, stamp, ran_ns)

    def running(self, guest: str) -> Running | None:
        """Measures how long the guest runs from now on; None when its process is not on this host."""
        try:
            return Running(self.process(guest))
        except HypervisorError:
            return None

    def left_s(self, deadline_raw_ns: int) -> float:
        """Seconds until CLOCK_MONOTONIC_RAW `deadline_raw_ns`, at least 0."""
        return max(0, deadline_raw_ns - self.clock.now().raw_ns) / NS_PER_S


class Steps:
    """Records the timed steps of one freeze."""

    def __init__(self, context: LibvirtContext, guest: str) -> None:
        self._context, self._guest = context, guest
        self.taken: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A context that times a step. The step is recorded even when it fails."""
        self._context.on_step(self._guest, name)
        began = self._context.clock.now().raw_ns
        try:
            yield
        finally:
            self.taken.append(Step(name, began, self._context.clock.now().raw_ns))

    def hand_out(self) -> tuple[Step, ...]:
        """The steps since the last call."""
        taken, self.taken = tuple(self.taken), []
        return taken
