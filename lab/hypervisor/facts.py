"""The hypervisor's versions, for the record, and the emulator and machine type for guests."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError, MachineError
from lab.hypervisor.binding import as_hypervisor_error, libvirt, mapped
from lab.hypervisor.domain import Accelerator
from lab.process import runner

_VERSION_S = 10.0
_VERSION = re.compile(r"QEMU emulator version (\d+(?:\.\d+)+)(?: \(([^)\n]*)\))?")


@dataclass(frozen=True)
class Emulator:
    """A QEMU binary, and its newest versioned machine type of a family."""

    path: Path
    machine: str


@dataclass(frozen=True)
class HypervisorFacts:
    """Versions as "7.2.22". libvirt: the connected driver's; libvirt_linked: this process's library."""

    uri: str
    qemu: str
    libvirt: str
    libvirt_linked: str


def versions(connection: Any, uri: str) -> HypervisorFacts:
    """The versions of a connection's driver and QEMU."""
    with mapped("its version cannot be had", uri):
        return HypervisorFacts(
            uri=uri,
            qemu=dotted(connection.getVersion()),
            libvirt=dotted(connection.getLibVersion()),
            libvirt_linked=dotted(libvirt.getVersion()),
        )


def emulator(
    connection: Any, accelerator: Accelerator, family: str = "q35", path: Path | None = None
) -> Emulator:
    """The emulator at `path`, or else libvirt's for x86-64 guests, with its newest machine type of a family.
    The first call in a state folder probes QEMU's capabilities, which takes seconds; make it before any
    freeze. HypervisorError when libvirt has no such emulator."""
    try:
        text = connection.getDomainCapabilities(
            str(path) if path else None, "x86_64", family, accelerator.domain_type, 0
        )
    except libvirt.libvirtError as error:
        failure = as_hypervisor_error(error, f"libvirt offers no x86-64 guests on {accelerator.value}")
        raise HypervisorError(failure.what, hint="is qemu-system-x86 installed?") from error
    root = ET.fromstring(text)  # noqa: S314 - libvirt wrote it
    found, machine = root.findtext("path"), root.findtext("machine")
    if not found or not machine:
        raise HypervisorError("libvirt names no emulator or machine type for x86-64 guests")
    return Emulator(path or Path(found), machine)


def program_version(path: Path) -> str:
    """The version that a QEMU binary prints: "7.2.22 (Debian …)". HypervisorError when it cannot be run,
    hangs, or is not QEMU."""
    try:
        done = runner.run([str(path), "--version"], _VERSION_S)
    except MachineError as error:
        raise HypervisorError("the emulator prints no version", where=str(path)) from error
    found = _VERSION.search(done.stdout)
    if found is None:
        raise HypervisorError("is no QEMU: it tells no version", where=str(path))
    return found[1] + (f" ({found[2].strip()})" if found[2] else "")


def has_device(path: Path, name: str) -> bool:
    """Whether a QEMU binary has a device of this name. HypervisorError when it cannot be run, or hangs.

    By its list of all: asked for one that it does not have (`-device NAME,help`), it exits with 0 as well."""
    try:
        done = runner.run([str(path), "-device", "help"], _VERSION_S, check=False)
    except MachineError as error:
        raise HypervisorError("the emulator does not say what devices it has", where=str(path)) from error
    return f'name "{name}"' in done.stdout


def running_version(ask: Callable[[str], Any]) -> str:
    """The version of a running QEMU, in the same form. ask: runs a QMP command and returns its result."""
    version = ask("query-version")
    number = ".".join(str(version["qemu"][part]) for part in ("major", "minor", "micro"))
    package = str(version.get("package", "")).strip()
    return f"{number} ({package})" if package else number


def numbers(version: str) -> tuple[int, ...]:
    """A version's numbers: (7, 2, 22) for "7.2.22 (Debian …)" or "7.2.22"."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition(" ")[0]))


def dotted(number: int) -> str:
    """A libvirt version number, major * 1,000,000 + minor * 1,000 + release (virGetVersion), as "9.0.0"."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
