"""Kernel modules: read from /sys, found by kmod's programs, loaded and unloaded by them or by the kernel."""

from __future__ import annotations

import ctypes
import lzma
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lab.errors import MachineError
from lab.host.patches.base import Roots, read
from lab.process import runner

_PLAIN = re.compile(r"[\w.,:+-]+")
"""Parameter values that modprobe and the kernel's parser take without quoting."""

_ASK_S = 5.0


def folder(name: str, roots: Roots) -> Path:
    return roots.sys / "module" / name.replace("-", "_")


def state(name: str, roots: Roots) -> str:
    """A module's state: "live", "coming" or "going" when it is loaded (Linux,
    Documentation/ABI/testing/sysfs-module), "built in" for a part of the kernel, "" when it is not loaded."""
    place = folder(name, roots)
    if not place.is_dir():
        return ""
    return read(place / "initstate") or "built in"


def parameters(name: str, roots: Roots) -> dict[str, str]:
    """The readable parameters of a loaded module."""
    place = folder(name, roots) / "parameters"
    if not place.is_dir():
        return {}
    return {path.name: value for path in sorted(place.iterdir()) if (value := read(path))}


def as_arguments(values: dict[str, str]) -> list[str]:
    """Parameters as name=value for modprobe. Values that the kernel shows but does not accept, such as
    kvm_intel's "not required", are left out."""
    return [f"{name}={value}" for name, value in values.items() if _PLAIN.fullmatch(value)]


def identity(name: str, roots: Roots) -> str:
    """Identifies one loading of a module: its srcversion, and the inode number of its folder in sysfs, which
    is new each time the module is loaded. "" when it is not loaded."""
    place = folder(name, roots)
    try:
        number = place.stat().st_ino
    except OSError:
        return ""
    return f"{name} {read(place / 'srcversion') or 'of unknown source'}, insertion {number}"


def info(module: str, field: str) -> str:
    """A field of modinfo(8). MachineError when modinfo is missing or does not know the module."""
    return runner.run(["modinfo", "-F", field, module], _ASK_S).stdout.strip()


@dataclass(frozen=True)
class ModuleFile:
    """A module's file, and the options that modprobe.d(5) gives it."""

    path: Path
    options: tuple[str, ...]

    def insert(self, values: dict[str, str]) -> None:
        """Load it with these parameters, by init_module(2). OSError when the kernel refuses, or the file
        cannot be read."""
        data = self.path.read_bytes()
        if self.path.suffix == ".xz":
            data = lzma.decompress(data)
        words = " ".join((*self.options, *as_arguments(values)))
        _call("init_module", data, ctypes.c_ulong(len(data)), words.encode())


def files(name: str) -> dict[str, ModuleFile]:
    """The files of a module and of those that it needs, by name, without those that need modprobe: for a
    command of modprobe.d(5), or another compression. MachineError when modprobe does not know the module."""
    found = {}
    for line in runner.run(["modprobe", "--show-depends", name], _ASK_S).stdout.splitlines():
        verb, path, *options = line.split()
        stem, _, kind = Path(path).name.partition(".")
        if verb == "insmod" and kind in ("ko", "ko.xz"):
            found[stem.replace("-", "_")] = ModuleFile(Path(path), tuple(options))
    return found


def remove(name: str) -> None:
    """Unload a module, by delete_module(2). OSError when it is in use."""
    _call("delete_module", name.encode(), os.O_NONBLOCK)


def _call(function: str, *arguments: object) -> None:
    """A system call of the C library, which has these for programs of kmod's age."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        raise OSError(number := ctypes.get_errno(), os.strerror(number))


def may_change(roots: Roots) -> None:
    """MachineError when modules cannot be loaded or unloaded on this kernel."""
    if not (roots.proc / "modules").exists():
        raise MachineError("this kernel has no loadable modules (CONFIG_MODULES)")
    if read(roots.proc / "sys/kernel/modules_disabled") == "1":
        raise MachineError("loading of modules was disabled until the next boot (kernel.modules_disabled)")
