"""Raw disks with a partition table, written byte by byte."""

from __future__ import annotations

import struct
import uuid
import zlib
from pathlib import Path

SECTOR = 512
START = 2048  # of the first partition: what comes before belongs to the boot loader, or to nobody
EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")  # UEFI 2.10, table 5-7
LINUX_ROOT = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")  # Discoverable Partitions Specification
POWER_BOOT = uuid.UUID("9e1a2d38-c612-4316-aa26-8b49521e5a8b")  # PReP
LINUX = 0x83
_PIECE = 1 << 20


def write_dos_table(disk: Path, boot: bytes, core: bytes, root: Path) -> None:
    """GRUB's boot.img in the first sector, core.img behind it, where boot.img looks for it, one partition."""
    assert len(core) <= (START - 1) * SECTOR
    sectors = root.stat().st_size // SECTOR
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", LINUX, b"\xfe\xff\xff", START, sectors)
    first = boot[:440] + bytes(6) + entry.ljust(64, b"\0") + b"\x55\xaa"
    _write(disk, START + sectors, {0: first, 1: core}, {START: root})


def write_gpt(disk: Path, esp: bytes, root: Path, kind: uuid.UUID = EFI_SYSTEM) -> None:
    """UEFI 2.10, 5.3: a protective MBR, a header and 128 entries at both ends. kind: of the first
    partition."""
    sizes = (len(esp) // SECTOR, root.stat().st_size // SECTOR)
    starts = (START, START + sizes[0])
    total = starts[1] + sizes[1] + START
    entries = b""
    for each, start, size in zip((kind, LINUX_ROOT), starts, sizes, strict=True):
        entries += each.bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ72x", start, start + size - 1, 0)
    entries = entries.ljust(128 * 128, b"\0")
    this = uuid.uuid4().bytes_le

    def header(here: int, other: int, table: int) -> bytes:
        def packed(crc: int) -> bytes:
            words = struct.pack("<IIIIQQQQ", 0x10000, 92, crc, 0, here, other, 34, total - 34)
            last = struct.pack("<QIII", table, 128, 128, zlib.crc32(entries))
            return b"EFI PART" + words + this + last

        return packed(zlib.crc32(packed(0)))

    protective = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, total - 1)
    first = bytes(446) + protective.ljust(64, b"\0") + b"\x55\xaa"
    end = total - 1
    pieces = {0: first, 1: header(1, end, 2), 2: entries, START: esp}
    pieces |= {end - 32: entries, end: header(end, 1, end - 32)}
    _write(disk, total, pieces, {starts[1]: root})


def efi_system(loader: str, kind: int = 12) -> bytes:
    """A FAT file system with an empty file LOADER where UEFI looks for it. kind: 12, 16 or 32, the bits of an
    entry of its table."""
    sectors = {12: 2048, 16: 8192, 32: 70_000}[kind]
    table = -(-sectors * kind // 8 // SECTOR)
    root = 0 if kind == 32 else 16  # entries, one sector
    reserved = 1
    total16 = sectors if sectors < 1 << 16 else 0
    first = bytearray(b"\xeb\x3c\x90MSDOS5.0".ljust(SECTOR, b"\0"))
    per_table = 0 if kind == 32 else table
    struct.pack_into("<HBHBHHBH", first, 11, SECTOR, 1, reserved, 1, root, total16, 0xF8, per_table)
    struct.pack_into("<I", first, 32, 0 if total16 else sectors)
    if kind == 32:
        struct.pack_into("<I", first, 36, table)
        struct.pack_into("<I", first, 44, 2)
    first[510:] = b"\x55\xaa"

    def entry(name: str, attributes: int, cluster: int) -> bytes:
        base, _, suffix = name.partition(".")
        head = f"{base:<8}{suffix:<3}".encode() + bytes([attributes])
        return head + bytes(8) + struct.pack("<HIHI", cluster >> 16, 0, cluster & 0xFFFF, 0)

    long_name = b"\x41" + bytes(10) + b"\x0f" + bytes(20)
    label = entry("ESP", 0x08, 0)
    folders = [label + long_name + entry("EFI", 0x10, 3), entry(".", 0x10, 3) + entry("BOOT", 0x10, 4)]
    folders += [entry("OLD.EFI", 0x20, 0).replace(b"O", b"\xe5", 1) + entry(loader, 0x20, 0)]
    at = reserved + table + (1 if root else 0)
    made = bytearray(sectors * SECTOR)
    made[:SECTOR] = first
    end = (1 << min(kind, 28)) - 1
    entries = sum(end << kind * cluster for cluster in range(5))  # the chains of clusters 2 to 4 end there
    made[reserved * SECTOR : reserved * SECTOR + kind * 5 // 8 + 1] = entries.to_bytes(
        kind * 5 // 8 + 1, "little"
    )
    for cluster, folder in enumerate(folders, start=2):
        where = reserved + table if root and cluster == 2 else at + cluster - 2
        made[where * SECTOR : where * SECTOR + len(folder)] = folder
    return bytes(made)


def _write(disk: Path, sectors: int, pieces: dict[int, bytes], files: dict[int, Path]) -> None:
    """Put pieces and files where they belong, in sectors; the files' holes stay holes."""
    with disk.open("xb") as file:
        file.truncate(sectors * SECTOR)
        for at, data in pieces.items():
            file.seek(at * SECTOR)
            file.write(data)
        for at, path in files.items():
            with path.open("rb") as source:
                file.seek(at * SECTOR)
                while piece := source.read(_PIECE):
                    if piece.strip(b"\0"):
                        file.write(piece)
                    else:
                        file.seek(len(piece), 1)
