"""The real `ports.Hypervisor`, on libvirt: the connection, guests' start and end, queries. Uses freeze/."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.core.timeline import CpuWait
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor import agent, facts, own_recovery, recovery, unreachable
from lab.hypervisor.agent import SetBy
from lab.hypervisor.binding import libvirt, mapped
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.deadman.client import Charge, DeadMan
from lab.hypervisor.domain import Accelerator, DomainSpec
from lab.hypervisor.domains import Domains, LabDomain, state_of
from lab.hypervisor.embed import Root
from lab.hypervisor.events import EventLog, LifecycleEvent
from lab.hypervisor.facts import Emulator, HypervisorFacts
from lab.hypervisor.freeze import Freeze, guest_sleep, make, make_for_resume, reboot
from lab.hypervisor.guard import BudgetGuard
from lab.hypervisor.logs import start_failure
from lab.hypervisor.loop import LOOP
from lab.hypervisor.own_domains import OwnDomains
from lab.hypervisor.run_state import send_all
from lab.ports import Call, Clock, Freezing, Frozen, Resumed, Successor
from lab.process.pace import paced

_SWITCH_S = 0.0002
"""How long another thread of this process, which reads a probe or draws the terminal, may hold up one that is
about to resume a guest. Python's default is 5 ms (sys.setswitchinterval)."""

_AGENT_NS = 10 * NS_PER_S
_STARTED_S = 5.0
"""Time limit for libvirt's event of a start; it takes milliseconds, even on a busy host."""


class LibvirtHypervisor:
    """One open connection. Use it in a `with` block. Closing ends no guest. dead_man: guards its guests.
    ended: the guests of earlier processes that were ended when it was opened."""

    def __init__(self, connection: Any, uri: str, home: Path, clock: Clock, root: Root | None) -> None:
        sys.setswitchinterval(_SWITCH_S)
        self.uri, self._clock = uri, clock
        self._root, self.ended = root, root.ended if root is not None else []
        self._lock = threading.RLock()
        self._freezes: dict[str, Freeze] = {}
        self._ours: set[str] = set()  # guests that the lab itself is freezing or ending now
        self._begun: set[str] = set()  # guests whose stop was ordered
        self._context = context = LibvirtContext(connection, uri, home, clock, root)
        self.domains: Domains = context.domains
        self.events: EventLog = context.events
        self.own = OwnDomains(context, self._ours)
        self._open = True
        self.dead_man, self.thaws, self.wall_clocks = DeadMan(), context.thaws, context.wall_clocks
        with mapped("libvirt's events cannot be subscribed to", uri):
            self._context.events.register(connection)

    @property
    def remote(self) -> bool:
        """Whether a daemon runs the guests, perhaps as another user, instead of this process."""
        return self._root is None

    @property
    def recover_command(self) -> str:
        """See LibvirtContext.recover_command."""
        return self._context.recover_command

    def on_step(self, callback: Callable[[str, str], None]) -> None:
        """Have `callback` called with (guest, step) before each step of a freeze that has several."""
        self._context.on_step = callback

    # -- lifetime ---------------------------------------------------------------------------------

    def __enter__(self) -> LibvirtHypervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; guests stay as they are. The embedded driver's root stays this process's."""
        if not self._open:
            return
        self._open = False
        self.dead_man.close()
        context = self._context
        context.close()
        context.events.unregister(context.connection)
        try:
            with contextlib.suppress(libvirt.libvirtError):
                context.connection.close()
        finally:
            LOOP.release()

    # -- ports.Hypervisor -------------------------------------------------------------------------

    def prepare(self, guest: str, freezing: Freezing) -> None:
        """See ports.Hypervisor."""
        self.finish(guest)
        self.own.begin(guest, freezing)
        if freezing.method.needs_resume:
            self.dead_man.start()
        freeze = make(self._context, guest, freezing)
        with self._lock:
            self._freezes[guest] = freeze  # for finish(): a signal may come right after prepare()
        freeze.prepare()

    def begin_freeze(self, guests: Sequence[str], freezing: Freezing) -> None:
        """See ports.Hypervisor."""
        orders = []
        for guest in [guest for guest in guests if self.state(guest) == "running"]:
            with self._lock:
                freeze = self._made(guest, freezing)
                self._ours.add(guest)
                self._begun.add(guest)
            with contextlib.suppress(HypervisorError):  # freeze() meets it again
                orders.append(freeze.begin_stop())
        send_all(orders)

    def begin_resume(self, guests: Sequence[str]) -> None:
        """See ports.Hypervisor."""
        orders = []
        for freeze in filter(None, map(self._freezes.get, guests)):
            with contextlib.suppress(HypervisorError):  # resume() meets it again
                orders.append(freeze.begin_resume())
        send_all(orders)

    def freeze(self, guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:
        """See ports.Hypervisor."""
        self._context.domain(guest)
        begun = guest in self._begun
        self._begun.discard(guest)
        if freezing.method.needs_resume and not begun:
            state = self.state(guest)
            if state != "running":
                raise HypervisorError(f"cannot be frozen: it is {state}", where=guest, hint=self._why(guest))
        with self._lock:
            freeze = self._made(guest, freezing)
            self._ours.add(guest)  # before the stop, so that an interrupt resumes this guest as well
        frozen = freeze.stop(deadline_raw_ns)
        if frozen.back is not None or frozen.resumed is not None:
            self._ours.discard(guest)
        return frozen

    def resume(self, guest: str, freezing: Freezing) -> Resumed:
        """Resume a frozen guest; it may be called repeatedly. HypervisorError when the guest has ended."""
        known = self._freezes.get(guest)
        if known is None:
            known = make_for_resume(self._context, guest, freezing)
        self._begun.discard(guest)
        resumed = known.resume()
        self._ours.discard(guest)
        return resumed

    def finish(self, guest: str) -> None:
        """See ports.Hypervisor."""
        with self._lock:
            freeze = self._freezes.get(guest)
        if freeze is not None and not freeze.is_stopped:
            with self._lock:
                self._freezes.pop(guest, None)
            try:
                freeze.finish()
                self.own.end(guest)
            finally:
                if guest not in self._ours:  # it was resumed
                    self.dead_man.release([guest])

    def guard(
        self, guests: Sequence[str], freezing: Freezing, at_raw_ns: int, until_raw_ns: int, cycle: int
    ) -> BudgetGuard:
        """A guard: its thread resumes the guests at CLOCK_MONOTONIC_RAW `at_raw_ns`; the dead-man does so at
        `until_raw_ns`, or when this process ends or hangs. See ports.Hypervisor."""
        return BudgetGuard(
            self._clock,
            lambda guest: self.resume(guest, freezing),
            guests,
            at_raw_ns,
            self.dead_man,
            lambda: self._charges(guests, freezing),
            self._runs_again,
            cycle,
            until_raw_ns,
        )

    def _runs_again(self, guest: str) -> bool:
        """Whether a guest that was to be frozen runs, and can no longer be stopped by its freeze."""
        freeze = self._freezes.get(guest)
        return guest not in self._ours and (freeze is None or freeze.settled)

    def _charges(self, guests: Sequence[str], freezing: Freezing) -> list[Charge]:
        with self._lock:
            freezes = [self._made(guest, freezing) for guest in guests]
        return [charge for freeze in freezes if (charge := freeze.charge()) is not None]

    def shutdown(self, guest: str, deadline_raw_ns: int) -> Call:
        """See freeze.reboot.shut_down."""
        self._ours.add(guest)
        return reboot.shut_down(self._context, guest, deadline_raw_ns)

    def start(self, guest: str, successor: Successor) -> Call:
        """Start a guest that was shut down, from the same disk, under another emulator if one is named."""
        spec = self._context.specs.get(guest)
        if spec is None:
            raise HypervisorError("only a guest that this lab has started can be started again", where=guest)
        called = self._clock.now()
        self.define_and_start(spec.again(Path(successor.emulator or spec.emulator)))
        self._ours.discard(guest)
        return Call(called, self._clock.now())

    def look(self, guest: str) -> None:
        """GuestGone when the guest cannot answer for a reason other than the lab's own actions: it has ended,
        is asleep, or was paused by QEMU. Never waits for QEMU."""
        if guest in self._ours:
            return
        gone = unreachable.gone(self._context, guest)
        if gone is not None and guest not in self._ours:
            raise gone

    def wake(self, guest: str) -> None:
        """See freeze.guest_sleep.wake."""
        guest_sleep.wake(self._context, guest)

    def is_ours(self, guest: str) -> bool:
        """Whether the lab itself is freezing, shutting down or removing the guest now."""
        return guest in self._ours

    def resets(self, guest: str) -> tuple[str, int]:
        """The uuid of the guest's domain, and how often the guest has reset itself so far."""
        return unreachable.resets(self._context, guest)

    def state(self, guest: str) -> str:
        """The domain's state in libvirt's words: running, paused, … It is "paused" as well when the lab has
        stopped the process by a signal, which libvirt does not notice. Never waits for QEMU."""
        state = self._context.state(guest)
        freeze = self._freezes.get(guest)
        return "paused" if state == "running" and freeze is not None and freeze.is_stopped else state

    def cpu_time_ns(self, guest: str) -> int:
        """CPU time that the guest's vCPU threads have used on this host. HypervisorError when its QEMU
        process is not on this host."""
        return self._context.cpu_time_ns(guest)

    def cpu_wait(self, guest: str) -> CpuWait | None:
        """How long its QEMU has waited for a CPU of this host so far; None when it has no process here."""
        return self._context.cpu_wait(guest)

    # -- lifecycle --------------------------------------------------------------------------------

    def define_and_start(self, spec: DomainSpec) -> LabDomain:
        """See Domains.start."""
        before = len(self._context.events.lifecycle(spec.uuid))
        try:
            domain = self._context.domains.start(spec)
        except HypervisorError as error:
            raise start_failure(error, spec) from error
        if before:  # until libvirt reports the start, the domain's end is its last event
            self._context.events.wait_lifecycle(spec.uuid, lambda e: e.kind == "started", _STARTED_S, before)
        self._ours.discard(spec.guest)
        self._context.specs[spec.guest] = spec
        return LabDomain.of(spec, state_of(domain), spec.forwarded_port)

    def spec(self, guest: str) -> DomainSpec | None:
        """The present specification of a guest that was started here; None for others."""
        return self._context.specs.get(guest)

    def push_sockets(self, guest: str) -> tuple[Path, ...]:
        """The sockets of a guest's push channel in the processes of specs(); () without such a channel."""
        return tuple(spec.push_socket for spec in self.specs(guest) if spec.push_socket is not None)

    def specs(self, guest: str) -> tuple[DomainSpec, ...]:
        """Its specification and that of a successor that was started and waits; () as for spec()."""
        return tuple(filter(None, (self._context.specs.get(guest), self._context.successors.get(guest))))

    def facts(self) -> HypervisorFacts:
        """Versions, for the record."""
        return facts.versions(self._context.connection, self.uri)

    def emulator(self, accelerator: Accelerator, family: str = "q35", path: Path | None = None) -> Emulator:
        """The emulator and machine type for guests; see facts.emulator. Slow the first time."""
        return facts.emulator(self._context.connection, accelerator, family, path)

    def emulator_of(self, guest: str) -> str:
        """The version that the guest's running QEMU reports: "7.2.22 (Debian …)"."""
        return facts.running_version(lambda command: self.qmp(guest, command))

    def reconnect(self) -> None:
        """Reopen the connection after its daemon was restarted, and find the guests by their uuids.
        HypervisorError when no daemon answers. Not for the embedded driver, which is part of this process."""
        self._context.reconnect()

    def list_lab_domains(self) -> list[LabDomain]:
        """The lab's domains of this home, including those of earlier processes."""
        return self.domains.lab()

    def destroy_kept_guest(self, uuid: str) -> None:
        """End a kept guest's domain by its uuid. Does nothing when it has ended."""
        for domain in self.domains.lab():
            if domain.kept_guest and domain.uuid == uuid:
                self.domains.choose(domain)
                self.destroy(domain.guest)

    def destroy(self, guest: str) -> None:
        """End one of the lab's guests at once (libvirt's destroy). Does nothing when it has ended.
        HypervisorError for a domain that is not the lab's; those are never destroyed."""
        with self._lock:
            freeze = self._freezes.pop(guest, None)
            self._ours.add(guest)
        if guest not in {known.guest for known in self._context.domains.lab()}:
            domain, uuid = self._context.domain(guest)
            if self._context.last_end(uuid) is None and state_of(domain) != "shut off":
                raise HypervisorError("not one of the lab's guests: not destroyed", where=guest)
        else:
            self._context.destroy(guest)
        self._context.forget(guest)
        self.dead_man.release([guest])
        if freeze is not None:
            freeze.abandon()
        if (spec := self._context.specs.get(guest)) is not None:
            for path in spec.sockets:  # a successor's sockets are unknown to the predecessor's starter
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def recover(self, *, resume: bool, but: Collection[str] = ()) -> Iterator[str]:
        """Recover the guests of killed runs: settle their hand-overs and, with `resume`, resume their guests;
        kept guests and the user's own are always resumed. but: runs that are alive. Yields a line for each
        action."""
        yield from own_recovery.resume_all(self._context, but)
        yield from recovery.settle(self._context, but)
        yield from recovery.run_again(self._context, but, all_guests=resume)

    def drop_logs(self, run: str | None = None, archive: Path | None = None) -> list[Path]:
        """Remove libvirt's QEMU logs of ended domains, of one run or of all. Returns the removed files.
        archive: a folder to which logs with messages are moved."""
        there = {domain.name for domain in self.domains.lab()}
        return self._context.logs.drop(f"freezelab-{run or ''}*", archive, there)

    def last_words(self, domain: str) -> str:
        """The last message that the QEMU of a domain of this name has logged; "" without one."""
        return self._context.logs.last(domain)

    def lifecycle(self, guest: str) -> tuple[LifecycleEvent, ...]:
        """See EventLog.lifecycle; rebooted as well. Safe from any thread."""
        return self._context.events.lifecycle(self._context.domain(guest)[1])

    # -- QEMU and the guest agent -----------------------------------------------------------------

    def qmp(self, guest: str, command: str, **arguments: Any) -> Any:
        """Run one QMP command and return its result. libvirt marks the domain as tainted."""
        return self._context.qmp(self._awake(guest), guest, command, **arguments)

    def agent_command(
        self, guest: str, name: str, arguments: dict[str, Any] | None = None, timeout_s: int = 5
    ) -> Any:
        """Run one qemu-guest-agent command; see agent.command."""
        return agent.command(self._awake(guest), guest, name, arguments, timeout_s)

    def agent_ping(self, guest: str) -> Call:
        """Ping the guest's agent; see agent.ping."""
        return agent.ping(self._awake(guest), guest, self._clock, plain=guest in self._context.own)

    def set_time(self, guest: str, by: SetBy = SetBy.NANOSECONDS) -> Call:
        """Set the guest's clock through its agent; see agent.set_time. After a new QEMU process was started,
        libvirt needs up to a second to connect to the agent; the host's time is read only after that."""
        if guest in self._context.strangers:
            self._context.strangers.discard(guest)
            self.agent_ready(guest, self._clock.now().raw_ns + round(paced(_AGENT_NS)))
        return agent.set_time(self._awake(guest), guest, self._clock, by)

    def agent_ready(self, guest: str, deadline_raw_ns: int) -> None:
        """Wait until the guest's agent answers. HypervisorError at CLOCK_MONOTONIC_RAW `deadline_raw_ns`."""
        plain = guest in self._context.own
        agent.wait_ready(self._awake(guest), guest, self._clock, deadline_raw_ns, plain=plain)

    # -- internal ---------------------------------------------------------------------------------

    def _made(self, guest: str, freezing: Freezing) -> Freeze:
        """The guest's prepared freeze, or a new one."""
        if guest not in self._freezes:
            self._freezes[guest] = make(self._context, guest, freezing)
        return self._freezes[guest]

    def _awake(self, guest: str) -> Any:
        freeze = self._freezes.get(guest)
        if freeze is not None and not freeze.monitor_ok:
            raise HypervisorError("its QEMU process is stopped and cannot answer", where=guest)
        return self._context.domain(guest)[0]

    def _why(self, guest: str) -> str:
        tail = self._context.logs.tail(str(self._context.domain(guest)[0].name()))
        return tail if self.state(guest) in ("shut off", "crashed") else ""
