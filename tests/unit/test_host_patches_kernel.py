"""Microcode and KVM's modules over small trees that stand for /sys and /proc: what this machine cannot show.

tests/host has the same patches on the real ones.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lab.controller import RESERVE_NS
from lab.core.patch import LivepatchPatch, MicrocodePatch, ReloadKvmPatch
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import MachineError
from lab.host.patches import Tools, modules
from lab.host.patches.base import Roots
from lab.host.patches.kvm import ReloadKvm
from lab.host.patches.livepatch import Livepatch
from lab.host.patches.microcode import Microcode
from lab.process.clock import HostClock

CLOCK = HostClock()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user is told that it takes root")


def tree(folder: Path, **files: str) -> Roots:
    """Roots in `folder`; files by path, `__` for a slash."""
    roots = Roots(folder / "sys", folder / "proc", folder / "dev")
    for root in (roots.sys, roots.proc, roots.dev):
        root.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return roots


def cpuinfo(*revisions: str, flags: str = "fpu vme") -> str:
    return "\n".join(f"processor\t: 0\nmicrocode\t: {each}\nflags\t\t: {flags}\n" for each in revisions)


def microcode(roots: Roots) -> Microcode:
    return Microcode(MicrocodePatch(NS_PER_S), CLOCK, roots)


RELOAD = "sys__devices__system__cpu__microcode__reload"


@needs_root
def test_microcode_is_asked_for(tmp_path: Path) -> None:
    roots = tree(tmp_path, **{RELOAD: "", "proc__cpuinfo": cpuinfo("0xa0011d1", "0xa0011d1")})
    patch = microcode(roots)
    patch.check()
    assert patch.version("") == "0xa0011d1"
    result = patch.apply(CLOCK.now().raw_ns + NS_PER_S)
    assert result.ok
    assert (roots.sys / "devices/system/cpu/microcode/reload").read_text() == "1"
    assert [step.name for step in result.steps] == ["load microcode"]


@needs_root
def test_a_kernel_that_hangs_is_left_behind(tmp_path: Path) -> None:
    roots = tree(tmp_path, proc__cpuinfo=cpuinfo("0x1"))
    pipe = roots.sys / "devices/system/cpu/microcode/reload"
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    filler = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:  # a full pipe: a write blocks until somebody reads
            os.write(filler, b"x" * 4096)
    except BlockingIOError:
        pass
    deadline = CLOCK.now().raw_ns + 300 * NS_PER_MS
    result = microcode(roots).apply(deadline)
    assert CLOCK.now().raw_ns <= deadline + RESERVE_NS // 2  # see test_host_patches.apply
    assert result.why == "the kernel is still loading microcode"
    os.read(reader, 1 << 20)  # lets the thread go
    for thread in threading.enumerate():
        if "microcode" in thread.name:
            thread.join(5)
    os.close(filler)
    os.close(reader)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("0x1000065", "0x1000066", ""),
        ("0x1, 0x2", "0x2", ""),
        ("0x9", "0x10", ""),  # numbers, not words
        ("0x1000065", "0x1000065", "no newer microcode was found: still revision 0x1000065"),
        ("0x1000065", "0x1000064", "the microcode is older than before: 0x1000064 after 0x1000065"),
        ("0x1", "0x1, 0x2", "the CPUs have different microcode: 0x1, 0x2"),
        ("0x1", "", "the kernel does not report"),
        ("", "0x1", "the revision before is not known"),
    ],
)
def test_microcode_has_to_be_newer(tmp_path: Path, before: str, after: str, why: str) -> None:
    said = microcode(tree(tmp_path)).verify(before, after)
    assert said.startswith(why) if why else said == ""


@needs_root
def test_why_microcode_cannot_be_loaded(tmp_path: Path) -> None:
    guest = tree(tmp_path, proc__cpuinfo=cpuinfo("0x1", flags="fpu hypervisor lahf_lm"))
    with pytest.raises(MachineError, match="this host is itself a guest"):
        microcode(guest).check()
    real = tree(tmp_path, proc__cpuinfo=cpuinfo("0x1"))
    with pytest.raises(MachineError, match="this kernel cannot load microcode after boot") as caught:
        microcode(real).check()
    assert "CONFIG_MICROCODE_LATE_LOADING" in caught.value.hint
    mute = tree(tmp_path, **{RELOAD: "", "proc__cpuinfo": "processor : 0\n"})
    with pytest.raises(MachineError, match="does not report the microcode's revision"):
        microcode(mute).check()


def kvm(roots: Roots) -> ReloadKvm:
    return ReloadKvm(ReloadKvmPatch(NS_PER_S), CLOCK, Tools(accelerator="kvm"), roots)


LIVE = {"sys__module__kvm__initstate": "live\n", "sys__module__kvm_amd__initstate": "live\n"}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "KVM is not in the kernel"),
        ({"sys__module__kvm__parameters__x": "1"}, "kvm is built into this kernel"),
        ({"sys__module__kvm__initstate": "live"}, "neither kvm_amd nor kvm_intel"),
        (
            {"sys__module__kvm__initstate": "live", "sys__module__kvm_intel__parameters__x": "1"},
            "kvm_intel is built into",
        ),
    ],
)
def test_why_kvm_cannot_be_reloaded(tmp_path: Path, files: dict[str, str], why: str) -> None:
    with pytest.raises(MachineError, match=why):
        kvm(tree(tmp_path, **files)).check()


@needs_root
def test_a_kernel_without_modules_or_with_them_locked(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no loadable modules"):
        kvm(tree(tmp_path, **LIVE)).check()
    locked = tree(tmp_path, **LIVE, proc__modules="", proc__sys__kernel__modules_disabled="1\n")
    with pytest.raises(MachineError, match="disabled until the next boot"):
        kvm(locked).check()


def test_kvm_in_use_is_left_alone(tmp_path: Path) -> None:
    roots = tree(
        tmp_path,
        **LIVE,
        sys__module__kvm_amd__refcnt="3\n",
        proc__4242__comm="qemu-system-x86\n",
        dev__kvm="",
    )
    handles = roots.proc / "4242/fd"
    handles.mkdir()
    (handles / "9").symlink_to("anon_inode:kvm-vm")
    deadline = CLOCK.now().raw_ns + 500 * NS_PER_MS
    result = kvm(roots).apply(deadline)
    assert CLOCK.now().raw_ns <= deadline + RESERVE_NS // 2  # see test_host_patches.apply
    assert result.why == "KVM is still used by qemu-system-x86 (process 4242)"
    assert [step.name for step in result.steps] == ["wait until it is unused"]


def test_an_insertion_has_an_identity(tmp_path: Path) -> None:
    patch = kvm(tree(tmp_path, **LIVE, sys__module__kvm__srcversion="ABC\n"))
    before = patch.version("")
    assert before.startswith("kvm ABC, insertion ")
    assert "; kvm_amd of unknown source, insertion " in before
    assert patch.verify(before, before) == "kvm and kvm_amd was not unloaded"
    assert patch.verify(before, "kvm ABC, insertion 1; kvm_amd X, insertion 2") == ""
    assert patch.verify(before, "") == "KVM is not in the kernel"


def test_parameters_that_insertion_takes_back(tmp_path: Path) -> None:
    roots = tree(
        tmp_path,
        sys__module__kvm_intel__parameters__nested="Y\n",
        sys__module__kvm_intel__parameters__vmentry_l1d_flush="not required\n",
        sys__module__kvm_intel__parameters__lapic_timer_advance_ns="-1\n",
    )
    values = modules.parameters("kvm-intel", roots)
    assert values["vmentry_l1d_flush"] == "not required"
    assert modules.as_arguments(values) == ["lapic_timer_advance_ns=-1", "nested=Y"]


def test_a_livepatch_that_cannot_be_disabled_is_not_undone(tmp_path: Path) -> None:
    roots = tree(
        tmp_path,
        sys__module__fix__initstate="live",
        sys__kernel__livepatch__fix__enabled="1\n",
        sys__kernel__livepatch__fix__transition="0\n",
        sys__kernel__livepatch__other__enabled="1\n",
        sys__kernel__livepatch__other__transition="1\n",
    )
    patch = Livepatch(LivepatchPatch("/modules/fix.ko", NS_PER_S // 2), CLOCK, roots)
    assert patch.version("") == "fix"
    assert patch.verify("no livepatch", "fix, other") == ""
    assert patch.verify("no livepatch", "fixed").startswith("fix is not enabled")
    # Nobody takes the folder away here, as a kernel with a task in the new code would not.
    with pytest.raises(MachineError, match="not undone: fix: tasks still run the new code") as caught:
        patch.undo()
    assert "rmmod fix" in caught.value.hint
    assert (roots.sys / "kernel/livepatch/fix/enabled").read_text() == "0"
