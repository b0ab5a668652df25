"""KVM or TCG: which accelerator is chosen, by booting a kernel once, and what is remembered of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.errors import MachineError
from lab.hypervisor.accelerators import AcceleratorRequest, choose
from lab.hypervisor.domain import Accelerator


def fake_qemu(folder: Path, prints: str) -> Path:
    """A QEMU that prints something instead of booting, and counts how often it was asked to."""
    path = folder / "qemu-system-x86_64"
    path.write_text(
        f"""#!/bin/sh
case "$1" in --version) echo "QEMU emulator version 7.2.22"; exit;; esac
echo x >> {folder}/boots
{prints}
"""
    )
    path.chmod(0o755)
    return path


def boots(folder: Path) -> int:
    return len((folder / "boots").read_text().split())


@pytest.mark.parametrize(
    ("prints", "expected"),
    [
        ("echo '[ 0.000000] Linux version 6.1.0'; sleep 60", Accelerator.KVM),
        ("echo SeaBIOS; sleep 60", Accelerator.TCG),
        ("exit 1", Accelerator.TCG),
        ("kill -ABRT $$", Accelerator.TCG),
        ("exec sleep 60", Accelerator.TCG),
    ],
)
def test_the_accelerator_is_found_by_booting_once(home: Path, prints: str, expected: Accelerator) -> None:
    kernel, device = home / "vmlinuz", home / "kvm"
    kernel.touch()
    device.touch()
    qemu = fake_qemu(home, prints)
    for _ in range(2):
        choice = choose(AcceleratorRequest.AUTO, kernel, home, emulator=qemu, device=device, boot_s=1)
        assert choice.accelerator is expected
        assert choice.reason
        assert boots(home) == 1
    for damaged in ("", "{", "[]", '{"schema": "freezelab.accelerator/1"}', "\x00"):
        (home / "accelerator.json").write_text(damaged)
        assert (
            choose(AcceleratorRequest.AUTO, kernel, home, emulator=qemu, device=device, boot_s=1).accelerator
            is expected
        )
    remembered = json.loads((home / "accelerator.json").read_text())
    remembered["key"]["kernel"] = "another"
    (home / "accelerator.json").write_text(json.dumps(remembered))
    before = boots(home)
    choose(AcceleratorRequest.AUTO, kernel, home, emulator=qemu, device=device, boot_s=1)
    assert boots(home) == before + 1


def test_no_kvm_device(home: Path) -> None:
    choice = choose(AcceleratorRequest.AUTO, home / "vmlinuz", home, device=home / "kvm")
    assert (choice.accelerator, choice.reason) == (Accelerator.TCG, f"no {home}/kvm")
    with pytest.raises(MachineError, match=f"KVM cannot be used: no {home}/kvm"):
        choose(AcceleratorRequest.KVM, home / "vmlinuz", home, device=home / "kvm")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_kvm_device_of_someone_else(home: Path) -> None:
    device = home / "kvm"
    device.touch(0o000)
    choice = choose(AcceleratorRequest.AUTO, home / "vmlinuz", home, device=device)
    assert choice.accelerator is Accelerator.TCG
    assert "group kvm" in choice.hint


def test_tcg_asks_nothing(home: Path) -> None:
    assert choose(AcceleratorRequest.TCG, home / "vmlinuz", home).accelerator is Accelerator.TCG


def test_no_kernel_to_boot(home: Path) -> None:
    device = home / "kvm"
    device.touch()
    with pytest.raises(MachineError, match="no such kernel image"):
        choose(AcceleratorRequest.AUTO, home / "vmlinuz", home, emulator=fake_qemu(home, ""), device=device)


def test_no_qemu(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = home / "kvm"
    device.touch()
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(MachineError, match="not installed"):
        choose(AcceleratorRequest.AUTO, home / "vmlinuz", home, device=device)
