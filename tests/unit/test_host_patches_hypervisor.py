"""replace-hypervisor: what the wanted emulator is, with real programs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.core.patch import ReplaceHypervisorPatch
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host.patches import Tools, make
from lab.host.patches.hypervisor import ReplaceHypervisor, parse, same
from lab.ports import Successor
from lab.process.clock import HostClock

CLOCK = HostClock()

NOW = "QEMU 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b5)"


def patch_of(emulator: str, *, patience_ns: int = 10 * NS_PER_S, runs: str = NOW) -> ReplaceHypervisor:
    tools = Tools(guest_emulator=lambda _guest: runs, emulator=Path)
    return ReplaceHypervisor(ReplaceHypervisorPatch(emulator), CLOCK, tools, patience_ns=patience_ns)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """A program from a shell script; its path."""

    def write(script: str) -> str:
        path = tmp_path / "emulator"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_a_real_emulator() -> None:
    path = shutil.which("qemu-system-x86_64")
    if path is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    patch = patch_of(path)
    patch.check()
    assert patch.wanted.startswith("QEMU ")
    assert patch.successor == Successor(path)
    result = patch.apply(CLOCK.now().raw_ns + NS_PER_S)
    assert result.ok
    assert result.facts == {"wanted": patch.wanted}
    assert patch.verify(NOW, patch.wanted) == ""
    assert patch.verify(NOW, patch.wanted.partition(" (")[0]) == ""  # query-version may name no package
    other = "QEMU 99.0.1 (Elsewhere)"
    assert patch.verify(NOW, other) == f"{other} runs the guest, not {patch.wanted}"
    assert patch.verify(other, other) == f"{other} runs the guest still, not {patch.wanted}"
    assert "of the running emulator is not known" in patch.verify(NOW, "")


def test_the_same_binary_started_anew() -> None:
    patch = patch_of("")
    patch.check()
    assert patch.successor == Successor()
    assert patch.version("web-0") == NOW
    assert patch.verify(NOW, NOW) == ""


def test_machine_and_cpu_are_passed_on() -> None:
    spec = ReplaceHypervisorPatch("/e", machine="pc-q35-7.1", cpu="max")
    patch = make(spec, CLOCK, Tools(emulator=Path))
    assert patch.successor == Successor("/e", "pc-q35-7.1", "max")


def test_a_name_that_nobody_knows() -> None:
    patch = make(ReplaceHypervisorPatch("qemu-99"), CLOCK)
    with pytest.raises(MachineError, match="no emulator of this name"):
        patch.check()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo hello, world", "prints 'hello, world'"),
        ("head -c 300 /dev/urandom", "this is not QEMU"),
        ("head -c 300000000 /dev/zero", "this is not QEMU"),
        ("true", "prints 'nothing'"),
        ("echo QEMU emulator version ten", "this is not QEMU"),
        ("echo cannot open shared object >&2; exit 127", "exit status 127: cannot open shared object"),
        ("kill -SEGV $$", "ended by SIGSEGV"),
    ],
)
def test_what_is_no_emulator(program: Callable[[str], str], script: str, why: str) -> None:
    with pytest.raises(MachineError) as caught:
        patch_of(program(script)).check()
    assert why in caught.value.what
    assert "\n" not in caught.value.what


def test_one_that_hangs(program: Callable[[str], str]) -> None:
    began = time.monotonic()
    with pytest.raises(MachineError, match=r"prints no version: .*still running after .*, killed"):
        patch_of(program("trap '' TERM; while :; do :; done"), patience_ns=NS_PER_S // 2).check()
    assert time.monotonic() - began < 30


def test_files_that_are_no_programs(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("QEMU emulator version 9.0.0")
    for path, why in ((tmp_path / "gone", "no such"), (text, "not an exec"), (tmp_path, "not an exec")):
        with pytest.raises(MachineError, match=why):
            patch_of(str(path)).check()


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright", "QEMU 7.2.22 (Debian 1:7.2)", True),
        ("QEMU emulator version 10.0.2", "QEMU 10.0.2 (Debian 1:10.0.2)", True),
        ("QEMU 7.2.22 (Debian 1)", "QEMU 7.2.22 (Debian 2)", False),
        ("QEMU 7.2.2", "QEMU 7.2.22", False),
        ("QEMU emulator version 11.1.50 (v11.1.0-5-gabc)", "QEMU 11.1.50 (v11.1.0-5-gabc)", True),
        ("", "", False),
    ],
)
def test_versions(one: str, other: str, wanted: bool) -> None:
    assert same(one, other) is wanted
    assert same(other, one) is wanted


def test_an_emulators_name_and_version_are_read_from_its_version_text() -> None:
    assert parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)\nCopyright (c) 2003") == (
        "QEMU 7.2.22 (Debian 1:7.2+dfsg)"
    )
    assert parse("QEMU emulator version 9.1\nCopyright (c)") == "QEMU 9.1"
