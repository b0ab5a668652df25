"""microcode: the CPUs' microcode loaded late (Linux, Documentation/arch/x86/microcode.rst, "Late loading").

The kernel takes it from /lib/firmware when 1 is written to a file of its own.
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
    """All CPUs run under newer microcode."""

    def __init__(self, spec: plan.MicrocodePatch, clock: Clock, roots: Roots | None = None) -> None:
        super().__init__(spec.label, spec.impact, clock, spec.deadline_ns)
        self._roots = roots or Roots()
        self._file = self._roots.sys / "devices/system/cpu/microcode/reload"

    def check(self) -> None:
        """MachineError when this kernel loads none late, or it is not this machine's to load."""
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
        """The revision; "0x1, 0x2" when the CPUs do not agree."""
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
            # Unbuffered: close() must not be what writes.
            file = self._file.open("wb", buffering=0)
        except OSError as error:
            raise MachineError(f"cannot be opened: {error.strerror}", where=str(self._file)) from error
        with file, work.step("load microcode"):
            try:
                # All CPUs are stopped meanwhile and no signal is heard.
                work.aside(lambda: file.write(b"1") == 1, "the kernel is still loading microcode")
            except OSError as error:
                if error.errno == errno.ENOENT:  # request_firmware's
                    raise MachineError(f"no newer microcode was found: {_PACKAGES}") from error
                raise MachineError(f"the kernel refuses: {error.strerror}", where=str(self._file)) from error
        work.facts["after"] = self.version("")


def _revisions(text: str) -> list[int]:
    return [int(word, 16) for word in re.findall(r"0x([0-9a-f]+)", text)]
