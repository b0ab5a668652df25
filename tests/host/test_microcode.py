"""Microcode, as this very machine lets it be loaded: nearly everywhere that is not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.core.patch import MicrocodePatch
from lab.errors import MachineError
from lab.host import patches
from lab.ports import HostPatch, PatchResult
from lab.process.clock import HostClock

RELOAD = Path("/sys/devices/system/cpu/microcode/reload")


def test_this_machine(
    clock: HostClock,
    apply: Callable[[HostPatch, float], PatchResult],
    refusal: Callable[[HostPatch], MachineError],
) -> None:
    if RELOAD.exists():
        pytest.skip("microcode would really be loaded")
    patch = patches.make(MicrocodePatch(), clock)
    cpu = Path("/proc/cpuinfo").read_text()
    guest = any(line.startswith("flags") and " hypervisor" in line for line in cpu.splitlines())
    said = refusal(patch).what
    assert ("this host is itself a guest" in said) == guest
    assert ("this kernel cannot load microcode" in said) != guest
    result = apply(patch, 5)
    assert result.why == f"{RELOAD}: cannot be opened: No such file or directory"
