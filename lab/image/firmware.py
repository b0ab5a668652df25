"""UEFI firmware of the distribution, found by the descriptors that QEMU's packages come with (QEMU,
docs/interop/firmware.json).

Firmware for flash comes as two files, its code and a template of its variables. In this order they are what
the machine has at the end of its address space, so they are given to QEMU as one ROM (-bios). Then the
variables live in the guest's memory: no guest has a flash of its own to be copied, saved or handed over, and
all of an image start with the same. No boot loader needs them that is where firmware looks for one by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.errors import MachineError
from lab.process.packages import how_to_get, listed

FOLDERS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
_UNWANTED = {"requires-smm", "enrolled-keys"}
"""Features of firmware that does not start on the lab's machines, which have no SMM, or refuses systems."""


def uefi() -> bytes:
    """A ROM with UEFI for x86-64. MachineError when there is none."""
    for descriptor in _descriptors():
        try:
            if (files := _files(descriptor)) is not None:
                return b"".join(path.read_bytes() for path in files)
        except (OSError, KeyError, TypeError):
            continue
    lacking = [package for package in listed() if package.stage == "uefi"]
    what = "there is no UEFI firmware on this machine"
    raise MachineError(what, where=str(FOLDERS[-1]), hint=how_to_get(lacking))


def _descriptors() -> Iterator[Mapping[str, Any]]:
    """All, by their file names; one of an earlier folder replaces one of the same name."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "qemu" / "firmware"
    found: dict[str, Path] = {}
    for folder in (config, *FOLDERS):
        for path in folder.glob("*.json"):
            found.setdefault(path.name, path)
    for _, path in sorted(found.items()):
        try:
            descriptor = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(descriptor, dict):
            yield descriptor


def _files(descriptor: Mapping[str, Any]) -> tuple[Path, ...] | None:
    """The files of a descriptor, in their order in memory; None when it is of no use here."""
    fits = any(
        target["architecture"] == "x86_64" and any("q35" in machine for machine in target["machines"])
        for target in descriptor["targets"]
    )
    if not fits or "uefi" not in descriptor["interface-types"] or _UNWANTED & set(descriptor["features"]):
        return None
    mapping = descriptor["mapping"]
    if mapping["device"] == "memory":
        return (Path(mapping["filename"]),)
    parts = [mapping[part] for part in ("nvram-template", "executable") if part in mapping]
    if mapping["device"] != "flash" or any(part["format"] != "raw" for part in parts):
        return None
    return tuple(Path(part["filename"]) for part in parts)
