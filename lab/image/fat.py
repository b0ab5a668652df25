"""The names in a folder of a FAT file system, which is what an EFI system partition has (Microsoft, "FAT32
File System Specification", 1.03; UEFI 2.10, 13.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

_ENTRY = 32
_FOLDER, _LONG_NAME, _LABEL = 0x10, 0x0F, 0x08
_FREE, _END = 0xE5, 0x00
_FAT12, _FAT16 = 4085, 65525  # the fewest clusters of the next larger kind
_MOST_BYTES = 1 << 20
"""The most of a folder that is read, so that a damaged chain of clusters ends."""


@dataclass(frozen=True)
class _Layout:
    """Where its parts are, in bytes from the beginning of the disk. kind: bits of an entry of the table."""

    kind: int
    table: int
    root: int
    root_bytes: int
    root_cluster: int
    data: int
    cluster_bytes: int


def names(disk: BinaryIO, start: int, folder: Sequence[str]) -> set[str] | None:
    """The short names in a folder, in capitals; an empty set when there is no such folder, None when there is
    no FAT file system at byte `start`."""
    layout = _layout(disk, start)
    if layout is None:
        return None
    content = _root(disk, layout)
    for part in folder:
        found = next((at for name, is_folder, at in _entries(content) if is_folder and name == part), None)
        if found is None:
            return set()
        content = _chain(disk, layout, found)
    return {name for name, _, _ in _entries(content)}


def _layout(disk: BinaryIO, start: int) -> _Layout | None:
    disk.seek(start)
    sector = disk.read(512)
    if len(sector) < 512 or sector[510:] != b"\x55\xaa":
        return None
    size, per_cluster, reserved, tables, root_count, total16 = struct.unpack_from("<HBHBHH", sector, 11)
    per_table = struct.unpack_from("<H", sector, 22)[0] or struct.unpack_from("<I", sector, 36)[0]
    total = total16 or struct.unpack_from("<I", sector, 32)[0]
    if size not in (512, 1024, 2048, 4096) or not per_cluster or not reserved or not tables or not per_table:
        return None
    root_bytes = root_count * _ENTRY
    first_root = reserved + tables * per_table
    first_data = first_root + -(-root_bytes // size)
    clusters = (total - first_data) // per_cluster
    kind = 12 if clusters < _FAT12 else 16 if clusters < _FAT16 else 32
    return _Layout(
        kind=kind,
        table=start + reserved * size,
        root=start + first_root * size,
        root_bytes=root_bytes,
        root_cluster=struct.unpack_from("<I", sector, 44)[0] if kind == 32 else 0,
        data=start + first_data * size,
        cluster_bytes=per_cluster * size,
    )


def _root(disk: BinaryIO, layout: _Layout) -> bytes:
    if layout.root_cluster:
        return _chain(disk, layout, layout.root_cluster)
    disk.seek(layout.root)
    return disk.read(layout.root_bytes)


def _chain(disk: BinaryIO, layout: _Layout, cluster: int) -> bytes:
    """What is in a chain of clusters."""
    content = b""
    while 2 <= cluster < (1 << min(layout.kind, 28)) - 8 and len(content) < _MOST_BYTES:
        disk.seek(layout.data + (cluster - 2) * layout.cluster_bytes)
        content += disk.read(layout.cluster_bytes)
        cluster = _next(disk, layout, cluster)
    return content


def _next(disk: BinaryIO, layout: _Layout, cluster: int) -> int:
    disk.seek(layout.table + cluster * layout.kind // 8)
    entry = int.from_bytes(disk.read(4), "little")
    if layout.kind == 12:
        return (entry >> 4 if cluster % 2 else entry) & 0xFFF
    return entry & (0xFFFF if layout.kind == 16 else 0x0FFFFFFF)


def _entries(content: bytes) -> Iterator[tuple[str, bool, int]]:
    """(short name, whether it is a folder, its first cluster) of each entry."""
    for at in range(0, len(content) - _ENTRY + 1, _ENTRY):
        entry = content[at : at + _ENTRY]
        if entry[0] == _END:
            return
        kind = entry[11]
        if entry[0] == _FREE or kind & _LONG_NAME == _LONG_NAME or kind & _LABEL:
            continue
        base, suffix = entry[:8].decode("latin-1").rstrip(), entry[8:11].decode("latin-1").rstrip()
        high, low = struct.unpack_from("<H", entry, 20)[0], struct.unpack_from("<H", entry, 26)[0]
        yield f"{base}.{suffix}" if suffix else base, bool(kind & _FOLDER), high << 16 | low
