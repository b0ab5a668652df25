"""What the hypervisor is, for the record, and which emulator and machine type guests get."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError
from lab.hypervisor.binding import as_hypervisor_error, libvirt, mapped
from lab.hypervisor.domain import Accelerator


@dataclass(frozen=True)
class Emulator:
    """The QEMU binary, and the versioned machine type that a family's name means to it."""

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
    """Who answers at `uri`."""
    with mapped("its version cannot be had", uri):
        return HypervisorFacts(
            uri=uri,
            qemu=_dotted(connection.getVersion()),
            libvirt=_dotted(connection.getLibVersion()),
            libvirt_linked=_dotted(libvirt.getVersion()),
        )


def emulator(connection: Any, accelerator: Accelerator, family: str = "q35") -> Emulator:
    """libvirt's emulator for x86-64 guests, with the newest machine type of a family. The first call in a
    state folder probes QEMU's capabilities and takes seconds: make it before any freeze. HypervisorError
    when there is none."""
    try:
        text = connection.getDomainCapabilities(None, "x86_64", family, accelerator.domain_type, 0)
    except libvirt.libvirtError as error:
        failure = as_hypervisor_error(error, f"libvirt offers no x86-64 guests on {accelerator.value}")
        raise HypervisorError(failure.what, hint="is qemu-system-x86 installed?") from error
    root = ET.fromstring(text)  # noqa: S314 - libvirt wrote it
    path, machine = root.findtext("path"), root.findtext("machine")
    if not path or not machine:
        raise HypervisorError("libvirt names no emulator or machine type for x86-64 guests")
    return Emulator(Path(path), machine)


def _dotted(number: int) -> str:
    """libvirt's version numbers: major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
