"""KVM's modules out and in: for real where they are modules, else the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.core.patch import ReloadKvmPatch
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host import patches
from lab.host.patches import modules
from lab.host.patches.base import Roots
from lab.host.patches.kvm import VENDORS
from lab.ports import HostPatch, PatchResult
from lab.process.clock import HostClock

Apply = Callable[[HostPatch, float], PatchResult]
Refusal = Callable[[HostPatch], MachineError]

HERE = Roots()


def patch_of(clock: HostClock, *, deadline_s: int = 20, accelerator: str = "kvm", mine: int = 0) -> HostPatch:
    tools = patches.Tools(
        accelerator=accelerator,
        accelerator_reason="a guest's kernel does not boot on it",
        emulator_pids=lambda: (mine,),
    )
    return patches.make(ReloadKvmPatch(deadline_s * NS_PER_S), clock, tools)


@pytest.fixture
def vendor(expendable: None) -> str:
    """The vendor's module of a host on which KVM is there, as modules, and used by nobody."""
    found = next((name for name in VENDORS if modules.state(name, HERE) == "live"), "")
    if not found or modules.state("kvm", HERE) != "live":
        pytest.skip("KVM is not there as modules")
    if (modules.folder(found, HERE) / "refcnt").read_text().strip() != "0":
        pytest.skip("KVM is in use")
    return found


@pytest.fixture
def holder() -> Iterator[int]:
    """This process, with a handle on KVM."""
    handle = os.open("/dev/kvm", os.O_RDWR)
    yield os.getpid()
    os.close(handle)


def test_without_a_usable_kvm(clock: HostClock, refusal: Refusal) -> None:
    error = refusal(patch_of(clock, accelerator="tcg"))
    assert error.what == "KVM is not usable here: guests run under tcg (a guest's kernel does not boot on it)"


def test_a_kvm_that_is_no_module(clock: HostClock, refusal: Refusal) -> None:
    if modules.state("kvm", HERE) == "live":
        pytest.skip("KVM is there as modules")
    what = refusal(patch_of(clock)).what
    assert what in ("kvm is built into this kernel: it cannot be reloaded", "KVM is not in the kernel")
    assert patch_of(clock).version("") == ""


def test_it_is_reloaded(vendor: str, clock: HostClock, apply: Apply) -> None:
    patch = patch_of(clock)
    device = Path("/dev/kvm").stat()
    before = {name: modules.parameters(name, HERE) for name in ("kvm", vendor)}
    version = patch.version("")
    for _ in range(3):
        patch.check()
        result = apply(patch, 25)
        assert result.ok, result
        assert result.facts == {}  # without modprobe
        names = [step.name for step in result.steps]
        assert names == [
            "wait until it is unused",
            f"unload {vendor} and kvm",
            f"load kvm and {vendor}",
            "device",
        ]
        assert patch.verify(version, patch.version("")) == ""
        version = patch.version("")
    assert {name: modules.parameters(name, HERE) for name in ("kvm", vendor)} == before
    after = Path("/dev/kvm").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (device.st_mode, device.st_uid, device.st_gid)


def test_a_changed_parameter_survives(vendor: str, clock: HostClock, apply: Apply) -> None:
    parameter = modules.folder("kvm", HERE) / "parameters/halt_poll_ns"
    usual = parameter.read_text()
    parameter.write_text("123456")
    try:
        result = apply(patch_of(clock), 25)
        assert result.ok, result
        assert parameter.read_text().strip() == "123456"
    finally:
        parameter.write_text(usual)


def test_somebody_else_holds_it(
    vendor: str, holder: int, clock: HostClock, apply: Apply, refusal: Refusal
) -> None:
    assert f"(process {holder})" in refusal(patch_of(clock)).what
    patch_of(clock, mine=holder).check()
    patch = patch_of(clock)
    version = patch.version("")
    result = apply(patch, 2)
    assert f"(process {holder})" in result.why
    assert patch.version("") == version  # not touched
    assert "was not unloaded" in patch.verify(version, version)


def test_no_time(vendor: str, clock: HostClock, apply: Apply) -> None:
    assert apply(patch_of(clock), 0.001).why == "no time left to start it"
    assert modules.state("kvm", HERE) == "live"
