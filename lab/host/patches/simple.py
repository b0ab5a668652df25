"""hold, which changes nothing, and command, which runs a program of the user's."""

from __future__ import annotations

from typing import Any

from lab.core import patch as plan
from lab.core.units import format_duration
from lab.errors import MachineError, Refused
from lab.host.patches.base import MARGIN_NS, TAIL, Base, Work, failure, one_line, seconds
from lab.ports import Clock, PatchResult
from lab.process import runner


class Hold(Base):
    """Waits for a given time and changes nothing."""

    def __init__(self, spec: plan.HoldPatch, clock: Clock) -> None:
        super().__init__(spec.label, spec.impact)
        self._spec, self._clock = spec, clock
        self.acts = spec.duration_ns > 0

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Wait for the patch's length, or until just before the deadline, which is not ok."""
        began = self._clock.now().raw_ns
        wanted = began + self._spec.duration_ns
        last = deadline_raw_ns - MARGIN_NS
        early = self._wait(min(wanted, last))
        lasted_ns = self._clock.now().raw_ns - began
        if wanted > last and not early:
            length = format_duration(self._spec.duration_ns)
            why = f"held {seconds(lasted_ns)} of {length}, then {plan.OUT_OF_TIME}"
            return PatchResult(False, why, {"held_ns": lasted_ns})
        return PatchResult(True, "", {"held_ns": lasted_ns})

    def _wait(self, until_raw_ns: int) -> bool:
        """Wait until then. True when the wait was ended before."""
        self._clock.sleep_until(until_raw_ns)
        return False


class Command(Base):
    """Runs a program from an argv list, without a shell. Its process group is killed when it ends; at its
    deadline everything that it has started is killed, daemons as well."""

    def __init__(self, spec: plan.CommandPatch, clock: Clock) -> None:
        super().__init__(spec.label, spec.impact)
        self._spec, self._clock = spec, clock

    def check(self) -> None:
        """MachineError when the program or the undo's program is missing or not executable."""
        runner.find(self._spec.argv[0])
        if self._spec.undo:
            runner.find(self._spec.undo[0])

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Run the program. It is killed at its own time limit, or early enough before CLOCK_MONOTONIC_RAW
        `deadline_raw_ns`."""
        began = self._clock.now().raw_ns
        left = deadline_raw_ns - MARGIN_NS - began
        grace = min(runner.GRACE_NS, left // 2)
        if grace <= 0:
            return PatchResult(False, f"{plan.NO_TIME_LEFT} it")
        stop_at = min(began + self._spec.deadline_ns, began + left - grace)
        try:
            done = runner.execute(
                self._spec.argv,
                self._clock,
                stop_at_raw_ns=stop_at,
                stop=runner.Stop(grace_ns=grace),
                output_max=TAIL * 4,
                tree=True,
            )
        except MachineError as error:
            return PatchResult(False, error.what)
        facts: dict[str, Any] = {"status": done.status, "took_ns": done.took_ns}
        for name, text in (("stdout", done.stdout), ("stderr", done.stderr)):
            if text:
                facts[name] = text[-TAIL:]
        return PatchResult(done.ok, failure(done), facts)

    def undo(self) -> str:
        """Run the undo's program, with the patch's time limit."""
        if not self._spec.undo:
            return ""
        try:
            work = Work(self._clock, self._clock.now().raw_ns + self._spec.deadline_ns)
            done = work.run(*self._spec.undo, tree=True)
        except MachineError as error:
            raise MachineError(
                f"not undone: {one_line(error)}",
                where=self.label,
                hint=f"the host is as the patch left it; to undo it by hand: {runner.quote(self._spec.undo)}",
            ) from error
        return f"{runner.quote(self._spec.undo)}: done in {seconds(done.took_ns)}"


class OfLabHost(Base):
    """replace-host-kernel where it is not done: on the host of the controller, whose kernel it would end."""

    def __init__(self, spec: plan.ReplaceHostKernelPatch) -> None:
        super().__init__(spec.label, spec.impact)

    def check(self) -> None:
        """Always Refused."""
        what = "this host's kernel is not replaced: the program that resumes guests runs on it"
        raise Refused(what, where=self.label, hint="freezelab --on labhost run … (docs/kexec.md)")

    def apply(self, deadline_raw_ns: int) -> PatchResult:  # noqa: ARG002 - ports.HostPatch's
        return PatchResult(False, "this host's kernel is not replaced")
