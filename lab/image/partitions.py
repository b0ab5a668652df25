"""What a disk says of how it boots: its partition table, a DOS one or a GPT (UEFI 2.10, section 5).

A disk boots by BIOS when its first sector has code, and by UEFI when it has an EFI system partition, where
the firmware finds \\EFI\\BOOT\\BOOTX64.EFI without being told.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lab.errors import ImageError

SECTOR = 512
_SIGNATURE = b"\x55\xaa"
_CODE = 440  # bytes of code in the first sector, before the disk's signature and the table
_EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")  # GRUB's, "BIOS installation"
_EFI_SYSTEM_TYPE, _PROTECTIVE_TYPE = 0xEF, 0xEE
_ISO = (32769, b"CD001")
_PACKED = {
    b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
}  # fmt: skip


@dataclass(frozen=True)
class BootWays:
    """How a disk can boot."""

    bios: bool
    uefi: bool


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
    if not partitions:
        raise ImageError("it has no partitions")
    if (end := max(partition.end for partition in partitions)) >= sectors:
        size, needed = (round(count * SECTOR / (1 << 20)) for count in (sectors, end + 1))
        raise ImageError(f"it is cut off: its partitions end at {needed} MiB, the disk at {size} MiB")
    code = any(first[:_CODE])
    kinds = {partition.kind for partition in partitions}
    gpt = any(isinstance(kind, uuid.UUID) for kind in kinds)
    # On a GPT, GRUB's first sector goes on in a partition of its own; without it the code is a tool's text.
    ways = BootWays(code and (not gpt or _BIOS_BOOT in kinds), bool(kinds & {_EFI_SYSTEM, _EFI_SYSTEM_TYPE}))
    if not (ways.bios or ways.uefi):
        raise ImageError("it has no boot loader: no code in its first sector, no EFI system partition")
    return ways


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
    file.seek(table * SECTOR)
    for _ in range(min(count, 1024)):
        entry = file.read(size)
        if len(entry) < 128:
            raise ImageError("its partition table is damaged")
        kind = uuid.UUID(bytes_le=entry[:16])
        start, end = struct.unpack_from("<QQ", entry, 32)
        if kind.int:
            yield _Partition(kind, start, end)
