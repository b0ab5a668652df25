"""A guest's RAM as a file: its folder, its allocation, and digests of its pages.

RAM that two QEMU processes map one after the other is a file on a tmpfs (shm_overview(7)) or on hugetlbfs.
The lab chooses its path, because libvirt removes files that it manages when a domain ends.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.core.timeline import MemoryProof
from lab.core.units import format_size
from lab.errors import MachineError
from lab.hypervisor import shm

PAGE = 4096
_DIGEST = 32  # bytes of SHA-256, which current CPUs compute in hardware
_PIECE = 1024 * PAGE
_THREADS = 2
_FIRST = 16
"""How many differing pages are listed."""

SHM = shm.SHM
_LINK, _KIND = "ram", "-ram"
_POOLS = Path("/sys/kernel/mm/hugepages")
_SPARE = 16 << 20
"""Bytes to leave free on the RAM file system, for libvirt's status files and sockets and for other
programs."""


def folder(home: Path) -> Path:
    """The folder on /dev/shm for RAM of this home's guests; it is created if needed. MachineError when it
    cannot be created, or others can access it."""
    try:
        return shm.folder(home / _LINK, _KIND)
    except shm.NotOurs as error:
        raise MachineError(
            "is not a folder that only this user can access",
            where=str(error.filename),
            hint=f"remove {error.filename}",
        ) from error
    except OSError as error:
        raise MachineError(
            f"the folder for guests' RAM cannot be created: {error.strerror}",
            where=str(error.filename),
            hint="is a tmpfs mounted on /dev/shm?",
        ) from error


def drop(home: Path) -> None:
    """Remove the folder, unless a guest's RAM is in it. It has the same name when it is created again."""
    if (path := shm.named(home / _LINK, _KIND)) is not None:
        with suppress(OSError):
            path.rmdir()


def allocate(path: Path, size_bytes: int) -> None:
    """Allocate a guest's whole RAM file, all zeros, before the guest starts. If the file grew while the guest
    runs, even after a hand-over, a full file system would end QEMU by SIGBUS. Pages that were never written
    are not part of a digest. MachineError when there is not enough memory."""
    if _is_fresh(path, size_bytes):
        return
    path.unlink(missing_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, size_bytes)
        finally:
            os.close(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise _no_room(path.parent, _free(path.parent)[0], size_bytes) from error
        raise MachineError(f"a guest's RAM cannot be allocated: {error.strerror}", where=str(path)) from error


def _is_fresh(path: Path, size_bytes: int) -> bool:
    """Whether the whole file is allocated, and nothing of it was written."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            whole = facts.st_size == size_bytes <= facts.st_blocks * 512
            return (
                whole and _seeks(file.fileno()) and not any(True for _ in _extents(file.fileno(), size_bytes))
            )
    except OSError:
        return False


def huge_page_folder() -> Path:
    """The mount point of hugetlbfs (proc(5), mounts). MachineError when it is not mounted, or not
    writable."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _device, where, kind, *_ = line.split()
        if kind == "hugetlbfs" and os.access(where, os.W_OK):
            return Path(where)
    raise MachineError(
        "huge pages need a writable hugetlbfs, but none is mounted",
        hint="mount -t hugetlbfs none /dev/hugepages, and reserve pages: sysctl vm.nr_hugepages=N",
    )


def check_room(where: Path, needed_bytes: int) -> None:
    """MachineError when the file system of folder `where` has less than `needed_bytes` free beside its
    reserve (_SPARE)."""
    free, spare = _free(where)
    if needed_bytes + spare > free:
        raise _no_room(where, free, needed_bytes)


def _free(where: Path) -> tuple[int, int]:
    """The free bytes of a file system, and how many of them to leave free."""
    facts = os.statvfs(where)
    # hugetlbfs without a size option reports 0 for everything; its limit is the kernel's pool.
    pool = _POOLS / f"hugepages-{facts.f_bsize >> 10}kB" / "free_hugepages"
    if not facts.f_blocks and pool.exists():
        return int(pool.read_text()) * facts.f_bsize, 0
    return facts.f_bavail * facts.f_frsize, _SPARE


def _no_room(where: Path, free: int, needed_bytes: int) -> MachineError:
    return MachineError(
        f"the file system for RAM has {format_size(free >> 20 << 20)} free, but the "
        f"guests' RAM is {format_size(needed_bytes >> 20 << 20)}",
        where=str(where),
        hint="use fewer or smaller guests, or enlarge it: mount -o remount,size=…",
    )


class DigestCalledOff(Exception):
    """Taking a digest was stopped."""


@dataclass(frozen=True)
class Digest:
    """The content of a RAM file at one time. allocated: the indices of allocated pages, ascending, as ranges.
    sums: the pages' SHA-256 digests, concatenated. All other pages are zero."""

    pages: int
    allocated: tuple[range, ...]
    sums: bytes

    @property
    def count(self) -> int:
        return sum(map(len, self.allocated))

    def total(self) -> str:
        """The SHA-256 over all pages' digests in order, as hex; pages that are not allocated count as zero
        pages."""
        whole = hashlib.sha256()
        at = done = 0
        for run in self.allocated:
            whole.update(_ZERO * (run.start - done))
            whole.update(self.sums[at : at + len(run) * _DIGEST])
            at, done = at + len(run) * _DIGEST, run.stop
        whole.update(_ZERO * (self.pages - done))
        return whole.hexdigest()

    def each(self) -> Iterator[tuple[int, bytes]]:
        at = 0
        for run in self.allocated:
            for index in run:
                yield index, self.sums[at : at + _DIGEST]
                at += _DIGEST


_ZERO = hashlib.sha256(bytes(PAGE)).digest()


def take(path: Path, stop: Callable[[], bool] = lambda: False) -> Digest:
    """The digest of the RAM file of a frozen guest. DigestCalledOff when `stop` returns True; OSError when
    the file cannot be read."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        allocated = tuple(_extents(file.fileno(), size))
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            pieces = [
                range(start, min(run.stop, start + _PIECE // PAGE))
                for run in allocated
                for start in range(run.start, run.stop, _PIECE // PAGE)
            ]

            def digest(piece: range) -> bytes:
                if stop():
                    raise DigestCalledOff
                sha = hashlib.sha256
                with memoryview(memory) as whole:
                    return b"".join(sha(whole[index * PAGE : (index + 1) * PAGE]).digest() for index in piece)

            with ThreadPoolExecutor(_THREADS) as pool:
                sums = b"".join(pool.map(digest, pieces))
    return Digest(size // PAGE, allocated, sums)


def _extents(handle: int, size: int) -> Iterator[range]:
    """The allocated parts of the file (lseek(2), SEEK_DATA), or all of it where that is not supported."""
    at = 0
    try:
        while at < size:
            start = os.lseek(handle, at, os.SEEK_DATA)
            at = os.lseek(handle, start, os.SEEK_HOLE)
            yield range(start // PAGE, -(-at // PAGE))
    except OSError:
        # ENXIO: no data from here on. EINVAL: hugetlbfs does not support it.
        if at == 0 and not _seeks(handle):
            yield range(size // PAGE)


def _seeks(handle: int) -> bool:
    with suppress(OSError):
        os.lseek(handle, 0, os.SEEK_HOLE)
        return True
    return False


def compare(before: Digest, after: Digest, cost_ns: int) -> MemoryProof:
    """The memory proof from two digests of one guest's RAM. cost_ns: how much they lengthened its pause."""
    differing: list[int] = []
    if before != after:
        one, two = dict(before.each()), dict(after.each())
        differing = sorted(
            index for index in one.keys() | two.keys() if one.get(index, _ZERO) != two.get(index, _ZERO)
        )
    return MemoryProof(
        PAGE,
        before.pages,
        before.count,
        total := before.total(),
        after.total() if differing else total,
        len(differing),
        tuple(differing[:_FIRST]),
        cost_ns,
    )
