"""The kernel's modules, as /sys shows them and kmod's programs change them."""

from __future__ import annotations

import re
from pathlib import Path

from lab.errors import MachineError
from lab.host.patches.base import Roots, read
from lab.process import runner

_PLAIN = re.compile(r"[\w.,:+-]+")
"""What goes through modprobe and the kernel's own parser without quoting."""

_ASK_S = 5.0


def folder(name: str, roots: Roots) -> Path:
    return roots.sys / "module" / name.replace("-", "_")


def state(name: str, roots: Roots) -> str:
    """ "live", "coming" or "going" for a module that is in (Documentation/ABI/testing/sysfs-module),
    "built in" for a part of the kernel, "" when it is not there."""
    place = folder(name, roots)
    if not place.is_dir():
        return ""
    return read(place / "initstate") or "built in"


def parameters(name: str, roots: Roots) -> dict[str, str]:
    """Of a module that is in: those that can be read."""
    place = folder(name, roots) / "parameters"
    if not place.is_dir():
        return {}
    return {path.name: value for path in sorted(place.iterdir()) if (value := read(path))}


def as_arguments(values: dict[str, str]) -> list[str]:
    """name=value for insertion. What the kernel shows in words, like kvm_intel's "not required", it does
    not take back, and is left out."""
    return [f"{name}={value}" for name, value in values.items() if _PLAIN.fullmatch(value)]


def identity(name: str, roots: Roots) -> str:
    """Of this very insertion: the module's srcversion, and the number of its folder in sysfs, which a new
    insertion makes anew. "" when it is not in."""
    place = folder(name, roots)
    try:
        number = place.stat().st_ino
    except OSError:
        return ""
    return f"{name} {read(place / 'srcversion') or 'of unknown source'}, insertion {number}"


def info(module: str, field: str) -> str:
    """What modinfo tells. MachineError when it is missing or does not know the module."""
    return runner.run(["modinfo", "-F", field, module], _ASK_S).stdout.strip()


def may_change(roots: Roots) -> None:
    """MachineError when this kernel takes no modules in or out."""
    if not (roots.proc / "modules").exists():
        raise MachineError("this kernel has no loadable modules (CONFIG_MODULES)")
    if read(roots.proc / "sys/kernel/modules_disabled") == "1":
        raise MachineError("loading of modules was disabled until the next boot (kernel.modules_disabled)")
