"""in-place: another QEMU process takes the guest over; its RAM stays where it is.

    prepare   a successor is started paused, waiting for a state, with the same RAM file (share=on);
              x-ignore-shared on both sides keeps RAM out of the stream (QEMU, docs/devel/migration)
    stop      the running guest's state is sent over a socket. When only the device state is left, some
              30 kilobytes, QEMU stops the guest. When nothing is to be done in the pause, this step ends
              as soon as the state has been sent
    resume    the successor runs, as soon as it has read the state; the predecessor is killed, outside the
              pause
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

from lab.core.clock import Stamp
from lab.core.clocksource import STATE_OUT
from lab.core.units import NS_PER_S
from lab.core.witnesses import event_in
from lab.errors import FreezelabError, HypervisorError, Interrupted, MachineError
from lab.hypervisor import handover_check, migration
from lab.hypervisor.binding import libvirt
from lab.hypervisor.context import END_S, LibvirtContext, Steps
from lab.hypervisor.control import QemuControl, wait_for
from lab.hypervisor.deadman.channel import Token
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import HandOver, MonitorAddress
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.domains import LabDomain
from lab.hypervisor.freeze.base import OneByOne, charge
from lab.hypervisor.memory_proof import MemoryProver
from lab.hypervisor.qmp import MonitorError
from lab.hypervisor.recovery import forward
from lab.hypervisor.run_state import OrderSteps, ResumeOrder, StopOrder
from lab.hypervisor.successor import RUN_S, SuccessorProcess, asker, offer
from lab.ports import Call, Freezing, Frozen, Resumed
from lab.threads import Worker

STATE_NS = 5 * NS_PER_S
"""Time limit for the transfer of a device state: some 15 ms, and some 100 ms on a very busy host."""

BACK_NS = NS_PER_S
"""The part of the budget for a roll-back, but at most a third of the budget. A roll-back takes some 0.1 s,
and ten times that on a busy host, because libvirt has to notice that the successor is gone."""


class At(Enum):
    PREPARED = auto()  # the guest runs, its successor waits
    LEAVING = auto()  # its state is being sent; QEMU has stopped it, or will
    MOVED = auto()  # the guest is stopped, and both have its state, or the successor is reading it
    ROLLED_BACK = auto()  # finally on the predecessor
    COMMITTED = auto()  # finally on the successor


class Exchange(OneByOne):
    """One exchange of one guest's hypervisor process."""

    monitor_ok = True
    settled = True
    _rescue = HandOver
    _offer = staticmethod(offer)  # sets what both sides must share, in one of them

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self._steps = Steps(context, guest)
        self._lock = threading.RLock()
        self._hurry = threading.Event()
        self._at = At.PREPARED
        self._new = SuccessorProcess(context, guest, freezing)
        self._old: QemuControl
        self._old_domain: Any = None
        self._called: Stamp | None = None  # when the state began to be sent
        self._number = 0  # of the command to send it
        self._taken_in = False  # the successor has read it
        self._stopped: Call | None = None
        self._done: Resumed | None = None
        self._prover = MemoryProver(None, self._steps, context.clock)
        self._retiring: threading.Thread | None = None
        self._failure: FreezelabError | None = None
        self._deadline = 0  # of a roll-back
        self._token = Token()

    @property
    def is_stopped(self) -> bool:
        return self._at in (At.LEAVING, At.MOVED)

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
                ask = asker(self._old, self._guest)
                handover_check.refuse(ask, self._new.ask, self._guest)
                self._offer(ask)
                self._new.listen(self._offer)
        except BaseException:
            self._new.clear()
            raise

    def _plan(self) -> DomainSpec:
        """The successor's specification. Refused when none is possible."""
        spec = self._new.plan(shares_memory=self._freezing.method.traits.shares_memory)
        self._old_domain, self._old = self._context.domain(self._guest)[0], self._context.control(self._guest)
        if self._freezing.prove_memory:
            page, clock = self._context.wall_clocks.get(self._guest), self._context.clock
            self._prover = MemoryProver(self._new.old.memory_file, self._steps, clock, page)
        return spec

    # -- the freeze --------------------------------------------------------------------------------

    def begin_stop(self) -> OrderSteps:
        return (self._begin_to_leave,)

    def _begin_to_leave(self) -> None:
        """Have QEMU send the running guest's state. It stops the guest when all but the device state is
        sent, so that only that is part of the pause. HypervisorError when QEMU has ended."""
        if self._new.spec is None or self._called is not None or self._freezing.prove_memory:
            return  # of RAM that is to be proven unchanged, a digest is taken first, in the pause
        self._context.on_step(self._guest, "suspend")
        self._send_state()

    def _send_state(self) -> None:
        self._at, self._called = At.LEAVING, self._context.clock.now()
        try:
            self._number = self._old.send("migrate", uri=f"unix:{self._new.socket}")
        except MonitorError as error:
            raise HypervisorError(str(error), where=self._guest) from error

    def stop(self, deadline_raw_ns: int) -> Frozen:
        """Hand the guest's state over, which stops it, or roll back. Returns well before CLOCK_MONOTONIC_RAW
        `deadline_raw_ns`."""
        if self._new.spec is None:
            self.prepare()
        self._steps.hand_out()  # steps before the freeze are not part of it
        with self._lock:
            now = self._context.clock.now().raw_ns
            self._deadline = deadline_raw_ns - min(BACK_NS, max(0, deadline_raw_ns - now) // 3)
            try:
                self._stopped = call = self._stop()
                self._hand_over(min(self._deadline, self._context.clock.now().raw_ns + self._longest_ns))
            except BaseException as error:
                self._stopped = call = self._stopped or self._stop_in_place()
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

    def _stop(self) -> Call:
        """Stop the guest: by its state being sent, or before that. HypervisorError when that fails."""
        if self._freezing.prove_memory:
            self._context.on_step(self._guest, "suspend")
            return StopOrder(self._context, self._guest).done()
        self._begin_to_leave()
        called = self._called or self._context.clock.now()
        self._wait(self._old, "STOP", called.real_ns, min(self._deadline, called.raw_ns + STATE_NS))
        returned = self._context.clock.now()
        stop = self._old.event("STOP", called.real_ns)
        call = Call(called, returned, stop.real_ns if stop is not None else None)
        if (active := self._old.event("MIGRATION active", called.real_ns)) is not None:
            # The guest ran until after QEMU had begun to send, so the call need not count from earlier.
            began = event_in(replace(call, event_real_ns=active.real_ns))
            if began is not None:
                call = replace(call, called=Stamp(began.low_ns, active.real_ns))
        return call

    def _stop_in_place(self) -> Call:
        """Stop a guest whose hand-over has failed before QEMU had stopped it, so that its roll-back is like
        any other."""
        call = StopOrder(self._context, self._guest).done()
        if call.event_real_ns is None and self._called is not None:  # QEMU had stopped it already
            stop = self._old.event("STOP", self._called.real_ns)
            return Call(self._called, call.returned, stop.real_ns if stop is not None else None)
        return call

    def _hand_over(self, deadline_raw_ns: int) -> None:
        self._prover.look(self._late(deadline_raw_ns))
        deadline = min(deadline_raw_ns, self._context.clock.now().raw_ns + STATE_NS)
        with self._steps.step(STATE_OUT):
            since = self._leave()
            self._wait(self._old, "MIGRATION completed", since, deadline)
        if not self._freezing.at_once or self._freezing.prove_memory:
            self._take_in(deadline)
        self._prover.look_again(self._late(deadline_raw_ns))

    def _take_in(self, deadline_raw_ns: int) -> None:
        """Wait until the successor has read the state. It is not told to run before: `cont` takes the disks,
        also while the state is being read, and guests were lost by that."""
        if self._new.control is not None and not self._taken_in:
            with self._steps.step("state in"):
                self._wait(self._new.control, "MIGRATION completed", self._leave(), deadline_raw_ns)
        self._taken_in = True

    def _await_state(self) -> str:
        """Why the successor does not have the state; "" when it has."""
        try:
            self._take_in(min(self._deadline, self._context.clock.now().raw_ns + STATE_NS))
        except HypervisorError as error:
            return error.what
        return ""

    def _leave(self) -> int:
        """Have the state sent if it is not being sent yet. Returns since when, in host CLOCK_REALTIME."""
        if self._called is None:
            self._send_state()
        return self._called.real_ns if self._called is not None else 0

    def _late(self, deadline_raw_ns: int) -> Callable[[], bool]:
        return lambda: self._hurry.is_set() or not self._context.left_s(deadline_raw_ns)

    def _wait(self, side: QemuControl, kind: str, since_real_ns: int, deadline_raw_ns: int) -> None:
        """Wait until one side has sent this event. HypervisorError when a side fails, ends, or hangs."""
        sides = [one for one in (self._old, self._new.control) if one is not None]
        new_uuid = self._new.domain.UUIDString() if self._new.domain is not None else ""

        def look() -> str | None:
            self._look_on()
            if side.event(kind, since_real_ns):
                return ""
            if self._new.process is not None and not self._new.process.alive:
                return f"the successor died{self._new.last_words()}"
            if self._context.last_end(new_uuid) is not None:
                return f"the successor ended{self._new.last_words()}"
            if why := self._old.refusal(self._number):
                return why
            if side is self._old and self._old.ended:
                return "its QEMU process has ended"
            if any(one.event("MIGRATION failed", since_real_ns) for one in sides):
                return f"the device state was refused{self._new.last_words()}"
            return "the budget is nearly used up" if self._hurry.is_set() else None

        found = wait_for(sides, look, self._context.left_s(deadline_raw_ns), self._context.events)
        if found != "":
            raise HypervisorError(found or self._too_late(kind), where=self._guest)

    def _look_on(self) -> None:
        """Called at least every 20 ms while a side is waited for."""

    def _await_end(self) -> None:
        """Wait until the predecessor may end, while the guest runs. HypervisorError when it must not."""

    def _too_late(self, _kind: str) -> str:
        """Why this event has not come in time."""
        return "the successor hangs: the transfer of the device state did not complete in time"

    # -- back --------------------------------------------------------------------------------------

    def _go_back(self, why: str) -> Resumed:
        """Roll back to the predecessor. HypervisorError when that fails; the guest is then stopped but
        intact."""
        self._token.take()  # if the dead-man has it, it rolls back as well
        self._context.on_step(self._guest, "go back")
        self._new.kill()
        # QEMU refuses `cont` until the predecessor's migration has ended.
        migration.settle(asker(self._old, self._guest), self._guest, self._context.clock, RUN_S)
        self._at = At.ROLLED_BACK
        call = ResumeOrder(self._context, self._guest).done()
        if call.event_real_ns is None and self._stopped is not None:
            # QEMU resumes a guest by itself when the state that it was stopped for cannot be sent.
            stop = self._stopped
            own = self._old.event("RESUME", stop.event_real_ns or stop.called.real_ns)
            call = Call(stop.returned, call.returned, own.real_ns if own is not None else None)
        self._done = Resumed(
            call, self._steps.hand_out(), f"put back to the old process: {why}", proof=self._prover.result()
        )
        return self._done

    # -- on ----------------------------------------------------------------------------------------

    def resume(self) -> Resumed:
        self._hurry.set()  # in case the guard resumes in the middle of the hand-over
        self._context.events.wake()
        with self._lock:
            self._hurry.clear()
            if self._done is not None:
                return self._done
            if self._at is At.LEAVING:
                return self._go_back("the freeze was called off")
            if self._at is not At.MOVED:
                return Resumed(ResumeOrder(self._context, self._guest).done())
            try:
                why = self._await_state()
                steps = self._steps.hand_out()
                self._context.on_step(self._guest, "resume")
            except BaseException as error:
                self._go_back(str(error) or type(error).__name__)
                raise
            if not why and self._token.take():
                call, why = self._new.run(self._deadline)
            else:
                why = why or "the dead-man resumed it there"
            if why:
                back = self._go_back(why)
                self._done = replace(back, steps=(*steps, *back.steps))
                return self._done
            self._over()
            cut = not self._new.old.tap
            self._done = Resumed(call, steps, cut=cut, proof=self._prover.result())
            return self._done

    # -- afterwards --------------------------------------------------------------------------------

    def _over(self) -> None:
        self._at = At.COMMITTED
        self._retire()

    def _retire(self) -> None:
        """Make the successor the guest's process. A thread ends the predecessor while the guest runs."""
        context, spec = self._context, self._new.spec
        if spec is None or self._new.process is None or self._new.control is None:
            return
        with contextlib.suppress(HypervisorError):
            context.process(self._guest)
        spec = replace(spec, incoming=False)
        old_process = context.adopt(spec, self._new.domain, self._new.process, self._new.control)
        self._new.process = self._new.control = None

        def end() -> None:
            try:
                context.on_step(self._guest, "retire")
                self._await_end()
                if old_process is not None:
                    old_process.kill(END_S)
                    old_process.close()
                with contextlib.suppress(libvirt.libvirtError):
                    self._old_domain.destroy()
                forward(context, LabDomain.of(spec, "running", self._new.old.forwarded_port))
                for path in (self._new.socket, *self._new.old.sockets):
                    if path is not None:
                        path.unlink(missing_ok=True)
            except FreezelabError as error:
                self._failure = error
            except OSError as error:  # the disk is full or failing
                self._failure = MachineError(error.strerror or str(error), where=str(error.filename or ""))

        self._retiring = Worker(target=end, name=f"retire-{self._guest}", daemon=True)
        self._retiring.start()

    def charge(self) -> Charge | None:
        process, old, context = self._new.process, self._new.old, self._context
        if process is None or self._new.spec is None:
            return None
        uuid, socket = self._new.spec.uuid, self._new.spec.monitor_socket
        successor = MonitorAddress(str(socket)) if socket else MonitorAddress(uri=context.uri, uuid=uuid)
        return charge(
            self._rescue,
            context,
            self._guest,
            process.pidfd,
            self._token.handle,
            successor_pid=process.pid,
            successor=successor,
            port=old.forwarded_port or 0,
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
