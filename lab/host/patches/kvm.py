"""reload-kvm: unloads KVM's modules and loads them again, with the same parameters.

No process may use KVM during the patch: each guest is only a RAM file and a file of device state, and runs in
a process that is started after the patch. Guests wait for it, so the kernel is asked directly. modprobe has
looked for the files before, and is run only where that fails.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from lab.core import patch as plan
from lab.core.units import NS_PER_MS
from lab.errors import MachineError
from lab.host.patches import modules
from lab.host.patches.base import Roots, Stepwise, Tools, Work, listed, need_root, one_line, read
from lab.ports import Clock, Successor
from lab.process import runner

VENDORS = ("kvm_amd", "kvm_intel")

_HANDLES = ("anon_inode:kvm-vm", "anon_inode:kvm-vcpu")

_BACK_SHARE = 0.6
"""The share of the time that is reserved for loading: a host without KVM is worse than a failed patch."""

_UDEV_NS = 500 * NS_PER_MS
"""Time limit for udev to set the owner and mode of /dev/kvm."""


class ReloadKvm(Stepwise):
    """Reloads KVM. It succeeds when the same modules have been loaded again."""

    successor = Successor(cold=True)
    whole = True

    def __init__(
        self, spec: plan.ReloadKvmPatch, clock: Clock, tools: Tools, roots: Roots | None = None
    ) -> None:
        super().__init__(spec.label, spec.impact, clock, spec.deadline_ns)
        self._tools, self._roots = tools, roots or Roots()
        self._files: dict[str, modules.ModuleFile] = {}

    def check(self) -> None:
        """MachineError when there is no KVM module to reload, or another process uses KVM."""
        if self._tools.accelerator != "kvm":
            other = self._tools.accelerator or "another accelerator"
            why = f" ({reason})" if (reason := self._tools.accelerator_reason) else ""
            raise MachineError(
                f"KVM is not usable here: guests run under {other}{why}",
                hint="`freezelab doctor` has details",
            )
        vendor = self._vendor()
        need_root("reload KVM")
        modules.may_change(self._roots)
        for name in ("modprobe", "modinfo"):
            runner.find(name)
        for name in ("kvm", vendor):
            try:
                modules.info(name, "filename")
            except MachineError as error:
                raise MachineError(
                    f"{name} could not be loaded again: {error.what}",
                    hint="the running kernel's package was upgraded or removed: reboot first",
                ) from error
        self._files = modules.files(vendor)
        mine = set(self._tools.emulator_pids())
        if others := [each for each in self._holders() if each[0] not in mine]:
            raise MachineError(f"KVM is used by {_named(others)}", hint="end these first")

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        """The identity of the loaded modules (see modules.identity)."""
        vendor = next((name for name in VENDORS if modules.state(name, self._roots)), "")
        return "; ".join(modules.identity(name, self._roots) for name in ("kvm", vendor)) if vendor else ""

    def verify(self, before: str, after: str) -> str:
        if not after:
            return "KVM is not in the kernel"
        olds = before.split("; ")
        still = [each.partition(" ")[0] for each in after.split("; ") if each in olds]
        return f"{' and '.join(still)} was not unloaded" if still else ""

    def _vendor(self) -> str:
        """kvm_amd or kvm_intel. MachineError when neither is loaded as a module."""
        if not modules.state("kvm", self._roots):
            raise MachineError("KVM is not in the kernel", hint="modprobe kvm_amd, or kvm_intel")
        vendor = next((name for name in VENDORS if modules.state(name, self._roots)), "")
        for name in ("kvm", vendor):
            if name and modules.state(name, self._roots) == "built in":
                raise MachineError(f"{name} is built into this kernel: it cannot be reloaded")
        if not vendor:
            raise MachineError("neither kvm_amd nor kvm_intel is in the kernel")
        return vendor

    def _holders(self) -> list[tuple[int, str]]:
        """The pids and names of processes that have KVM open. Other users' processes are visible to root
        only."""
        device = str(self._roots.dev / "kvm")
        processes = [place for place in self._roots.proc.iterdir() if place.name.isdigit()]
        return sorted(
            (int(place.name), read(place / "comm"))
            for place in processes
            if any(target == device or target.startswith(_HANDLES) for target in _targets(place / "fd"))
        )

    def _do(self, work: Work) -> None:
        vendor = self._vendor()
        before = {name: modules.parameters(name, self._roots) for name in ("kvm", vendor)}
        device = self._roots.dev / "kvm"
        owner = device.stat() if device.exists() else None
        back_ns = round(work.left_ns * _BACK_SHARE)
        out = Work(work.clock, work.end_raw_ns - back_ns)
        with work.step("wait until it is unused"):
            self._wait_unused(out, vendor)
        try:
            with work.step(f"unload {vendor} and kvm"):
                for name in (vendor, "kvm"):
                    if modules.state(name, self._roots):
                        self._remove(out, name)
        finally:
            # Also when only some of the modules were unloaded.
            with work.step(f"load kvm and {vendor}"):
                for name in ("kvm", vendor):
                    if not modules.state(name, self._roots):
                        self._insert(work, name, before[name])
        if owner is not None:
            with work.step("device"):
                _restore(work, device, owner)
        for name, values in before.items():
            now = modules.parameters(name, self._roots)
            if other := [
                f"{key} {values.get(key)} -> {now.get(key)}" for key in values if now.get(key) != values[key]
            ]:
                raise MachineError(f"{name} was reloaded with other parameters: {listed(other)}")

    def _wait_unused(self, out: Work, vendor: str) -> None:
        """Wait until KVM is unused: an emulator that was just killed takes a while to close it."""
        try:
            out.wait(lambda: read(modules.folder(vendor, self._roots) / "refcnt") == "0", "")
        except MachineError as error:
            holders = self._holders()
            who = _named(holders) if holders else "an unknown user in the kernel"
            raise MachineError(f"KVM is still used by {who}") from error

    def _remove(self, work: Work, name: str) -> None:
        try:
            modules.remove(name)
        except OSError as error:
            work.facts[f"first removal of {name}"] = error.strerror
            work.run("modprobe", "-r", name)

    def _insert(self, work: Work, name: str, values: dict[str, str]) -> None:
        """Load a module with its old parameters or, when that fails, with modprobe's defaults as at boot."""
        try:
            if name in self._files:
                self._files[name].insert(values)
            else:
                work.run("modprobe", name, *modules.as_arguments(values))
        except (MachineError, OSError) as error:
            why = one_line(error) if isinstance(error, MachineError) else error.strerror
            work.facts[f"first insertion of {name}"] = why
            work.run("modprobe", name)


def _named(holders: Collection[tuple[int, str]]) -> str:
    return listed([f"{name} (process {pid})" for pid, name in holders])


def _targets(folder: Path) -> list[str]:
    targets = []
    with contextlib.suppress(OSError):
        for handle in folder.iterdir():
            with contextlib.suppress(OSError):
                targets.append(str(handle.readlink()))
    return targets


def _restore(work: Work, device: Path, owner: os.stat_result) -> None:
    """Wait until udev has set the device's owner and mode. Without udev, set them here."""
    work.wait(device.exists, f"{device} did not appear again")

    def right() -> bool:
        now = device.stat()
        return (now.st_uid, now.st_gid, now.st_mode) == (owner.st_uid, owner.st_gid, owner.st_mode)

    try:
        work.wait(right, "", work.clock.now().raw_ns + _UDEV_NS)
    except MachineError:
        os.chown(device, owner.st_uid, owner.st_gid)
        device.chmod(stat.S_IMODE(owner.st_mode))
