"""replace-hypervisor: moves running guests to another emulator binary.

The freeze itself does that, so there is nothing to apply. The patch checks the wanted binary before the
freeze, and afterwards whether the guests run under it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lab.core import patch as plan
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host.patches.base import Base, Tools, Work, one_line
from lab.ports import Clock, PatchResult, Successor

_PATIENCE_NS = 10 * NS_PER_S
"""Time limit for --version. QEMU takes 0.05 s, and one or two seconds under load or from a cold disk."""

_VERSION = re.compile(r"\bQEMU(?: emulator)?(?: version)? v?(\d+\.\d+(?:\.\d+)?)(?:[^\S\n]*\(([^()\n]*)\))?")
"""`--version` prints "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b5)" (QEMU, vl.c version());
query-version returns the number and the text in brackets separately."""


class ReplaceHypervisor(Base):
    """Moves guests to another emulator, or to a new process of the same one.

    patience_ns: time limit for an emulator's --version.
    """

    acts = False

    def __init__(
        self,
        spec: plan.ReplaceHypervisorPatch,
        clock: Clock,
        tools: Tools,
        *,
        patience_ns: int = _PATIENCE_NS,
    ) -> None:
        super().__init__(spec.label, spec.impact)
        self._spec, self._clock, self._tools, self._patience_ns = spec, clock, tools, patience_ns
        self._emulator: Path | None = None
        self._wanted = ""

    @property
    def successor(self) -> Successor:  # type: ignore[override]
        """MachineError when there is no such emulator."""
        if self._spec.emulator and self._emulator is None:
            self._emulator = self._tools.emulator(self._spec.emulator)
        return Successor(str(self._emulator or ""), self._spec.machine, self._spec.cpu)

    @property
    def wanted(self) -> str:
        """The wanted binary's version, known after check(); "" when guests keep their emulator."""
        return self._wanted

    def check(self) -> None:
        """MachineError when the wanted binary is missing, is not executable, or prints no QEMU version in
        time. Whether it supports the guests' machine type is checked by the hypervisor."""
        path = self.successor.emulator
        if not path:
            return
        if not Path(path).exists():
            raise MachineError(
                "no such emulator", where=path, hint="a path, or a name that `freezelab emulator list` shows"
            )
        if Path(path).is_dir() or not os.access(path, os.X_OK):
            raise MachineError("the emulator is not an executable file", where=path)
        try:
            done = Work(self._clock, self._clock.now().raw_ns + self._patience_ns).run(path, "--version")
        except MachineError as error:
            raise MachineError(f"the emulator prints no version: {one_line(error)}", where=path) from error
        self._wanted = parse(done.stdout)
        if not self._wanted:
            output = " ".join(done.stdout.split())[:60] or "nothing"
            raise MachineError(f"this is not QEMU: its --version prints {output!r}", where=path)

    def version(self, guest: str) -> str:
        """The version of the emulator that runs this guest now."""
        return self._tools.guest_emulator(guest)

    def apply(self, deadline_raw_ns: int) -> PatchResult:  # noqa: ARG002 - ports.HostPatch's
        """Do nothing: the freeze has moved the guests."""
        return PatchResult(True, "", {"wanted": self._wanted} if self._wanted else {})

    def verify(self, before: str, after: str) -> str:
        """Compare the version that runs the guest with the version that the wanted binary printed."""
        if not self._spec.emulator:
            return ""
        if not parse(after):
            return f"the version of the running emulator is not known ({after or 'nothing'})"
        if not same(self._wanted, after):
            still = " still" if same(before, after) else ""
            return f"{parse(after)} runs the guest{still}, not {self._wanted}"
        return ""


def parse(text: str) -> str:
    """The version in a text of QEMU or of the lab, as "QEMU 7.2.22 (Debian …)"; "" without one."""
    found = _VERSION.search(text)
    if found is None:
        return ""
    package = (found[2] or "").strip()
    return f"QEMU {found[1]}" + (f" ({package})" if package else "")


def same(one: str, other: str) -> bool:
    """Whether two versions are the same. Package versions are compared when both texts have one."""
    a, b = _VERSION.search(one), _VERSION.search(other)
    if a is None or b is None or a[1] != b[1]:
        return False
    return not (a[2] and b[2]) or a[2].strip() == b[2].strip()
