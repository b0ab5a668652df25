"""What a disk says of how it boots: its partition table, a DOS one or a GPT (UEFI 2.10, section 5).

A disk boots by BIOS when its first sector has code, and by UEFI when it has an EFI system partition, where
the firmware finds \\EFI\\BOOT\\BOOTX64.EFI without being told (UEFI 2.10, 3.5.1.1, which has the names for
other processors too).
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lab.errors import ImageError
from lab.image import fat

SECTOR = 512
_SIGNATURE = b"\x55\xaa"
_CODE = 440  # bytes of code in the first sector, before the disk's signature and the table
_EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")  # GRUB's, "BIOS installation"
_EFI_SYSTEM_TYPE, _PROTECTIVE_TYPE = 0xEF, 0xEE
_MOST_SECTORS = 1 << 53  # a file has at most 2**63 bytes
_ISO = (32769, b"CD001")
_LOADER_FOLDER, _LOADER = ("EFI", "BOOT"), "BOOTX64.EFI"
_LOADERS = {
    "BOOTAA64.EFI": "arm64", "BOOTARM.EFI": "32-bit ARM", "BOOTIA32.EFI": "32-bit x86",
    "BOOTRI~1.EFI": "RISC-V", "BOOTLO~1.EFI": "LoongArch",  # the short names of longer ones
}  # fmt: skip
_POWER_TYPE = 0x41  # PReP, which firmware of POWER machines boots
_POWER = uuid.UUID("9e1a2d38-c612-4316-aa26-8b49521e5a8b")
_PACKED = {
    b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}  # fmt: skip


@dataclass(frozen=True)
class BootWays:
    """How a disk can boot. lacks_uefi: what it has not, for UEFI; "" when it can boot so."""

    bios: bool
    lacks_uefi: str

    @property
    def uefi(self) -> bool:
        return not self.lacks_uefi


@dataclass(frozen=True)
class _Partition:
    kind: uuid.UUID | int
    start: int
    end: int  # the last sector


def boot_ways(disk: Path) -> BootWays:
    """How a raw disk can boot. ImageError when it has no partition table, no boot loader, or is cut off."""
    with disk.open("rb") as file:
        first = file.read(SECTOR)
        if packed := next((name for magic, name in _PACKED.items() if first.startswith(magic)), ""):
            raise ImageError(f"it is packed with {packed}", hint="unpack it first")
        if len(first) < SECTOR or first[-2:] != _SIGNATURE:
            raise ImageError("it is no disk image: neither qcow2, nor a disk with a partition table")
        file.seek(_ISO[0])
        if file.read(len(_ISO[1])) == _ISO[1]:
            raise ImageError("it is an ISO image, which installs a system, and not a disk with one")
        partitions = list(_dos(first))
        if any(partition.kind == _PROTECTIVE_TYPE for partition in partitions):
            partitions = list(_gpt(file))
        file.seek(0, 2)
        sectors = file.tell() // SECTOR
        loaders = _loaders(file, [partition for partition in partitions if partition.end < sectors])
    if not partitions:
        raise ImageError("it has no partitions")
    if (end := max(partition.end for partition in partitions)) >= sectors:
        size, needed = (round(count * SECTOR / (1 << 20)) for count in (sectors, end + 1))
        raise ImageError(f"it is cut off: its partitions end at {needed} MiB, the disk at {size} MiB")
    code = any(first[:_CODE])
    kinds = {partition.kind for partition in partitions}
    gpt = any(isinstance(kind, uuid.UUID) for kind in kinds)
    # On a GPT, GRUB's first sector goes on in a partition of its own; without it the code is a tool's text.
    ways = BootWays(code and (not gpt or _BIOS_BOOT in kinds), _lacking(loaders))
    if ways.bios or ways.uefi:
        return ways
    other = next((_LOADERS[name] for name in sorted(loaders or ()) if name in _LOADERS), "")
    if other := other or ("POWER" if kinds & {_POWER, _POWER_TYPE} else ""):
        what = f"it is for {other}, and has no boot loader for x86-64"
        raise ImageError(what, hint="take the image for x86-64, which is also called amd64")
    raise ImageError(f"it has no boot loader: no code in its first sector, no {ways.lacks_uefi}")


def _loaders(file: BinaryIO, partitions: list[_Partition]) -> set[str] | None:
    """What is in the folder where UEFI looks for a boot loader; None without an EFI system partition."""
    found = [
        fat.names(file, partition.start * SECTOR, _LOADER_FOLDER)
        for partition in partitions
        if partition.kind in (_EFI_SYSTEM, _EFI_SYSTEM_TYPE)
    ]
    return {name for names in found for name in names or ()} if found else None


def _lacking(loaders: set[str] | None) -> str:
    if loaders is None:
        return "EFI system partition"
    path = "\\".join(("", *_LOADER_FOLDER, _LOADER))
    return "" if _LOADER in loaders else f"{path} in its EFI system partition"


def _dos(first: bytes) -> Iterator[_Partition]:
    for at in range(446, 510, 16):
        kind, start, count = struct.unpack_from("<4xB3xII", first, at)
        if kind and count:
            yield _Partition(kind, start, 0 if kind == _PROTECTIVE_TYPE else start + count - 1)


def _gpt(file: BinaryIO) -> Iterator[_Partition]:
    file.seek(SECTOR)
    header = file.read(SECTOR)
    if header[:8] != b"EFI PART":
        raise ImageError("its partition table is damaged")
    table, count, size = struct.unpack_from("<QII", header, 72)
    if table > _MOST_SECTORS or size > SECTOR:
        raise ImageError("its partition table is damaged")
    file.seek(table * SECTOR)
    for _ in range(min(count, 1024)):
        entry = file.read(size)
        if len(entry) < 128:
            raise ImageError("its partition table is damaged")
        kind = uuid.UUID(bytes_le=entry[:16])
        start, end = struct.unpack_from("<QQ", entry, 32)
        if kind.int:
            yield _Partition(kind, start, end)
