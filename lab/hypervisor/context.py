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

from lab.core.own_domain import MigrationTarget
from lab.core.timeline import CpuWait, Step
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor import libvirt_qmp
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt, mapped
from lab.hypervisor.control import LibvirtControl, QemuControl
from lab.hypervisor.deadman.rescue import MonitorAddress
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.domains import Domains, state_of
from lab.hypervisor.embed import Root
from lab.hypervisor.events import EventLog, LifecycleEvent
from lab.hypervisor.logs import Logs
from lab.hypervisor.own_domain import OwnDomain
from lab.hypervisor.own_lease import OwnLease
from lab.hypervisor.process import QemuProcess, Running
from lab.hypervisor.qmp import MonitorError, QmpSocket
from lab.ports import Clock

_NOTICED_S = 3.0
"""How long to wait until libvirt has noticed that QEMU was stopped or resumed, which takes some ms; on a busy
host its thread has to wait for a CPU."""

_EVENT_OF = {"paused": "STOP", "running": "RESUME"}
"""QEMU's event by which libvirt notices that a guest is in this state."""

END_S = 5.0
"""Time limit for a killed process to be gone; unmapping gigabytes takes tenths of a second."""

_DIED = ("crashed", "failed")
"""Reasons of a `stopped` event for an end that nobody requested."""

_IN_ITS_PAUSE = {
    "saved": "another program saved it in its pause: start or restore it, and then: virsh resume {}",
    "migrated": "another program migrated it in its pause; on its new host: virsh resume {}",
}
"""What to do about a domain of the user's own that ended for this reason while it was frozen."""


class LibvirtContext:
    """One open connection, and the state of its guests.

    specs: the specifications of guests that were started here. successors: those of their successors that
    were started and wait, while the guests run in another process. own, leases: of domains of the user's own,
    by guest. targets: where those may be migrated to. away: the URI of the daemon that such a guest is at
    now, if that is not its own. moving: those that this lab is migrating back. strangers: guests whose agent
    has not been used since its channel was reset. on_step: called with (guest, step) before each step of a
    freeze that has several; tests make steps fail there. thaws: what thaws a guest's file systems from
    inside, by guest; FreezelabError when it cannot. wall_clocks: the page of each guest's memory that KVM
    rewrites. forgetful: guests whose agent takes file systems for
    frozen that others have thawed.
    """

    def __init__(self, connection: Any, uri: str, home: Path, clock: Clock, root: Root | None) -> None:
        self.connection, self.uri, self.home, self.clock, self.root = connection, uri, home, clock, root
        self.domains = Domains(connection, home, self.recover_command)
        self.events = EventLog(clock.now, migrations=root is None)
        self.logs = Logs(uri, root)
        self.specs: dict[str, DomainSpec] = {}
        self.successors: dict[str, DomainSpec] = {}
        self.own: dict[str, OwnDomain] = {}
        self.leases: dict[str, OwnLease] = {}
        self.targets: dict[str, MigrationTarget] = {}
        self.away: dict[str, str] = {}
        self.moving: set[str] = set()
        self.thaws: dict[str, Callable[[], object]] = {}
        self.wall_clocks: dict[str, int | None] = {}
        self.forgetful: set[str] = set()
        self.on_step: Callable[[str, str], None] = lambda _guest, _step: None
        self._lock = threading.RLock()
        self._processes: dict[str, QemuProcess] = {}
        self._controls: dict[str, tuple[str, QemuControl]] = {}  # by guest: the domain's uuid
        self._expected: dict[str, tuple[Any, str, int]] = {}
        self.strangers: set[str] = set()

    @property
    def recover_command(self) -> str:
        """The command that removes what a killed run left on this connection."""
        return "freezelab recover" + (f" --connect {shlex.quote(self.uri)}" if self.root is None else "")

    # -- guests ------------------------------------------------------------------------------------

    def domain(self, guest: str) -> tuple[Any, str]:
        """The guest's domain and its uuid, when libvirt knows its present state. HypervisorError when there
        is none."""
        domain = self.domains.find(guest)
        if (expected := self._expected.get(guest)) is not None:
            self.events.wait_until(lambda: self._has_noticed(*expected) or None, _NOTICED_S)
            self._expected.pop(guest, None)
        return domain, str(domain.UUIDString())

    def expect_state(self, guest: str, domain: Any, state: str, since_real_ns: int) -> None:
        """The guest was stopped ("paused") or resumed ("running") in this domain without libvirt, which will
        notice by QEMU's event at or after host CLOCK_REALTIME `since_real_ns`. The domain's next use waits
        for that."""
        self._expected[guest] = domain, state, since_real_ns

    def _has_noticed(self, domain: Any, state: str, since_real_ns: int) -> bool:
        # libvirt reads QEMU's events in their order, and passes each on just before it acts on it. The state
        # alone does not do: after a short pause, "running" may still be the state before the stop.
        kind = _EVENT_OF[state]
        heard = (
            not self.events.stamps_available
            or self.events.qemu_since(str(domain.UUIDString()), kind, since_real_ns) is not None
        )
        return heard and state_of(domain) == state

    def process(self, guest: str) -> QemuProcess:
        """The guest's QEMU process, held open. HypervisorError when it is not on this host."""
        with self._lock:
            if guest not in self._processes:
                self._processes[guest] = QemuProcess.find(self.domain(guest)[1], guest)
            return self._processes[guest]

    def known_process(self, guest: str) -> QemuProcess | None:
        """The guest's QEMU process, if process() has found it before."""
        return self._processes.get(guest)

    def come_first(self, guest: str, monitor: bool, vcpus: bool = False) -> None:
        """See QemuProcess.come_first. Does nothing when the guest's process is not known."""
        if (process := self.known_process(guest)) is not None:
            process.come_first(monitor, vcpus)

    def forget(self, guest: str) -> None:
        """Close the guest's known process, because it has another one from now on, or none."""
        with self._lock:
            process = self._processes.pop(guest, None)
            self.strangers.add(guest)
            self._drop_control(guest)
        if process is not None:
            process.close()

    def adopt(
        self, spec: DomainSpec, domain: Any, process: QemuProcess, control: QemuControl
    ) -> QemuProcess | None:
        """Record that the guest runs in another domain and process from now on. Returns its previous
        process."""
        with self._lock:
            old = self._processes.pop(spec.guest, None)
            self._processes[spec.guest] = process
            self.specs[spec.guest] = spec
            self.successors.pop(spec.guest, None)
            self.strangers.add(spec.guest)
            self.domains.now(spec.guest, domain)
            self._drop_control(spec.guest)
            self._controls[spec.guest] = spec.uuid, control
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
        for guest in list(self._expected):
            with contextlib.suppress(HypervisorError):
                self.domain(guest)
        for guest in {*self._processes, *self._controls}:
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
        todo = _IN_ITS_PAUSE.get(end.reason, "") if end is not None and guest in self.own else ""
        hint = todo.format(self.own[guest].name) if todo else self.logs.tail(str(domain.name()))
        return HypervisorError(f"the guest has ended while it was frozen{how}", where=guest, hint=hint)

    def has_user_network(self, guest: str) -> bool:
        """Whether it is on a user-mode network of QEMU's, whose connections end with the process."""
        spec, own = self.specs.get(guest), self.own.get(guest)
        return own.user_network if own is not None else spec is not None and not spec.tap

    def monitor(self, guest: str) -> MonitorAddress:
        """The address of a QMP monitor that does not use this process's libvirt."""
        _domain, uuid = self.domain(guest)
        spec = self.specs.get(guest)
        if spec is not None and spec.monitor_socket is not None and spec.uuid == uuid:
            return MonitorAddress(socket=str(spec.monitor_socket))
        own = self.own.get(guest)
        if own is not None and own.monitor:
            return MonitorAddress(socket=own.monitor)
        return MonitorAddress(uri=self.uri, uuid=uuid, own=own is not None)

    # -- QEMU --------------------------------------------------------------------------------------

    def qmp(self, domain: Any, guest: str, command: str, **arguments: Any) -> Any:
        """Run one QMP command and return its result. libvirt marks the domain as tainted."""
        try:
            return libvirt_qmp.execute(domain, command, **arguments)
        except MonitorError as error:
            raise HypervisorError(str(error), where=guest) from error

    def control(self, guest: str) -> QemuControl:
        """The controller's way to the guest's present process. HypervisorError when it does not answer."""
        domain = self.domains.find(guest)
        uuid = str(domain.UUIDString())
        with self._lock:
            known = self._controls.get(guest)
            if known is not None and known[0] == uuid:
                return known[1]
            spec = self.specs.get(guest)
            control = self.open_control(
                spec if spec is not None and spec.uuid == uuid else None, domain, guest
            )
            self._drop_control(guest)
            self._controls[guest] = uuid, control
            return control

    def open_control(self, spec: DomainSpec | None, domain: Any, guest: str) -> QemuControl:
        """A way to the process of this domain. spec: its specification, if it was started here."""
        if spec is None or spec.control_socket is None:
            return LibvirtControl(domain, str(domain.UUIDString()), guest, self.events)
        try:
            return QmpSocket(spec.control_socket)
        except MonitorError as error:
            raise HypervisorError(str(error), where=guest) from error

    def _drop_control(self, guest: str) -> None:
        known = self._controls.pop(guest, None)
        if known is not None:
            known[1].close()

    def destroy(self, guest: str) -> None:
        """End the guest's domain at once. HypervisorError when libvirt refuses."""
        domain, _uuid = self.domain(guest)
        # libvirt sends SIGTERM and then polls, which takes 2 s, and longer for a stopped process.
        with contextlib.suppress(HypervisorError):
            self.process(guest).kill(END_S)
        try:
            domain.destroy()
        except libvirt.libvirtError as error:
            if not is_code(error, "VIR_ERR_NO_DOMAIN", "VIR_ERR_OPERATION_INVALID"):
                raise as_hypervisor_error(error, "cannot be destroyed", guest) from error

    def cpu_time_ns(self, guest: str) -> int:
        """See LibvirtHypervisor.cpu_time_ns."""
        process = self.process(guest)
        used = process.cpu_time_ns()
        if not process.alive:
            raise HypervisorError("its QEMU process has ended", where=guest)
        return used

    def cpu_wait(self, guest: str) -> CpuWait | None:
        """See LibvirtHypervisor.cpu_wait."""
        try:
            process = self.process(guest)
        except HypervisorError:
            return None
        waited_ns, now = process.cpu_wait_ns(), self.clock.now().raw_ns
        return CpuWait(now, process.pid, waited_ns) if process.alive else None

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
