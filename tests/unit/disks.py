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
LINUX = 0x83
_PIECE = 1 << 20


def write_dos_table(disk: Path, boot: bytes, core: bytes, root: Path) -> None:
    """GRUB's boot.img in the first sector, core.img behind it, where boot.img looks for it, one partition."""
    assert len(core) <= (START - 1) * SECTOR
    sectors = root.stat().st_size // SECTOR
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", LINUX, b"\xfe\xff\xff", START, sectors)
    first = boot[:440] + bytes(6) + entry.ljust(64, b"\0") + b"\x55\xaa"
    _write(disk, START + sectors, {0: first, 1: core}, {START: root})


def write_gpt(disk: Path, esp: bytes, root: Path) -> None:
    """UEFI 2.10, 5.3: a protective MBR, a header and 128 entries at both ends."""
    sizes = (len(esp) // SECTOR, root.stat().st_size // SECTOR)
    starts = (START, START + sizes[0])
    total = starts[1] + sizes[1] + START
    entries = b""
    for kind, start, size in zip((EFI_SYSTEM, LINUX_ROOT), starts, sizes, strict=True):
        entries += kind.bytes_le + uuid.uuid4().bytes_le + struct.pack("<QQQ72x", start, start + size - 1, 0)
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
