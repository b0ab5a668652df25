"""A cycle that replaces a lab host's kernel, by orders to the lab host: the guest's ports.Hypervisor, and its
ports.HostPatch.

The stop is a call to the old kernel, the resume one to the new kernel's initramfs, and both are stamped by
this machine's clock, which runs on. The initramfs waits for the order some seconds at most: a guest is not
kept waiting for a controller that has died.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lab.core.clock import Stamp
from lab.core.patch import ReplaceHostKernelPatch
from lab.core.step import Step
from lab.core.timeline import Call, CpuWait, MemoryProof
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.errors import GuestGone, HypervisorError
from lab.hypervisor.kexec.line import KernelLine, Mark
from lab.ports import Clock, Freezing, Frozen, PatchResult, Resumed, Successor

READY_NS = 60 * NS_PER_S
STOP_NS = 20 * NS_PER_S
LOST_NS = 120 * NS_PER_S
"""How long after the deadline of the patch the new kernel may still come up. The lab host is reset then."""

_LOOK_NS = NS_PER_S // 2

SELF_NS = 5 * NS_PER_S
"""How long restore.sh waits for the order to resume."""


class NoGuard:
    """ports.Guard of a lab host: its old kernel and its new one resume the guest by themselves."""

    why = ""

    def __enter__(self) -> NoGuard:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def resumed(self, guest: str) -> Resumed | None:  # noqa: ARG002 - ports.Guard's
        return None

    def bring_forward(self, by_ns: int) -> None:
        """There is no thread that would act."""


class LabHostGuest:
    """The guest in the lab host: ports.Hypervisor. Only what is done to a frozen guest has a meaning here.

    prepare: loads the kernel of a cycle, and starts the keeper.
    alive: HypervisorError when the lab host has ended. watch: a context that tells whether the lab host was
    reset since its begin; nothing else may ask its QEMU meanwhile. reset: resets the lab host.
    wall_clock: the page of the guest's memory that KVM rewrites, for proofs; set by the caller.
    """

    def __init__(
        self,
        line: KernelLine,
        clock: Clock,
        prepare: Callable[[], None],
        alive: Callable[[], None],
        watch: Callable[[], AbstractContextManager[Callable[[], bool]]],
        reset: Callable[[], None],
    ) -> None:
        self._line, self._clock = line, clock
        self._prepare, self._alive, self._watch, self._reset = prepare, alive, watch, reset
        self._watching = contextlib.ExitStack()
        self._rebooted: Callable[[], bool] = lambda: False
        self._left: Stamp | None = None
        self._proving_ns = 0
        self._gone: GuestGone | None = None
        self.wall_clock: int | None = None

    def prepare(self, guest: str, freezing: Freezing) -> None:  # noqa: ARG002 - ports.Hypervisor's
        self._left = None
        self._line.forget()
        self._prepare()
        if self._line.wait("ready", self._clock.now().raw_ns + READY_NS) is None:
            raise HypervisorError("its keeper does not answer", where="lab host")

    def begin_freeze(self, guests: Sequence[str], freezing: Freezing) -> None:
        """The guest is stopped by freeze()."""

    def begin_resume(self, guests: Sequence[str]) -> None:
        """The guest is resumed by resume()."""

    def freeze(self, guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:
        self._line.forget()
        called = self._clock.now()
        proves = freezing.prove_memory
        keep_s = (deadline_raw_ns - called.raw_ns) / NS_PER_S
        self._line.order(f"freeze {keep_s:.1f} {int(proves)}")
        last = called.raw_ns + STOP_NS
        stopped = self._line.wait("stopped", last)
        if stopped is None:
            raise HypervisorError("the guest was not stopped", where=guest)
        saved = self._line.wait("saved", max(last, deadline_raw_ns))
        if saved is None:
            raise HypervisorError("its devices were not saved in time", where=guest)
        steps = [Step("save devices", stopped.at.raw_ns, saved.at.raw_ns)]
        if proves:
            done = self._line.wait("digested", deadline_raw_ns)
            if done is None:
                raise HypervisorError("no time for the proof of its memory", where=guest)
            steps.append(Step("prove memory", saved.at.raw_ns, done.at.raw_ns))
            self._proving_ns = steps[-1].length_ns
        return Frozen(Call(called, stopped.at), tuple(steps))

    def leave(self, deadline_raw_ns: int) -> tuple[list[Step], bool]:
        """Leave for the new kernel, and wait until that has restored the guest. The timed steps, and whether
        it was in time. HypervisorError when the old kernel could not be left, or the new one has failed."""
        self._rebooted = self._watching.enter_context(self._watch())
        self._left = begun = self._clock.now()
        self._line.order("leave")
        try:
            leaving = self._line.wait("leaving", deadline_raw_ns)
        except HypervisorError:
            self._left = None
            raise
        restored = self._come_up(deadline_raw_ns)
        return list(self._steps(begun, leaving)), restored is not None

    def _come_up(self, until_raw_ns: int) -> Mark | None:
        """The mark of the restored guest; None when it has not come by then. HypervisorError when the new
        kernel says that it has failed, or has rebooted the lab host."""
        while True:
            now = self._clock.now().raw_ns
            if (mark := self._line.wait("restored", min(until_raw_ns, now + _LOOK_NS))) is not None:
                return mark
            if self._rebooted():
                raise HypervisorError("the new kernel has rebooted the lab host", where="lab host")
            if now >= until_raw_ns:
                return None

    def _steps(self, begun: Stamp, leaving: Mark | None) -> Iterator[Step]:
        """What is known of the time since `begun`. The kernel's start, and that of its initramfs, follow from
        the uptime in the marks: to 10 ms, and to the time that a mark takes to arrive."""
        if leaving is None:
            return
        yield Step("file systems read-only", begun.raw_ns, leaving.at.raw_ns)
        marks = {mark.name: mark for mark in self._line.marks}
        init, modules = marks.get("init"), marks.get("modules")
        if init is None or not init.text:
            return
        kernel = init.at.raw_ns - init.uptime_ns
        began = kernel + round(float(init.text) * NS_PER_S)
        yield Step("kexec", leaving.at.raw_ns, kernel)
        yield Step("kernel", kernel, began)
        if modules is not None:
            yield Step("modules", began, modules.at.raw_ns)
            if started := marks.get("started"):
                yield Step("start QEMU", modules.at.raw_ns, started.at.raw_ns)
                if restored := marks.get("restored"):
                    yield Step("restore", started.at.raw_ns, restored.at.raw_ns)

    def resume(self, guest: str, freezing: Freezing) -> Resumed:
        with self._watching:
            return self._resume(guest, freezing)

    def _resume(self, guest: str, freezing: Freezing) -> Resumed:
        steps: list[Step] = []
        proof: MemoryProof | None = None
        if self._left is None:
            self._line.forget()
            order, until = "back", self._clock.now().raw_ns + STOP_NS
        else:
            order, until = "go", self._clock.now().raw_ns + LOST_NS
            restored = self._restored(guest, until)
            if freezing.prove_memory:
                proven = self._line.wait("proven", until)
                if proven is not None:
                    steps.append(Step("prove memory again", restored.at.raw_ns, proven.at.raw_ns))
                    proof = self._proof(proven.text, steps[-1])
        called = self._clock.now()
        self._line.order(order)
        resumed = self._line.wait("resumed", until)
        if resumed is None:
            raise HypervisorError("the guest was not resumed", where=guest)
        waited = self._line.last("proven") or self._line.last("restored")
        if self._left is not None and waited is not None and called.raw_ns - waited.at.raw_ns > SELF_NS // 2:
            called = self._left  # the initramfs may have resumed it before, by itself
        steps.append(Step("resume", called.raw_ns, resumed.at.raw_ns))
        return Resumed(Call(called, resumed.at), tuple(steps), proof=proof)

    def _proof(self, text: str, step: Step) -> MemoryProof | None:
        """The proof in a mark; None when it was not completed."""
        with contextlib.suppress(ValueError, TypeError):
            found = json.loads(text)
            found |= {"differing": tuple(found["differing"]), "cost_ns": self._proving_ns + step.length_ns}
            return MemoryProof(**found).allowing(self.wall_clock)
        return None

    def _restored(self, guest: str, until_raw_ns: int) -> Mark:
        """The mark of the restored guest. GuestGone when the new kernel does not come up, or cannot restore
        it: the lab host is reset then, if that has not reset it."""
        why = f"the new kernel did not restore it within {format_duration(LOST_NS)}"
        with contextlib.suppress(GuestGone):
            try:
                if (mark := self._come_up(until_raw_ns)) is not None:
                    return mark
            except HypervisorError as error:
                why = error.what
        rebooted = self._rebooted()
        self._watching.close()
        if not rebooted:
            self._reset()
        self._gone = GuestGone(f"the guest is lost: {why}", where=f"guest {guest}", ended=True)
        raise self._gone

    def finish(self, guest: str) -> None:
        """Nothing is left running."""

    def guard(
        self,
        guests: Sequence[str],  # noqa: ARG002 - ports.Hypervisor's
        freezing: Freezing,  # noqa: ARG002
        at_raw_ns: int,  # noqa: ARG002
        until_raw_ns: int,  # noqa: ARG002
        cycle: int,  # noqa: ARG002
    ) -> NoGuard:
        """See NoGuard."""
        return NoGuard()

    def shutdown(self, guest: str, deadline_raw_ns: int) -> Call:  # noqa: ARG002
        raise HypervisorError("a guest of a lab host is not shut down", where=guest)

    def start(self, guest: str, successor: Successor) -> Call:  # noqa: ARG002
        raise HypervisorError("a guest of a lab host is not started again", where=guest)

    def state(self, guest: str) -> str:  # noqa: ARG002 - ports.Hypervisor's
        return "shut off" if self._gone is not None else "running"

    def look(self, guest: str) -> None:  # noqa: ARG002 - ports.Hypervisor's
        if self._gone is not None:
            raise self._gone
        self._alive()

    def wake(self, guest: str) -> None:
        """A guest that is asleep here stays so."""

    def cpu_time_ns(self, guest: str) -> int:  # noqa: ARG002 - ports.Hypervisor's
        return 0

    def cpu_wait(self, guest: str) -> CpuWait | None:  # noqa: ARG002 - ports.Hypervisor's
        return None


class ReplaceHostKernel:
    """ports.HostPatch. version: of the lab host's kernel, with the id of its boot."""

    acts, successor = True, Successor()

    def __init__(
        self,
        spec: ReplaceHostKernelPatch,
        clock: Clock,
        guest: LabHostGuest,
        check: Callable[[], None],
        version: Callable[[], str],
    ) -> None:
        self.label, self.impact = spec.label, spec.impact
        self._spec, self._clock, self._guest = spec, clock, guest
        self._check, self._version = check, version

    def check(self) -> None:
        self._check()

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        return self._version()

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        until = min(deadline_raw_ns, self._clock.now().raw_ns + self._spec.deadline_ns)
        facts: dict[str, Any] = {}
        try:
            steps, in_time = self._guest.leave(until - 2 * NS_PER_MS)
        except HypervisorError as error:
            return PatchResult(False, error.what, facts)
        why = "" if in_time else "still running after its time: the new kernel had not restored the guest"
        return PatchResult(in_time, why, facts, tuple(steps))

    def verify(self, before: str, after: str) -> str:
        return (
            "the lab host has the same kernel as before, and was not booted again" if before == after else ""
        )

    def undo(self) -> str:
        return ""
