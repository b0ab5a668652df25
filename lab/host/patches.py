"""Host patches: what is done to the host while the guests are frozen.

A patch's deadline is a promise to the guests: `apply` comes back by it whatever the patch does.
"""

from __future__ import annotations

from typing import Any

from lab.core import patch as plan
from lab.core.patch import Impact
from lab.core.units import NS_PER_MS, format_duration
from lab.errors import MachineError
from lab.host import run
from lab.ports import Clock, HostPatch, PatchResult, Successor

_MARGIN_NS = 2 * NS_PER_MS
"""Kept before a deadline, so that waking up late on a busy host is still in time."""

_TAIL = 2000
"""Characters of a program's output that go into the record."""


class Base:
    """What most patches have in common: nothing to check, no version, no way back."""

    successor = Successor()

    def __init__(self, label: str, impact: Impact) -> None:
        self.label, self.impact = label, impact

    def check(self) -> None:
        """Nothing can be missing."""

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        return ""

    def verify(self, before: str, after: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        return ""

    def undo(self) -> str:
        return ""


class Hold(Base):
    """Wait for a given time and change nothing."""

    def __init__(self, spec: plan.HoldPatch, clock: Clock) -> None:
        super().__init__(spec.label, spec.impact)
        self._spec, self._clock = spec, clock

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Hold for the patch's length, or until just before the deadline: that is not ok."""
        began = self._clock.now().raw_ns
        wanted = began + self._spec.duration_ns
        last = deadline_raw_ns - _MARGIN_NS
        self._clock.sleep_until(min(wanted, last))
        held = self._clock.now().raw_ns - began
        if wanted > last:
            why = f"held {_seconds(held)} of {format_duration(self._spec.duration_ns)}, then out of time"
            return PatchResult(False, why, {"held_ns": held})
        return PatchResult(True, "", {"held_ns": held})


class Command(Base):
    """Run a program: argv, no shell. What it leaves running in its process group is killed too."""

    def __init__(self, spec: plan.CommandPatch, clock: Clock) -> None:
        super().__init__(spec.label, spec.impact)
        self._spec, self._clock = spec, clock

    def check(self) -> None:
        """MachineError when the program is missing or not executable. Ask before the freeze."""
        run.find(self._spec.argv[0])

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Run it; killed at its own deadline or, with time to die, before `deadline_raw_ns`."""
        began = self._clock.now().raw_ns
        left = deadline_raw_ns - _MARGIN_NS - began
        grace = min(run.GRACE_NS, left // 2)
        if grace <= 0:
            return PatchResult(False, "no time left to start it")
        stop_at = min(began + self._spec.deadline_ns, began + left - grace)
        try:
            done = run.execute(
                self._spec.argv, self._clock, stop_at_raw_ns=stop_at, grace_ns=grace, output_max=_TAIL * 4
            )
        except MachineError as error:
            return PatchResult(False, error.what)
        facts: dict[str, Any] = {"status": done.status, "took_ns": done.took_ns}
        for name, text in (("stdout", done.stdout), ("stderr", done.stderr)):
            if text:
                facts[name] = text[-_TAIL:]
        said = f": {done.last_line}" if not done.ok and not done.overran and done.last_line else ""
        return PatchResult(done.ok, f"{done.why}{said}", facts)


def make(spec: plan.Patch, clock: Clock) -> Hold | Command:
    """The patch that a plan asks for."""
    if isinstance(spec, plan.HoldPatch):
        return Hold(spec, clock)
    if isinstance(spec, plan.CommandPatch):
        return Command(spec, clock)
    raise MachineError(f"{spec.kind} is not built yet")


def _seconds(ns: int) -> str:
    return format_duration(round(ns, -7))


_CONTRACT: tuple[type[HostPatch], ...] = (Hold, Command)
