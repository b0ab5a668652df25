"""save-restore into another emulator: refused where it cannot be, and back to the old one where it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_S
from lab.errors import MachineError, Refused
from lab.host import emulators_fetch
from lab.hypervisor.domain import Accelerator
from lab.image.store import default_cache
from lab.ports import Freezing, Successor
from tests.guest.conftest import Lab


def under(emulator: Path | str) -> Freezing:
    return Freezing(FreezeMethod.SAVE_RESTORE, Successor(str(emulator)))


def wrapper(lab: Lab, folder: Path, lines: str) -> Path:
    """The guest's own emulator, after some lines of shell."""
    path = folder / "qemu-system-x86_64"
    path.write_text(f'#!/bin/sh\n{lines}\nexec {lab.hypervisor.emulator(Accelerator.TCG).path} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def quiet(lab: Lab) -> Iterator[None]:
    yield
    lab.hypervisor.finish("web-0")
    assert lab.runs()


@pytest.mark.parametrize(
    "fails",
    [
        # does not start; has another device
        'case "$*" in *incoming*) echo "no luck" >&2; exit 1;; esac',
        'case "$*" in *incoming*) set -- "$@" -global virtio-blk-device.config-wce=off;; esac',
    ],
)
def test_an_emulator_that_does_not_take_the_guest(lab: Lab, home: Path, tmp_path: Path, fails: str) -> None:
    boot = lab.probe.facts().boot_id
    freezing = under(wrapper(lab, tmp_path, fails))
    lab.hypervisor.prepare("web-0", freezing)
    lab.hypervisor.freeze("web-0", freezing, lab.clock.now().raw_ns + 60 * NS_PER_S)
    (file,) = (home / "saved").iterdir()
    resumed = lab.hypervisor.resume("web-0", freezing)
    assert resumed.why.startswith("restored under the old emulator: cannot be restored: ")
    assert not file.exists()
    assert lab.probe.facts().boot_id == boot


def test_what_libvirt_cannot_restore_into(lab: Lab, home: Path) -> None:
    """QEMU 11 wants libvirt 12.1; before that the guest would be lost."""
    try:
        newest = emulators_fetch.fetch("trixie-backports", default_cache(), lambda _line: None).path
    except MachineError as error:
        pytest.skip(error.what)
    major, minor, *_ = map(int, lab.hypervisor.facts().libvirt.split("."))
    if (major, minor) >= (12, 1):
        lab.hypervisor.prepare("web-0", under(newest))
        return
    with pytest.raises(Refused, match=r"this libvirt \(.*\) cannot restore a guest into QEMU 11\.1\.3"):
        lab.hypervisor.prepare("web-0", under(newest))
    assert not list((home / "saved").glob("*"))


def test_a_cpu_that_would_lose_a_feature(lab: Lab, home: Path, tmp_path: Path) -> None:
    other = wrapper(
        lab,
        tmp_path,
        '[ "$1" = --version ] && { echo "QEMU emulator version 9.9.9"; exit; }\n'
        'case "$*" in *incoming*) set -- "$@" -global x86_64-cpu.popcnt=off;; esac',
    )
    with pytest.raises(Refused, match="lacks popcnt, which the guest's CPU has now"):
        lab.hypervisor.prepare("web-0", under(other))
    assert not list((home / "saved").glob("*"))
    assert len(lab.hypervisor.list_lab_domains()) == 1
