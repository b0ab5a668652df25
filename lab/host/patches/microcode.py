"""microcode: loads CPU microcode at run time (Linux, Documentation/arch/x86/microcode.rst, "Late loading").

The kernel loads it from /lib/firmware when 1 is written to its `reload` file.
"""

from __future__ import annotations

import errno
import os
import re

from lab.core import patch as plan
from lab.errors import MachineError
from lab.host.patches.base import Roots, Stepwise, Work, need_root, read
from lab.ports import Clock

_PACKAGES = "the packages intel-microcode and amd64-microcode have newer microcode"


class Microcode(Stepwise):
    """Loads microcode. It succeeds when all CPUs run newer microcode than before."""

    def __init__(self, spec: plan.MicrocodePatch, clock: Clock, roots: Roots | None = None) -> None:
        super().__init__(spec.label, spec.impact, clock, spec.deadline_ns)
        self._roots = roots or Roots()
        self._file = self._roots.sys / "devices/system/cpu/microcode/reload"

    def check(self) -> None:
        """MachineError when this kernel has no late loading, or the host is itself a guest."""
        if not self._file.exists():
            cpu = read(self._roots.proc / "cpuinfo")
            if re.search(r"^flags\s*:.*\bhypervisor\b", cpu, re.MULTILINE):
                raise MachineError(
                    "this host is itself a guest: its microcode is its hypervisor's", where=str(self._file)
                )
            raise MachineError(
                "this kernel cannot load microcode after boot",
                where=str(self._file),
                hint="it needs CONFIG_MICROCODE_LATE_LOADING; without it microcode is loaded only at boot",
            )
        need_root("load microcode")
        if not os.access(self._file, os.W_OK):
            raise MachineError(
                "the kernel does not allow microcode to be loaded (lockdown?)", where=str(self._file)
            )
        if not self.version(""):
            raise MachineError("the kernel does not report the microcode's revision", where="/proc/cpuinfo")

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        """The microcode's revision; "0x1, 0x2" when CPUs have different ones."""
        text = read(self._roots.proc / "cpuinfo")
        found = {int(word, 16) for word in re.findall(r"^microcode\s*:\s*0x([0-9a-f]+)$", text, re.MULTILINE)}
        return ", ".join(hex(revision) for revision in sorted(found))

    def verify(self, before: str, after: str) -> str:
        old, new = _revisions(before), _revisions(after)
        if not new:
            return "the kernel does not report the microcode's revision"
        if len(new) > 1:
            return f"the CPUs have different microcode: {after}"
        if not old:
            return "the revision before is not known"
        if new[0] < max(old):
            return f"the microcode is older than before: {after} after {before}"
        return f"no newer microcode was found: still revision {after}; {_PACKAGES}" if new == old else ""

    def _do(self, work: Work) -> None:
        work.facts["before"] = self.version("")

        try:
            # Unbuffered, so that write() and not close() does the writing.
            file = self._file.open("wb", buffering=0)
        except OSError as error:
            raise MachineError(f"cannot be opened: {error.strerror}", where=str(self._file)) from error
        with file, work.step("load microcode"):
            try:
                # The kernel stops all CPUs during the write, and no signal is delivered.
                work.aside(lambda: file.write(b"1") == 1, "the kernel is still loading microcode")
            except OSError as error:
                if error.errno == errno.ENOENT:  # from request_firmware
                    raise MachineError(f"no newer microcode was found: {_PACKAGES}") from error
                raise MachineError(f"the kernel refuses: {error.strerror}", where=str(self._file)) from error
        work.facts["after"] = self.version("")


def _revisions(text: str) -> list[int]:
    return [int(word, 16) for word in re.findall(r"0x([0-9a-f]+)", text)]
