"""Freezing and resuming of guests through libvirt: the real `ports.Hypervisor`.

Stamps are taken right around the call that does the work; whatever else has to be found out is found out
before `called` or after `returned`.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor import agent, facts
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt, libvirt_qemu, mapped
from lab.hypervisor.domain import Accelerator, DomainSpec
from lab.hypervisor.domains import Domains, LabDomain, state_of
from lab.hypervisor.embed import Root
from lab.hypervisor.events import EventLog, LifecycleEvent
from lab.hypervisor.facts import Emulator, HypervisorFacts
from lab.hypervisor.guard import BudgetGuard
from lab.hypervisor.loop import LOOP
from lab.hypervisor.process import QemuProcess
from lab.ports import Call, Clock, Freezing, Frozen, Resumed, Successor

_NOISE = re.compile(r"^[ -]|^[A-Z_]+=|\\$|is tainted:|: starting up ")
"""Lines of QEMU's log that libvirt writes at every start."""

_QEMU_SAID = re.compile(r".*qemu-system-\w+: ", re.DOTALL)

_EVENT_WAIT_S = 0.25
"""How long a freeze or resume waits, after its `returned` stamp, for QEMU's own stamp. It is usually
there already: QEMU emits the event before it answers the command."""

_SIGSTOP_WAIT_NS = NS_PER_S
_LOG_LINES = 3
_DIED = ("crashed", "failed")
"""Reasons of a `stopped` event that mean: nobody asked for it."""


@dataclass(frozen=True)
class _Frozen:
    method: FreezeMethod
    process: QemuProcess | None


class LibvirtHypervisor:
    """One open connection. Use it in a `with` block: closing ends no guest."""

    def __init__(self, connection: Any, uri: str, home: Path, clock: Clock, root: Root | None) -> None:
        self.uri = uri
        self._connection = connection
        self._clock = clock
        self._root = root
        self._lock = threading.RLock()
        self._frozen: dict[str, _Frozen] = {}
        self._processes: dict[str, QemuProcess] = {}
        self.domains = Domains(connection, home)
        self.events = EventLog(clock.now)
        with mapped("events cannot be had", uri):
            self.events.register(connection)

    @property
    def remote(self) -> bool:
        """A daemon runs the guests, maybe as another user; not this process."""
        return self._root is None

    # -- lifetime ---------------------------------------------------------------------------------

    def __enter__(self) -> LibvirtHypervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; guests stay as they are. The embedded driver's root stays this process's."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        for process in self._processes.values():
            process.close()
        self._processes.clear()
        self.events.unregister(connection)
        try:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
        finally:
            LOOP.release()

    # -- ports.Hypervisor -------------------------------------------------------------------------

    def prepare(self, guest: str, freezing: Freezing) -> None:
        """Nothing to do beforehand yet."""
        if freezing.method not in (FreezeMethod.SUSPEND, FreezeMethod.SIGSTOP):
            raise HypervisorError(f"{freezing.method} is not built yet", where=guest)

    def finish(self, guest: str) -> None:
        """Nothing is left behind yet."""

    def start(self, guest: str, successor: Successor) -> Call:  # noqa: ARG002
        """Start a guest that was shut down."""
        raise HypervisorError("reboot is not built yet", where=guest)

    def freeze(self, guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:  # noqa: ARG002
        """Stop the guest. HypervisorError when it does not run or cannot be stopped; it runs then."""
        return Frozen(self._freeze(guest, freezing.method))

    def resume(self, guest: str, freezing: Freezing) -> Resumed:
        """Make a frozen guest run again, however often it is called. HypervisorError when it has ended."""
        return Resumed(self._resume(guest, freezing.method))

    def _freeze(self, guest: str, method: FreezeMethod) -> Call:
        domain, uuid = self._domain(guest)
        if method is FreezeMethod.NONE:
            return Call(self._clock.now(), self._clock.now())
        state = self.state(guest)
        if state != "running":
            raise HypervisorError(f"cannot be frozen: it is {state}", where=guest, hint=self._why(guest))
        if method is FreezeMethod.SIGSTOP:
            return self._stop_process(guest)
        with contextlib.suppress(HypervisorError):
            self._process(guest)  # held, so that state() sees its death before libvirt does
        # Noted before the call: an interrupt inside it must find the guest among those to resume.
        self._note(guest, _Frozen(method, None))
        called = self._clock.now()
        try:
            domain.suspend()
            returned = self._clock.now()
        except libvirt.libvirtError as error:
            with contextlib.suppress(libvirt.libvirtError):
                domain.resume()
            self._note(guest, None)
            raise as_hypervisor_error(error, "cannot be suspended", guest) from error
        stamp = self.events.wait_qemu(uuid, "STOP", called.real_ns, _EVENT_WAIT_S)
        return Call(called, returned, stamp)

    def _resume(self, guest: str, method: FreezeMethod) -> Call:
        domain, uuid = self._domain(guest)
        frozen = self._frozen.get(guest)
        if method is FreezeMethod.NONE and frozen is None:
            return Call(self._clock.now(), self._clock.now())
        if (frozen.method if frozen else method) is FreezeMethod.SIGSTOP:
            return self._continue_process(guest, frozen)
        called = self._clock.now()
        try:
            domain.resume()
            returned = self._clock.now()
        except libvirt.libvirtError as error:
            returned = self._clock.now()
            if is_code(error, "VIR_ERR_NO_DOMAIN"):
                raise self._died(guest) from error
            # libvirt refuses to resume what runs (or has ended): the state decides.
            state = self.state(guest)
            if state in ("shut off", "crashed"):
                raise self._died(guest) from error
            if state != "running":
                raise as_hypervisor_error(error, "cannot be resumed", guest) from error
            self._note(guest, None)
            return Call(called, returned)
        self._note(guest, None)
        stamp = self.events.wait_qemu(uuid, "RESUME", called.real_ns, _EVENT_WAIT_S)
        return Call(called, returned, stamp)

    def guard(self, guests: Sequence[str], freezing: Freezing, at_raw_ns: int) -> BudgetGuard:
        """A thread that resumes the guests at CLOCK_MONOTONIC_RAW `at_raw_ns`, unless disarmed."""
        return BudgetGuard(self._clock, lambda guest: self.resume(guest, freezing), guests, at_raw_ns)

    def state(self, guest: str) -> str:
        """libvirt's word: running, paused, shut off, crashed, … "paused" also for a guest whose process
        we stopped by a signal, which libvirt does not see. Never waits for QEMU."""
        domain, uuid = self._domain(guest)
        last = self._last_end(uuid)
        if last is not None:
            return "crashed" if last.kind == "crashed" or last.reason in _DIED else "shut off"
        process = self._processes.get(guest)
        if process is not None and not process.alive:
            return "crashed"  # libvirt says so a second later
        frozen = self._frozen.get(guest)
        if frozen is not None and frozen.process is not None:
            return "paused"
        return state_of(domain)

    def cpu_time_ns(self, guest: str) -> int:
        """CPU time that the guest's vCPU threads have used on this host. HypervisorError when its QEMU
        process is not on this host."""
        process = self._process(guest)
        used = process.cpu_time_ns()
        if not process.alive:
            raise HypervisorError("its QEMU process has ended", where=guest)
        return used

    # -- lifecycle --------------------------------------------------------------------------------

    def define_and_start(self, spec: DomainSpec) -> LabDomain:
        """Start a guest; see Domains.start."""
        try:
            domain = self.domains.start(spec)
        except HypervisorError as error:
            raise _start_failure(error, spec) from error
        return LabDomain(spec.name, spec.guest, spec.run, spec.uuid, state_of(domain))

    def facts(self) -> HypervisorFacts:
        """Versions, for the record."""
        return facts.versions(self._connection, self.uri)

    def emulator(self, accelerator: Accelerator) -> Emulator:
        """The emulator and machine type for guests; see facts.emulator. Slow the first time."""
        return facts.emulator(self._connection, accelerator)

    def list_lab_domains(self) -> list[LabDomain]:
        """The lab's domains of this home, also those of earlier processes."""
        return self.domains.lab()

    def destroy(self, guest: str) -> None:
        """End one of the lab's guests at once, as by pulling its plug. Nothing happens when it has ended.
        HypervisorError for a domain that is not the lab's: those are never destroyed."""
        ours = {known.guest for known in self.domains.lab()}
        if guest not in ours:
            domain, uuid = self._domain(guest)
            if self._last_end(uuid) is None and state_of(domain) != "shut off":
                raise HypervisorError("not one of the lab's guests: not destroyed", where=guest)
        else:
            domain, uuid = self._domain(guest)
            # A stopped process answers no SIGTERM: libvirt would wait and then fall back to SIGKILL.
            self._continue_if_stopped(guest)
            try:
                domain.destroy()
            except libvirt.libvirtError as error:
                if not is_code(error, "VIR_ERR_NO_DOMAIN", "VIR_ERR_OPERATION_INVALID"):
                    raise as_hypervisor_error(error, "cannot be destroyed", guest) from error
        self._forget(guest)

    def shutdown(self, guest: str, deadline_raw_ns: int) -> Call:
        """Have the guest power itself off. HypervisorError when it does not by CLOCK_MONOTONIC_RAW
        `deadline_raw_ns`."""
        domain, uuid = self._domain(guest)
        called = self._clock.now()
        if self._last_end(uuid) is not None or state_of(domain) == "shut off":
            return Call(called, called)
        with mapped("cannot be shut down", guest):
            domain.shutdown()
        left_s = max(0, deadline_raw_ns - self._clock.now().raw_ns) / NS_PER_S
        if self.events.wait_lifecycle(uuid, lambda e: e.ends_guest, left_s) is None:
            raise HypervisorError("did not power itself off in time", where=guest)
        return Call(called, self._clock.now())

    def lifecycle(self, guest: str) -> tuple[LifecycleEvent, ...]:
        """The guest's lifecycle events as this connection saw them, oldest first: started, suspended,
        resumed, rebooted, shutdown, stopped, crashed. Safe from any thread."""
        return self.events.lifecycle(self._domain(guest)[1])

    # -- what runs inside -------------------------------------------------------------------------

    def qmp(self, guest: str, command: str, **arguments: Any) -> Any:
        """One QMP command; what it returns. libvirt marks the domain as tainted by it."""
        domain = self._awake(guest)
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        with mapped(f"QMP {command} failed", guest):
            answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps(request), 0))
        if "error" in answer:
            raise HypervisorError(f"QMP {command} failed: {answer['error'].get('desc')}", where=guest)
        return answer.get("return")

    def agent_command(
        self, guest: str, name: str, arguments: dict[str, Any] | None = None, timeout_s: int = 5
    ) -> Any:
        """One qemu-guest-agent command; see agent.command."""
        return agent.command(self._awake(guest), guest, name, arguments, timeout_s)

    def set_time(self, guest: str) -> Call:
        """Set the guest's clock to the host's through its agent, in nanoseconds; see agent.set_time."""
        return agent.set_time(self._awake(guest), guest, self._clock)

    def agent_ready(self, guest: str, deadline_raw_ns: int) -> None:
        """Return when the guest's agent answers; HypervisorError at the deadline."""
        agent.wait_ready(self._awake(guest), guest, self._clock, deadline_raw_ns)

    # -- within -----------------------------------------------------------------------------------

    def _domain(self, guest: str) -> tuple[Any, str]:
        domain = self.domains.find(guest)
        return domain, str(domain.UUIDString())

    def _note(self, guest: str, frozen: _Frozen | None) -> None:
        with self._lock:
            if frozen is None:
                self._frozen.pop(guest, None)
            else:
                self._frozen[guest] = frozen

    def _forget(self, guest: str) -> None:
        with self._lock:
            self._frozen.pop(guest, None)
            process = self._processes.pop(guest, None)
        if process is not None:
            process.close()

    def _process(self, guest: str) -> QemuProcess:
        with self._lock:
            if guest not in self._processes:
                self._processes[guest] = QemuProcess.find(self._domain(guest)[1], guest)
            return self._processes[guest]

    def _awake(self, guest: str) -> Any:
        frozen = self._frozen.get(guest)
        if frozen is not None and frozen.process is not None:
            raise HypervisorError("its QEMU process is stopped and cannot answer", where=guest)
        return self._domain(guest)[0]

    def _stop_process(self, guest: str) -> Call:
        process = self._process(guest)
        self._note(guest, _Frozen(FreezeMethod.SIGSTOP, process))
        called = self._clock.now()
        try:
            process.send_stop()
            stopped = process.wait_stopped(self._clock, called.raw_ns + _SIGSTOP_WAIT_NS)
            returned = self._clock.now()
        except ProcessLookupError as error:
            raise self._died(guest) from error
        except PermissionError as error:
            self._note(guest, None)
            raise HypervisorError("not allowed to stop its QEMU process", where=guest) from error
        if not stopped:
            with contextlib.suppress(ProcessLookupError):
                process.send_continue()
            self._note(guest, None)
            raise HypervisorError(
                f"its QEMU process did not stop within {_SIGSTOP_WAIT_NS / NS_PER_MS:g} ms", where=guest
            )
        return Call(called, returned)

    def _continue_process(self, guest: str, frozen: _Frozen | None) -> Call:
        process = (frozen.process if frozen else None) or self._process(guest)
        called = self._clock.now()
        try:
            process.send_continue()
            returned = self._clock.now()
        except ProcessLookupError as error:
            raise self._died(guest) from error
        if not process.alive:
            raise self._died(guest)
        self._note(guest, None)
        return Call(called, returned)

    def _continue_if_stopped(self, guest: str) -> None:
        frozen = self._frozen.get(guest)
        if frozen is not None and frozen.process is not None:
            with contextlib.suppress(ProcessLookupError):
                frozen.process.send_continue()

    def _last_end(self, uuid: str) -> LifecycleEvent | None:
        """The event that ended the domain, unless it was started again since."""
        for event in reversed(self.events.lifecycle(uuid)):
            if event.ends_guest:
                return event
            if event.kind == "started":
                return None
        return None

    def _why(self, guest: str) -> str:
        tail = self._log_tail(str(self._domain(guest)[0].name()))
        return tail if self.state(guest) in ("shut off", "crashed") else ""

    def _died(self, guest: str) -> HypervisorError:
        end = self._last_end(self._domain(guest)[1])
        how = f" ({end.reason})" if end is not None and end.reason else ""
        hint = self._log_tail(str(self._domain(guest)[0].name()))
        self._note(guest, None)
        return HypervisorError(f"the guest has ended while it was frozen{how}", where=guest, hint=hint)

    def _log_of(self, name: str) -> Path | None:
        if self._root is not None:
            return self._root.path / "log" / "qemu" / f"{name}.log"
        if self.uri.startswith("qemu:///system"):
            return Path("/var/log/libvirt/qemu") / f"{name}.log"
        if self.uri.startswith("qemu:///session"):
            return Path.home() / ".cache/libvirt/qemu/log" / f"{name}.log"
        return None

    def _log_tail(self, name: str) -> str:
        path = self._log_of(name)
        if path is None:
            return ""
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        said = [line for line in lines[-40:] if not _NOISE.search(line)]
        return "\n".join([f"QEMU's log {path} ends:", *said[-_LOG_LINES:]]) if said else f"QEMU's log: {path}"


def _start_failure(error: HypervisorError, spec: DomainSpec) -> HypervisorError:
    """QEMU's own last words instead of libvirt's account of how it heard them."""
    if "host forwarding rule" in error.what:
        return HypervisorError(
            f"TCP port {spec.ssh_port} on 127.0.0.1 is in use", where=spec.guest, hint="name another port"
        )
    said = _QEMU_SAID.sub("cannot be started: ", error.what) if "monitor" in error.what else error.what
    return HypervisorError(said, where=error.where, hint=error.hint)
