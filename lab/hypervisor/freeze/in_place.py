"""in-place: another QEMU process takes the guest over; its RAM stays where it is.

    prepare   a successor is started paused, waiting for a state, with the same RAM file (share=on);
              x-ignore-shared on both sides keeps RAM out of the stream (QEMU, docs/devel/migration)
    stop      the guest is suspended, and its device state, some hundred kilobytes, is sent over a socket
    resume    the successor runs; the predecessor is killed, outside the pause
    finish    waits for that

Which process may run. Until the successor is told to run, the predecessor is intact: on any failure the
successor is killed, and once its process is gone the predecessor resumes. An incoming QEMU writes nothing to
shared RAM, so the RAM is unchanged. Once the successor has been told to run, the predecessor never runs
again. When the successor fails at just that time, its RESUME event decides, which QEMU sends before it starts
a vCPU: only if the event was not sent, no instruction has run, and the predecessor may resume.

Disks. QEMU releases its images and their locks when its state has been sent, and takes them when it is told
to run (bdrv_inactivate_all, bdrv_activate_all), so that each image has at most one user at any time.

Networking. Each process has its own tap on the same bridge, and the successor announces the guest's MAC
address there. QEMU's user-mode network ends with its process, and so do its connections; the forwarded port
passes to the successor when the predecessor is gone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import Any

from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, HypervisorError, Interrupted, MachineError
from lab.hypervisor import handover_check, migration
from lab.hypervisor.binding import libvirt
from lab.hypervisor.context import LibvirtContext, Steps
from lab.hypervisor.deadman.channel import Token
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import HandOver, MonitorAddress
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.domains import LabDomain
from lab.hypervisor.freeze.base import charge
from lab.hypervisor.loop import LOOP
from lab.hypervisor.memory_proof import MemoryProver
from lab.hypervisor.process import Running
from lab.hypervisor.recovery import forward
from lab.hypervisor.successor import END_S, SuccessorProcess
from lab.ports import Call, Freezing, Frozen, Resumed
from lab.threads import Worker

STATE_NS = 5 * NS_PER_S
"""Time limit for the transfer of a device state, which takes some 15 ms, and some 100 ms on a very busy
host."""

BACK_NS = NS_PER_S
"""The part of the budget for a roll-back, but at most a third of the budget. A roll-back takes some 0.1 s,
and ten times that on a busy host, because libvirt has to notice that the successor is gone."""

RUN_S = 2.0
_LEAST_S = 0.1
"""The shortest time limit for the successor to report that it runs, even when the budget is used up."""


class At(Enum):
    PREPARED = auto()  # the guest runs, its successor waits
    MOVED = auto()  # the guest is stopped, and both have its state
    ROLLED_BACK = auto()  # finally on the predecessor
    COMMITTED = auto()  # finally on the successor


class Exchange:
    """One exchange of one guest's hypervisor process."""

    monitor_ok = True
    settled = True

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self._steps = Steps(context, guest)
        self._lock = threading.RLock()
        self._hurry = threading.Event()
        self._at = At.PREPARED
        self._new = SuccessorProcess(context, guest, freezing)
        self._done: Resumed | None = None
        self._prover = MemoryProver(None, self._steps, context.clock)
        self._retiring: threading.Thread | None = None
        self._failure: FreezelabError | None = None
        self._deadline = 0  # of a roll-back
        self._token = Token()

    @property
    def is_stopped(self) -> bool:
        return self._at is At.MOVED

    # -- before the freeze -------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start the successor. HypervisorError when that fails, Refused when the guest would lose something
        there. The guest runs on then, and nothing is left behind."""
        self._new.spec = spec = self._plan()
        try:
            with self._steps.step("start successor"):
                self._context.check_emulator(spec)
                self._new.start(spec)
            with self._steps.step("negotiate"):
                handover_check.refuse(
                    self._new.ask(self._predecessor), self._new.ask(self._new.domain), self._guest
                )
                self._new.offer(self._predecessor)
                self._new.listen()
        except BaseException:
            self._new.clear()
            raise

    def _plan(self) -> DomainSpec:
        """The successor's specification. Refused when none is possible."""
        spec = self._new.plan()
        if self._freezing.prove_memory:
            self._prover = MemoryProver(self._new.old.memory_file, self._steps, self._context.clock)
        return spec

    @property
    def _predecessor(self) -> Any:
        return self._context.domain(self._guest)[0]

    # -- the freeze --------------------------------------------------------------------------------

    def stop(self, deadline_raw_ns: int) -> Frozen:
        """Suspend the guest and hand its state over, or roll back. Returns well before CLOCK_MONOTONIC_RAW
        `deadline_raw_ns`."""
        if self._new.spec is None:
            self.prepare()
        self._steps.hand_out()  # steps before the freeze are not part of it
        with self._lock:
            context, guest = self._context, self._guest
            now = context.clock.now().raw_ns
            self._deadline = deadline_raw_ns - min(BACK_NS, max(0, deadline_raw_ns - now) // 3)
            context.on_step(guest, "suspend")
            call = context.suspend(guest)
            try:
                self._hand_over(min(self._deadline, context.clock.now().raw_ns + self._longest_ns))
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
        context, guest = self._context, self._guest
        self._prover.look(self._late(deadline_raw_ns))
        since = context.clock.now().real_ns
        deadline = min(deadline_raw_ns, context.clock.now().raw_ns + STATE_NS)
        with self._steps.step("state out"):
            context.qmp(self._predecessor, guest, "migrate", uri=f"unix:{self._new.socket}")
            self._await(context.domain(guest)[1], since, deadline)
        with self._steps.step("state in"):
            self._await(self._new.domain.UUIDString(), since, deadline)
        self._prover.look_again(self._late(deadline_raw_ns))

    def _late(self, deadline_raw_ns: int) -> Callable[[], bool]:
        return lambda: self._hurry.is_set() or not self._context.left_s(deadline_raw_ns)

    def _await(self, uuid: str, since_real_ns: int, deadline_raw_ns: int) -> None:
        """Wait until one side reports that the state was transferred. HypervisorError when a side fails,
        ends, or hangs."""
        events = self._context.events
        new_uuid = self._new.domain.UUIDString() if self._new.domain is not None else ""

        def look() -> str | None:
            if events.qemu_since(uuid, "MIGRATION completed", since_real_ns):
                return ""
            if self._new.process is not None and not self._new.process.alive:
                return f"the successor died{self._new.last_words()}"
            if self._context.last_end(new_uuid) is not None:
                return f"the successor ended{self._new.last_words()}"
            for side in {self._context.domain(self._guest)[1], new_uuid, uuid}:
                if events.qemu_since(side, "MIGRATION failed", since_real_ns):
                    return f"the device state was refused{self._new.last_words()}"
            return "the budget is nearly used up" if self._hurry.is_set() else None

        found = events.wait_until(look, self._context.left_s(deadline_raw_ns))
        if found is None:
            raise HypervisorError(
                "the successor hangs: the transfer of the device state did not complete in time",
                where=self._guest,
            )
        if found:
            raise HypervisorError(found, where=self._guest)

    # -- back --------------------------------------------------------------------------------------

    def _go_back(self, why: str) -> Resumed:
        """Roll back to the predecessor. HypervisorError when that fails; the guest is then stopped but
        intact."""
        context, guest = self._context, self._guest
        self._token.take()  # if the dead-man has it, it rolls back as well
        context.on_step(guest, "go back")
        self._new.kill()
        self._settle_predecessor()
        self._at = At.ROLLED_BACK
        call = context.let_run(guest)
        self._done = Resumed(
            call, self._steps.hand_out(), f"put back to the old process: {why}", proof=self._prover.result()
        )
        return self._done

    def _settle_predecessor(self) -> None:
        """Wait for the end of the predecessor's migration, because QEMU refuses `cont` until then."""
        migration.settle(self._new.ask(self._predecessor), self._guest, self._context.clock, RUN_S)

    # -- on ----------------------------------------------------------------------------------------

    def resume(self) -> Resumed:
        self._hurry.set()  # in case the guard resumes in the middle of the hand-over
        self._context.events.wake()
        with self._lock:
            self._hurry.clear()
            if self._done is not None:
                return self._done
            if self._at is not At.MOVED:
                return Resumed(self._context.let_run(self._guest))
            steps = self._steps.hand_out()
            try:
                self._context.on_step(self._guest, "resume")
            except BaseException as error:
                self._go_back(str(error) or type(error).__name__)
                raise
            if not self._token.take():
                why = "the dead-man resumed it there"
                call = Call(now := self._context.clock.now(), now)
            else:
                call, why = self._run_successor()
            if why:
                back = self._go_back(why)
                self._done = replace(back, steps=(*steps, *back.steps))
                return self._done
            self._over()
            spec = self._new.spec
            cut = spec is not None and not spec.tap
            self._done = Resumed(call, steps, cut=cut, proof=self._prover.result())
            return self._done

    def _run_successor(self) -> tuple[Call, str]:
        """Tell the successor to run. Returns the call, and why the successor certainly has not run, ""
        otherwise. The call is made in a thread, because libvirt has no time limit for it and the successor
        may hang."""
        context = self._context
        uuid = self._new.domain.UUIDString()
        failure: list[Exception] = []
        called = context.clock.now()
        process = self._new.process
        if process is None or not process.alive:
            return Call(called, called), f"the successor died{self._new.last_words()}"
        returned = []
        running, ran_ns = Running(process), 0

        def run() -> None:
            nonlocal ran_ns
            try:
                self._new.domain.resume()
            except libvirt.libvirtError as error:
                failure.append(error)
            ran_ns = running.so_far_ns()
            returned.append(context.clock.now())
            context.events.wake()

        worker = Worker(target=run, name=f"resume-{self._guest}", daemon=True)
        worker.start()
        patience = min(RUN_S, max(_LEAST_S, context.left_s(self._deadline)))
        context.events.wait_until(lambda: bool(returned) or None, patience)
        hung = not returned
        stamp = context.events.wait_qemu(uuid, "RESUME", called.real_ns, 0.25 if returned else 0)
        if returned and not failure and process.alive:
            return Call(called, returned[0], stamp, ran_ns), ""
        if stamp is None:
            # Decide only when the process is gone and all of its events have been read: libvirt reads a
            # monitor to its end before it fails a call that waits for an answer.
            process.kill(END_S)
            worker.join(END_S)
            LOOP.flush()
            stamp = context.events.wait_qemu(uuid, "RESUME", called.real_ns, 0)
        if stamp is None:
            how = "hangs" if hung else "did not run"
            return Call(called, context.clock.now()), f"the successor {how}{self._new.last_words()}"
        if process.alive:
            worker.join(END_S)  # it runs, and reports that late
            return Call(called, returned[0] if returned else context.clock.now(), stamp), ""
        raise HypervisorError(
            "the successor died just after it had begun to run; the guest is lost",
            where=self._guest,
            hint=context.logs.tail(self._new.spec.name) if self._new.spec is not None else "",
        )

    # -- afterwards --------------------------------------------------------------------------------

    def _over(self) -> None:
        self._at = At.COMMITTED
        self._retire()

    def _retire(self) -> None:
        """Make the successor the guest's process. A thread ends the predecessor while the guest runs."""
        context = self._context
        if self._new.spec is None or self._new.process is None:
            return
        old_domain = self._predecessor
        with contextlib.suppress(HypervisorError):
            context.process(self._guest)
        old_process = context.adopt(
            replace(self._new.spec, incoming=False), self._new.domain, self._new.process
        )
        self._new.process = None

        def end() -> None:
            try:
                context.on_step(self._guest, "retire")
                if old_process is not None:
                    old_process.kill(END_S)
                    old_process.close()
                with contextlib.suppress(libvirt.libvirtError):
                    old_domain.destroy()
                self._take_port()
                for path in (self._new.socket, *self._new.old.sockets):
                    if path is not None:
                        path.unlink(missing_ok=True)
            except FreezelabError as error:
                self._failure = error
            except OSError as error:  # the disk is full or failing
                self._failure = MachineError(error.strerror or str(error), where=str(error.filename or ""))

        self._retiring = Worker(target=end, name=f"retire-{self._guest}", daemon=True)
        self._retiring.start()

    def _take_port(self) -> None:
        port = None if self._new.old.tap else self._new.old.ssh_port
        if self._new.spec is not None:
            forward(self._context, LabDomain.of(self._new.spec, "running", port))

    def charge(self) -> Charge | None:
        process, old = self._new.process, self._new.old
        if process is None or self._new.spec is None:
            return None
        uuid, socket = self._new.spec.uuid, self._new.spec.monitor_socket
        successor = (
            MonitorAddress(str(socket)) if socket else MonitorAddress(uri=self._context.uri, uuid=uuid)
        )
        return charge(
            HandOver,
            self._context,
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
        """Wait for the background thread, and end a successor that was not needed."""
        if self._retiring is not None:
            self._retiring.join()
        if self._at is not At.COMMITTED:
            self._new.clear()
        self._token.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
