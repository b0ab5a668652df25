"""A livepatch of the lab's own, built for this kernel, loaded into it and taken out again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.core.patch import LivepatchPatch
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host import patches
from lab.ports import HostPatch, PatchResult
from lab.process import runner
from lab.process.clock import HostClock

Apply = Callable[[HostPatch, float], PatchResult]
Refusal = Callable[[HostPatch], MachineError]

SOURCE = Path(__file__).parent / "livepatch"
SHOWN = Path("/sys/kernel/livepatch")
VERSION = Path("/proc/version")


def patch_of(module: Path, clock: HostClock) -> HostPatch:
    return patches.make(LivepatchPatch(str(module), 60 * NS_PER_S), clock)


@pytest.fixture(scope="module")
def built(expendable: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the modules, where this kernel can be patched and they can be built."""
    headers = Path("/lib/modules") / os.uname().release / "build"
    if not SHOWN.is_dir():
        pytest.skip("this kernel does not support livepatches")
    if not headers.is_dir() or not shutil.which("make"):
        pytest.skip("the kernel's headers, make and gcc are not installed")
    folder = tmp_path_factory.mktemp("livepatch")
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
    runner.run(["make", "-C", str(headers), f"M={folder}", "modules"], 250)
    return folder


@pytest.fixture
def module(built: Path) -> Iterator[Path]:
    yield built / "freezelab_version.ko"
    if (folder := SHOWN / "freezelab_version").is_dir():
        (folder / "enabled").write_text("0")


def test_a_kernel_that_cannot(tmp_path: Path, clock: HostClock, refusal: Refusal) -> None:
    if SHOWN.is_dir():
        pytest.skip("this kernel can be patched live")
    assert refusal(patch_of(tmp_path / "x.ko", clock)).what == "this kernel does not support livepatches"
    assert patch_of(tmp_path / "x.ko", clock).version("") == ""
    assert patch_of(tmp_path / "x.ko", clock).undo() == ""


def test_loaded_and_undone(module: Path, clock: HostClock, apply: Apply) -> None:
    usual = VERSION.read_text()
    patch = patch_of(module, clock)
    patch.check()
    before = patch.version("")
    result = apply(patch, 60)
    assert result.ok, result
    assert [step.name for step in result.steps] == ["insmod", "transition"]
    assert VERSION.read_text() == "patched live by freezelab\n"
    assert patch.verify(before, patch.version("")) == ""
    assert patch.verify(before, before) != ""

    patch.check()  # the next cycle finds it in force
    again = apply(patch, 60)
    assert again.ok and again.facts["already"]

    assert patch.undo() == "freezelab_version disabled and removed"
    assert VERSION.read_text() == usual
    assert patch.version("") == before
    assert patch.undo() == ""


def test_what_is_no_livepatch(
    built: Path, tmp_path: Path, clock: HostClock, refusal: Refusal, apply: Apply
) -> None:
    assert (
        refusal(patch_of(built / "freezelab_plain.ko", clock)).what == "a kernel module, but not a livepatch"
    )
    assert refusal(patch_of(tmp_path / "gone.ko", clock)).what == "no such file"
    text = tmp_path / "text.ko"
    text.write_text("no module")
    assert "not a kernel module" in refusal(patch_of(text, clock)).what
    other = tmp_path / "other.ko"
    shutil.copy(built / "freezelab_version.ko", other)
    assert "freezelab_version" in refusal(patch_of(other, clock)).what
    result = apply(patch_of(text, clock), 20)
    assert result.why.startswith("insmod: exit status 1")


def test_built_for_another_kernel(built: Path, tmp_path: Path, clock: HostClock, refusal: Refusal) -> None:
    kernel = os.uname().release.encode()
    module = tmp_path / "freezelab_version.ko"
    content = (built / "freezelab_version.ko").read_bytes()
    assert b"vermagic=" + kernel in content
    module.write_bytes(content.replace(b"vermagic=" + kernel, b"vermagic=" + b"9" * len(kernel)))
    assert "built for kernel 9999" in refusal(patch_of(module, clock)).what
