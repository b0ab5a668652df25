"""livepatch: a live patch of the running kernel, a module (Linux, Documentation/livepatch/livepatch.rst).

Guests run on. The patch is in force when every task has left the old functions; its `transition` is 0 then.
"""

from __future__ import annotations

import os
from pathlib import Path

from lab.core import patch as plan
from lab.errors import MachineError
from lab.host.patches import modules
from lab.host.patches.base import Roots, Stepwise, Work, need_root, one_line, read
from lab.ports import Clock
from lab.process import runner

_BACK_SHARE = 0.25
"""The share of the time that is reserved for disabling a patch whose transition does not complete."""


class Livepatch(Stepwise):
    """Loads a livepatch. It succeeds when the module is enabled and every task runs the new code."""

    def __init__(self, spec: plan.LivepatchPatch, clock: Clock, roots: Roots | None = None) -> None:
        super().__init__(spec.label, spec.impact, clock, spec.deadline_ns)
        self._module = spec.module
        self._roots = roots or Roots()
        self._shown = self._roots.sys / "kernel/livepatch"

    @property
    def name(self) -> str:
        """The module's name in the kernel's spelling."""
        return Path(self._module).name.partition(".")[0].replace("-", "_")

    @property
    def _folder(self) -> Path:
        return self._shown / self.name

    def check(self) -> None:
        """MachineError when this kernel has no livepatch support, or the module does not fit it."""
        if not self._shown.is_dir():
            raise MachineError(
                "this kernel does not support livepatches",
                where=str(self._shown),
                hint="it needs CONFIG_LIVEPATCH, which distributions' kernels have",
            )
        need_root("load a livepatch")
        modules.may_change(self._roots)
        for program in ("insmod", "rmmod", "modinfo"):
            runner.find(program)
        if not Path(self._module).is_file():
            raise MachineError("no such file", where=self._module)
        try:
            values = {field: modules.info(self._module, field) for field in ("livepatch", "vermagic", "name")}
        except MachineError as error:
            raise MachineError(f"this is not a kernel module: {error.what}", where=self._module) from error
        if values["livepatch"] != "Y":
            raise MachineError("a kernel module, but not a livepatch", where=self._module)
        kernel, built = os.uname().release, values["vermagic"].partition(" ")[0]
        if built != kernel:
            raise MachineError(f"built for kernel {built}, this is {kernel}", where=self._module)
        if values["name"] != self.name:
            raise MachineError(
                f"the file's name is not its module's, {values['name']}",
                where=self._module,
                hint=f"rename it to {values['name']}.ko",
            )
        if modules.state(self.name, self._roots) and not self._in_force():
            raise MachineError(
                f"{self.name} is in the kernel already, disabled or in transition",
                hint=f"rmmod {self.name}",
            )

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        """The names of the livepatches in force, or "no livepatch"."""
        if not self._shown.is_dir():
            return ""
        names = sorted(place.name for place in self._shown.iterdir() if _in_force(place))
        return ", ".join(names) or "no livepatch"

    def verify(self, before: str, after: str) -> str:  # noqa: ARG002 - it may have been in from an earlier cycle
        if self.name in after.split(", "):
            return ""
        return f"{self.name} is not enabled; enabled: {after or 'nothing readable'}"

    def undo(self) -> str:
        """Disable the livepatch, wait until no task runs its code, and unload the module."""
        if not modules.state(self.name, self._roots):
            return ""
        work = self._work()
        try:
            self._take_back(work)
        except MachineError as error:
            raise MachineError(
                f"not undone: {one_line(error)}",
                where=self.label,
                hint=f"echo 0 > {self._folder}/enabled, wait until it has gone, rmmod {self.name}",
            ) from error
        return f"{self.name} disabled and removed"

    def _in_force(self) -> bool:
        return _in_force(self._folder)

    def _do(self, work: Work) -> None:
        if self._in_force():
            work.facts["already"] = True
            return
        with work.step("insmod"):
            work.run("insmod", self._module)
        try:
            with work.step("transition"):
                until = work.clock.now().raw_ns + round(work.left_ns * (1 - _BACK_SHARE))
                work.wait(self._in_force, f"{self.name}: tasks still run the old code", until)
        except MachineError as error:
            with work.step("disable"):
                try:
                    self._take_back(work)
                except MachineError as further:
                    raise MachineError(f"{one_line(error)}, and {one_line(further)}") from error
            raise MachineError(f"{one_line(error)}; it was disabled again") from error

    def _take_back(self, work: Work) -> None:
        if self._folder.is_dir() and read(self._folder / "enabled") == "1":
            try:
                (self._folder / "enabled").write_text("0", encoding="ascii")
            except OSError as error:
                raise MachineError(f"{self.name} cannot be disabled: {error.strerror}") from error
        # The kernel removes the folder at the end of the transition.
        work.wait(lambda: not self._folder.is_dir(), f"{self.name}: tasks still run the new code")
        work.run("rmmod", self.name)


def _in_force(place: Path) -> bool:
    return read(place / "enabled") == "1" and read(place / "transition") == "0"
