"""What the QEMUs of this machine say of themselves: states of a migration, devices."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab.host import emulators
from lab.hypervisor.facts import has_device
from lab.hypervisor.migration import ACTIVE, ENDED, PASSING
from lab.image.store import default_cache

QUESTIONS = '{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema"}'


def states(emulator: Path) -> set[str]:
    """The values of MigrationStatus, which the schema does not name: the enumeration with this member."""
    argv = [str(emulator), "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    # A QEMU whose input ends, or that is told to quit, may do so before it has written its answer.
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        try:
            qemu.stdin.write(QUESTIONS)
            qemu.stdin.flush()
            schema = next(
                answer["return"]
                for answer in map(json.loads, qemu.stdout)
                if isinstance(answer.get("return"), list)
            )
        finally:
            qemu.kill()
    return set(next(one["values"] for one in schema if "postcopy-active" in one.get("values", ())))


def test_every_state_is_known() -> None:
    found = [
        path
        for path in (emulators.system(), *(one.path for one in emulators.listing(default_cache())))
        if path
    ]
    if not found:
        pytest.skip("no QEMU here")
    for emulator in found:
        assert states(emulator) <= ENDED | PASSING | ACTIVE, emulator


def test_a_state_is_one_of_three_kinds() -> None:
    assert not ENDED & PASSING
    assert not ACTIVE & (ENDED | PASSING)


def test_a_device_is_there_or_not() -> None:
    emulator = emulators.system()
    if emulator is None:
        pytest.skip("no QEMU here")
    assert has_device(emulator, "virtio-net-pci")
    assert not has_device(emulator, "virtio-net-pc")
    assert not has_device(emulator, "no-such-device")
