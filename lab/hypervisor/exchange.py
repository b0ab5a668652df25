"""in-place: another QEMU process takes the guest over; its RAM stays where it is.

    prepare   a successor is started paused, waiting for a state, its RAM the same file (share=on);
              x-ignore-shared on both sides keeps RAM out of the stream (QEMU, docs/devel/migration)
    stop      the guest is suspended, its device state goes over a socket, some hundred kilobytes
    go_on     the successor runs; the predecessor is killed, outside the pause
    finish    waits for that

Who may run. Up to the moment in which the successor is told to run, the predecessor is whole: what goes
wrong ends the successor, by SIGKILL, and once that process is gone the predecessor goes on. An incoming
QEMU writes nothing into shared RAM, so there is nothing to take back there. From that moment on the
predecessor never runs again. Should the successor fail in just that moment, its RESUME event decides, which
QEMU sends before it starts a vCPU: only if it was not sent has no instruction run, and the predecessor may.

Disks. QEMU gives up its images and their locks when its state has been sent, and takes them when told to
run (bdrv_inactivate_all, bdrv_activate_all), so that each image has one user at every moment.

Networking. A tap is another one for each process, on the same bridge, and the successor announces the guest's
MAC address there. QEMU's user-mode network dies with its process, and connections with it; the forwarded port
passes to the successor when the predecessor is gone.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, HypervisorError, Interrupted, MachineError, Refused
from lab.hypervisor import losses, migration
from lab.hypervisor.binding import libvirt
from lab.hypervisor.deadman.channel import Token
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import HandOver, MonitorAddress
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.domains import LabDomain
from lab.hypervisor.freezing import charge
from lab.hypervisor.ground import Ground, Steps
from lab.hypervisor.loop import LOOP
from lab.hypervisor.process import QemuProcess, Running
from lab.hypervisor.proving import Prover
from lab.hypervisor.recovery import forward
from lab.ports import Call, Freezing, Frozen, Resumed
from lab.threads import Worker

STATE_NS = 5 * NS_PER_S
"""A device state that is not over by then hangs: it takes some 15 ms, on a very busy host some 100."""

BACK_NS = NS_PER_S
"""Kept of the budget for putting the guest back, but at most a third of it: some 0.1 s, on a busy host ten
times that, for libvirt has to notice that the successor is gone."""

_FILES = 128
"""Open files that a successor's table holds at least; the smallest table has 64."""

RUN_S = 2.0
_LEAST_S = 0.1
"""How long the successor may take to say that it runs, and when the budget is used up."""

END_S = 5.0
"""How long a killed process may take to be gone; unmapping gigabytes takes tenths of seconds."""


class At(Enum):
    PREPARED = auto()  # the guest runs, its successor waits
    MOVED = auto()  # the guest stands still, both hold its state
    BACK = auto()  # on the predecessor for good
    OVER = auto()  # on the successor for good


class Exchange:
    """One exchange of one guest's hypervisor process."""

    answers = True
    settled = True

    def __init__(self, ground: Ground, guest: str, freezing: Freezing) -> None:
        self._ground, self._guest, self._freezing = ground, guest, freezing
        self._steps = Steps(ground, guest)
        self._lock = threading.RLock()
        self._hurry = threading.Event()
        self._at = At.PREPARED
        self._old: DomainSpec
        self._spec: DomainSpec | None = None
        self._domain: Any = None
        self._process: QemuProcess | None = None
        self._socket: Path | None = None
        self._done: Resumed | None = None
        self._prover = Prover(None, self._steps, ground.clock)
        self._retiring: threading.Thread | None = None
        self._failure: FreezelabError | None = None
        self._deadline = 0  # to put the guest back, if it has to be
        self._token = Token()

    @property
    def holds(self) -> bool:
        return self._at is At.MOVED

    # -- before the freeze -------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start the successor. HypervisorError when it cannot be, Refused when the guest would lose something
        there: it runs on, nothing is left."""
        self._spec = spec = self._plan()
        try:
            with self._steps.step("start successor"):
                self._ground.check_emulator(spec)
                self._start(spec)
            with self._steps.step("negotiate"):
                losses.refuse(self._ask(self._predecessor), self._ask(self._domain), self._guest)
                self._offer(self._predecessor)
                self._listen()
        except BaseException:
            self._clear_successor()
            raise

    def _plan(self) -> DomainSpec:
        """The successor to be. Refused when there can be none."""
        old = self._ground.specs.get(self._guest)
        if old is None:
            raise Refused("only a guest that this lab has started can be handed over", where=self._guest)
        if old.memory_file is None:
            raise Refused(
                "its RAM is not in a file, so that no other process can take it over", where=self._guest
            )
        self._old = old
        self._refuse_others()
        if self._freezing.prove_memory:
            self._prover = Prover(old.memory_file, self._steps, self._ground.clock)
        self._socket = self._ground.sockets / f"{secrets.token_hex(4)}.state"
        return self._successor(Path(self._freezing.successor.emulator or old.emulator))

    def _successor(self, emulator: Path) -> DomainSpec:
        """A successor with sockets of its own."""
        old, run = self._old, self._ground.sockets
        agent = run / f"{secrets.token_hex(4)}.agent" if old.agent_socket is not None else None
        probe = run / f"{secrets.token_hex(4)}.probe" if old.probe_socket is not None else None
        monitor = run / f"{secrets.token_hex(4)}.monitor" if old.monitor_socket is not None else None
        return old.successor(emulator, agent, probe, monitor)

    def _start(self, spec: DomainSpec) -> None:
        self._domain = self._ground.domains.create(spec, paused=True)
        self._process = QemuProcess.find(spec.uuid, self._guest)
        self._widen(self._process)

    def _widen(self, process: QemuProcess) -> None:
        """Give the successor a larger table of open files, while nobody waits for it. QEMU opens its 65th
        when its devices start, after RESUME and before the vCPUs; Linux then waits for an RCU grace period to
        enlarge the table of a process with threads (fs/file.c, expand_fdtable): 10 to 15 ms more of pause."""
        more: list[str] = []
        while 0 < process.file_table < _FILES and len(more) < _FILES:
            name = f"labfile{len(more)}"
            backend = {"type": "file", "data": {"out": "/dev/null"}}
            self._ground.qmp(self._domain, self._guest, "chardev-add", id=name, backend=backend)
            more.append(name)
        for name in more:
            self._ground.qmp(self._domain, self._guest, "chardev-remove", id=name)

    def _refuse_others(self) -> None:
        wanted, old = self._freezing.successor, self._old
        for what, asked, has in (
            ("machine type", wanted.machine, old.machine),
            ("CPU model", wanted.cpu, old.cpu),
        ):
            if asked and asked != has:
                raise Refused(
                    f"another {what} on the successor: {asked} instead of {has}, "
                    "whose device state it would not understand",
                    where=self._guest,
                    hint=f"leave {what.split()[0].lower()} out of the patch: the guest keeps its own",
                )

    def _ask(self, domain: Any) -> migration.Ask:
        return functools.partial(self._ground.qmp, domain, self._guest)

    def _offer(self, domain: Any) -> None:
        """What both sides have to agree on."""
        migration.set_capabilities(self._ask(domain), "x-ignore-shared", "events")

    def _listen(self) -> None:
        """Have the successor wait for the state at its socket."""
        ground, guest = self._ground, self._guest
        status = ground.qmp(self._domain, guest, "query-status")["status"]
        if status != "inmigrate":
            raise HypervisorError(f"its successor is {status} instead of waiting", where=guest)
        self._offer(self._domain)
        ground.qmp(self._domain, guest, "migrate-incoming", uri=f"unix:{self._socket}")

    @property
    def _predecessor(self) -> Any:
        return self._ground.domain(self._guest)[0]

    # -- the freeze --------------------------------------------------------------------------------

    def stop(self, deadline_raw_ns: int) -> Frozen:
        """Suspend the guest and hand its state over, or put it back. Returns well before the deadline."""
        if self._spec is None:
            self.prepare()
        self._steps.hand_out()  # what was done before the freeze is not part of it
        with self._lock:
            ground, guest = self._ground, self._guest
            now = ground.clock.now().raw_ns
            self._deadline = deadline_raw_ns - min(BACK_NS, max(0, deadline_raw_ns - now) // 3)
            ground.on_step(guest, "suspend")
            call = ground.suspend(guest)
            try:
                self._hand_over(min(self._deadline, ground.clock.now().raw_ns + self._longest_ns))
            except BaseException as error:
                back = self._go_back(
                    error.what if isinstance(error, FreezelabError) else type(error).__name__
                )
                if not isinstance(error, FreezelabError) or isinstance(error, Interrupted):
                    raise
                return Frozen(call, self._steps.hand_out(), back.call, back.why)
            self._at = At.MOVED
            return Frozen(call, self._steps.hand_out())

    @property
    def _longest_ns(self) -> int:
        return 1 << 62 if self._freezing.prove_memory else STATE_NS

    def _hand_over(self, deadline_raw_ns: int) -> None:
        ground, guest = self._ground, self._guest
        self._prover.look(self._late(deadline_raw_ns))
        since = ground.clock.now().real_ns
        deadline = min(deadline_raw_ns, ground.clock.now().raw_ns + STATE_NS)
        with self._steps.step("state out"):
            ground.qmp(self._predecessor, guest, "migrate", uri=f"unix:{self._socket}")
            self._await(ground.domain(guest)[1], since, deadline)
        with self._steps.step("state in"):
            self._await(self._domain.UUIDString(), since, deadline)
        self._prover.look_again(self._late(deadline_raw_ns))

    def _late(self, deadline_raw_ns: int) -> Callable[[], bool]:
        return lambda: self._hurry.is_set() or not self._ground.left_s(deadline_raw_ns)

    def _await(self, uuid: str, since_real_ns: int, deadline_raw_ns: int) -> None:
        """Wait until one side says that the state is over. HypervisorError when it fails, dies, or hangs."""
        events = self._ground.events
        new_uuid = self._domain.UUIDString() if self._domain is not None else ""

        def look() -> str | None:
            if events.qemu_since(uuid, "MIGRATION completed", since_real_ns):
                return ""
            if self._process is not None and not self._process.alive:
                return f"the successor died{self._said()}"
            if self._ground.last_end(new_uuid) is not None:
                return f"the successor ended{self._said()}"
            for side in {self._ground.domain(self._guest)[1], new_uuid, uuid}:
                if events.qemu_since(side, "MIGRATION failed", since_real_ns):
                    return f"the state was refused{self._said()}"
            return "the budget is nearly used" if self._hurry.is_set() else None

        found = events.wait_until(look, self._ground.left_s(deadline_raw_ns))
        if found is None:
            raise HypervisorError("the successor hangs: its state was not over in time", where=self._guest)
        if found:
            raise HypervisorError(found, where=self._guest)

    def _said(self) -> str:
        """The successor's last words; it may take libvirt's file a moment to have them."""
        if self._spec is None:
            return ""
        last = self._ground.events.wait_until(
            lambda: self._ground.logs.last(self._spec.name) or None if self._spec else None, 0.05
        )
        return f": {last}" if last else ""

    # -- back --------------------------------------------------------------------------------------

    def _go_back(self, why: str) -> Resumed:
        """The guest goes on where it was. HypervisorError when it cannot: then it stands still, whole."""
        ground, guest = self._ground, self._guest
        self._token.take()  # or the dead-man has it, and puts the guest back likewise
        ground.on_step(guest, "go back")
        self._kill_successor()
        self._settle_predecessor()
        self._at = At.BACK
        call = ground.let_run(guest)
        self._done = Resumed(
            call, self._steps.hand_out(), f"put back to the old process: {why}", proof=self._prover.result()
        )
        return self._done

    def _kill_successor(self) -> None:
        """And see it gone: only then may another process use the guest's disk and RAM."""
        if self._process is not None:
            self._process.kill(END_S)

    def _clear_successor(self) -> None:
        """What is left of a successor that is not needed; libvirt takes a second or two. A signal may have
        come when libvirt had just started it, before it was known here."""
        if self._spec is not None and self._domain is None:
            with contextlib.suppress(libvirt.libvirtError):
                self._domain = self._ground.connection.lookupByUUIDString(self._spec.uuid)
            with contextlib.suppress(HypervisorError):
                self._process = QemuProcess.find(self._spec.uuid, self._guest)
        self._kill_successor()
        if self._domain is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._domain.destroy()
        if self._process is not None:
            self._process.close()
        self._process = self._domain = None
        for path in (self._socket, *(self._spec.sockets if self._spec is not None else ())):
            if path is not None:
                path.unlink(missing_ok=True)

    def _settle_predecessor(self) -> None:
        """Out of the migration, whichever way it went: `cont` is refused until then."""
        migration.settle(self._ask(self._predecessor), self._guest, self._ground.clock, RUN_S)

    # -- on ----------------------------------------------------------------------------------------

    def go_on(self) -> Resumed:
        self._hurry.set()  # when it is the guard that asks, in the middle of the hand-over
        self._ground.events.wake()
        with self._lock:
            self._hurry.clear()
            if self._done is not None:
                return self._done
            if self._at is not At.MOVED:
                return Resumed(self._ground.let_run(self._guest))
            steps = self._steps.hand_out()
            try:
                self._ground.on_step(self._guest, "resume")
            except BaseException as error:
                self._go_back(str(error) or type(error).__name__)
                raise
            if not self._token.take():
                why = "the dead-man did so"
                call = Call(now := self._ground.clock.now(), now)
            else:
                call, why = self._run_successor()
            if why:
                back = self._go_back(why)
                self._done = replace(back, steps=(*steps, *back.steps))
                return self._done
            self._over()
            spec = self._spec
            cut = spec is not None and not spec.tap
            self._done = Resumed(call, steps, cut=cut, proof=self._prover.result())
            return self._done

    def _run_successor(self) -> tuple[Call, str]:
        """Tell the successor to run. The call, and why it does not run, which is certain then. libvirt's call
        has no time limit and the successor may hang, so it is made by a thread."""
        ground = self._ground
        uuid = self._domain.UUIDString()
        failure: list[Exception] = []
        called = ground.clock.now()
        process = self._process
        if process is None or not process.alive:
            return Call(called, called), f"the successor died{self._said()}"
        returned = []
        running, ran_ns = Running(process), 0

        def run() -> None:
            nonlocal ran_ns
            try:
                self._domain.resume()
            except libvirt.libvirtError as error:
                failure.append(error)
            ran_ns = running.so_far_ns()
            returned.append(ground.clock.now())
            ground.events.wake()

        worker = Worker(target=run, name=f"resume-{self._guest}", daemon=True)
        worker.start()
        patience = min(RUN_S, max(_LEAST_S, ground.left_s(self._deadline)))
        ground.events.wait_until(lambda: bool(returned) or None, patience)
        hung = not returned
        stamp = ground.events.wait_qemu(uuid, "RESUME", called.real_ns, 0.25 if returned else 0)
        if returned and not failure and process.alive:
            return Call(called, returned[0], stamp, ran_ns), ""
        if stamp is None:
            # Gone, and all that it said has been heard, before it is decided: libvirt reads a monitor to its
            # end before it gives up a call that waits for an answer there.
            process.kill(END_S)
            worker.join(END_S)
            LOOP.flush()
            stamp = ground.events.wait_qemu(uuid, "RESUME", called.real_ns, 0)
        if stamp is None:
            how = "hangs" if hung else "did not run"
            return Call(called, ground.clock.now()), f"the successor {how}{self._said()}"
        if process.alive:
            worker.join(END_S)  # it runs, and is slow to say so
            return Call(called, returned[0] if returned else ground.clock.now(), stamp), ""
        raise HypervisorError(
            "the successor died when it had just begun to run; the guest is lost",
            where=self._guest,
            hint=ground.logs.tail(self._spec.name) if self._spec is not None else "",
        )

    # -- afterwards --------------------------------------------------------------------------------

    def _over(self) -> None:
        self._at = At.OVER
        self._retire()

    def _retire(self) -> None:
        """The guest is the successor from here on; a thread ends the predecessor while the guest runs."""
        ground = self._ground
        if self._spec is None or self._process is None:
            return
        old_domain = self._predecessor
        with contextlib.suppress(HypervisorError):
            ground.process(self._guest)
        old_process = ground.adopt(replace(self._spec, incoming=False), self._domain, self._process)
        self._process = None

        def end() -> None:
            try:
                ground.on_step(self._guest, "retire")
                if old_process is not None:
                    old_process.kill(END_S)
                    old_process.close()
                with contextlib.suppress(libvirt.libvirtError):
                    old_domain.destroy()
                self._take_port()
                for path in (self._socket, *self._old.sockets):
                    if path is not None:
                        path.unlink(missing_ok=True)
            except FreezelabError as error:
                self._failure = error
            except OSError as error:  # a disk that takes nothing any more
                self._failure = MachineError(error.strerror or str(error), where=str(error.filename or ""))

        self._retiring = Worker(target=end, name=f"retire-{self._guest}", daemon=True)
        self._retiring.start()

    def _take_port(self) -> None:
        port = None if self._old.tap else self._old.ssh_port
        if self._spec is not None:
            forward(self._ground, LabDomain.of(self._spec, "running", port))

    def charge(self) -> Charge | None:
        process, old = self._process, self._old
        if process is None or self._spec is None:
            return None
        uuid, socket = self._spec.uuid, self._spec.monitor_socket
        successor = MonitorAddress(str(socket)) if socket else MonitorAddress(uri=self._ground.uri, uuid=uuid)
        return charge(
            HandOver,
            self._ground,
            self._guest,
            process.pidfd,
            self._token.handle,
            successor_pid=process.pid,
            successor=successor,
            port=0 if old.tap else old.ssh_port or 0,
        )

    def abandon(self) -> None:
        self.finish()

    def finish(self) -> None:
        """Wait for what goes on in the background; end a successor that was not needed."""
        if self._retiring is not None:
            self._retiring.join()
        if self._at is not At.OVER:
            self._clear_successor()
        self._token.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
