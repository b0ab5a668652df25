"""Fetches a second QEMU from the distribution, unpacks and tests it in the cache, and removes it.

The distribution's packages are unpacked, never installed. A script starts QEMU with its own modules and
firmware, because Debian's QEMU has the system's paths compiled in, and crashes when it finds another build's
modules there. For that reason all of its module packages are fetched, though nothing here uses them: QEMU
skips a module of its own that it cannot load, but must not find the system's module of the same name.

The system's shared libraries are used where they fit. Where they do not (a newer release's QEMU), all
libraries including the C library are fetched, and the fetched dynamic loader starts QEMU.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from lab.errors import FreezelabError, MachineError, UsageError
from lab.host import emulators
from lab.host.emulators import MANIFEST, PROGRAM, Fetched, Package
from lab.host.emulators_apt import PrivateApt, Unreachable, unpack
from lab.host.emulators_sources import Archive, read_archive
from lab.process.runner import environment, run

Progress = Callable[[str], None]

_QEMU = "qemu-system-x86"
_PARTS = (_QEMU, "qemu-system-common", "qemu-system-data", "seabios")
"""The packages without which QEMU does not start. Boot ROMs of network cards (ipxe-qemu) come with the
dependencies, or are the system's. Both have the same size for QEMU, which rounds it up to a power of two."""

_LOADER = "qemu-loader"
"""The name of the fetched dynamic loader. /proc shows it as the program's name, so it contains "qemu"."""

_UNPACKED = 8
"""Bytes on disk for each downloaded byte, for the check of free space; measured for 10.0: 6.5 without
libraries, 4.5 with them."""

_LDD_S = 30

_STAGING = ".fetch-"

_START = """#!/bin/sh
# QEMU {version} from {suite}, with its own modules and firmware; made by `freezelab emulator fetch`.
self=$0
[ -L "$self" ] && self=$(readlink -f "$self")
root=${{self%/*}}/root
export QEMU_MODULE_DIR="$root/{modules}"
exec {program}{firmware} "$@"
"""


def fetch(name: str, cache: Path, progress: Progress, archive: Archive | None = None) -> Fetched:
    """The emulator of a suite ("backports": the running release's). It is fetched unless its newest version
    is already in the cache. An emulator that does not work is removed. progress: called with a line for each
    step.

    archive: by default read_archive(). UsageError when the name cannot be a suite's. MachineError when the
    system is not Debian, the archive does not answer, it has no such suite or the suite has no QEMU, the disk
    is full, or the fetched emulator does not work. When the archive does not answer, an earlier version is
    returned instead, and `progress` is called with a line about it.
    """
    archive = archive or read_archive()
    suite = archive.suite(name)
    folder = emulators.store(cache)
    with _workshop(folder, progress) as staging:
        try:
            return _fetch(name, suite, archive, folder, staging, progress)
        except Unreachable as failure:
            there = [one for one in emulators.listing(cache) if one.name == name]
            if not there:
                raise
            progress(f"{failure.what}: using the version fetched on {there[-1].fetched}")
            return there[-1]


def remove(text: str, cache: Path) -> list[Fetched]:
    """Remove the emulators with this name, suite or label. UsageError when there is none, MachineError when a
    process uses one."""
    chosen = [one for one in emulators.listing(cache) if one.is_called(text)]
    if not chosen:
        known = ", ".join(one.label for one in emulators.listing(cache))
        raise UsageError(f"no fetched emulator named {text!r}", hint=f"known: {known or 'none'}")
    with _workshop(emulators.store(cache), lambda _text: None) as staging:
        for one in chosen:
            if users := _processes(one.folder):
                raise MachineError(
                    f"is in use by process {', '.join(map(str, users))}",
                    where=str(one.folder),
                    hint="freezelab recover removes guests that a killed run has left",
                )
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                one.folder.rename(staging / one.label)
    return chosen


def _fetch(
    name: str, suite: str, archive: Archive, folder: Path, staging: Path, progress: Progress
) -> Fetched:
    progress(f"asking this machine's package archive for {suite}")
    apt = _apt(staging, archive, [suite])
    offer = apt.offer(_QEMU)
    if offer is None:
        raise MachineError(f"{suite} has no {_QEMU}", hint="use another suite, or a path in the playbook")
    base = archive.base(suite)
    if base != suite and any(apt.offer(part) is None for part in _PARTS):
        apt = _apt(staging, archive, [base, suite])
    final = (
        folder / f"{name}-{re.sub(r'[^A-Za-z0-9.+-]', '-', offer.version.partition(':')[2] or offer.version)}"
    )
    if (final / MANIFEST).is_file():
        there = emulators.load(final)
        progress(f"{there.label} is the newest, and here already")
        return there
    kit, root = staging / "kit", staging / "kit" / "root"
    root.mkdir(parents=True)
    modules = [each for each in offer.recommends_build if not each.endswith("-utils")]
    packages = apt.packages([*_PARTS, *modules])
    _take(apt, packages, root, progress)
    if lacking := _lacking(root):
        progress(f"this system lacks {_few(lacking)} for it: it gets libraries of its own")
        if base != suite:
            apt = _apt(staging, archive, [base, suite])
        had = {one.name for one in packages}
        more = [one for one in apt.closure([_QEMU]) if one.name not in had]
        _take(apt, more, root, progress)
        packages += more
    made = Fetched(
        folder=kit,
        name=name,
        suite=suite,
        version="",
        build=offer.version,
        size_bytes=_size(root),
        fetched=datetime.now(UTC).isoformat(timespec="seconds"),
        own_libraries=bool(lacking),
        packages=tuple(sorted(packages, key=lambda one: one.name)),
    )
    made = replace(made, version=_prove(made))
    (kit / MANIFEST).write_text(made.to_json(), encoding="utf-8")
    _sync(kit)
    if final.exists():  # it has no manifest, so it is not a working emulator
        final.rename(staging / "retired")
    kit.chmod(0o755)
    kit.rename(final)
    return replace(made, folder=final)


def _apt(staging: Path, archive: Archive, suites: Sequence[str]) -> PrivateApt:
    folder = staging / f"apt-{len(suites)}"
    folder.mkdir(exist_ok=True)
    apt = PrivateApt(folder, archive, suites)
    apt.update()
    return apt


def _take(apt: PrivateApt, packages: Sequence[Package], root: Path, progress: Progress) -> None:
    size = sum(one.size_bytes for one in packages)
    free = shutil.disk_usage(root).free
    if free < size * _UNPACKED:
        raise MachineError(
            f"{_megabytes(size * _UNPACKED)} are needed to unpack it, {_megabytes(free)} are free",
            where=str(root.parents[2]),
            hint="set FREEZELAB_CACHE to another folder",
        )
    progress(f"downloading {len(packages)} packages, {_megabytes(size)}")
    archives = apt.download(packages)
    unpack(archives, root)
    for archive in archives:
        archive.unlink()


def _prove(made: Fetched) -> str:
    """Write the start script and test the emulator. Returns QEMU's version. MachineError when it does not
    work."""
    root = made.folder / "root"
    modules = _only(root, "usr/lib/*-linux-gnu*/qemu")
    firmware = [
        path
        for path in ("usr/share/seabios", "usr/share/qemu", "usr/lib/ipxe/qemu")
        if (root / path).is_dir()
    ]
    program = f'"$root/usr/bin/{PROGRAM}"'
    if made.own_libraries:
        triplet = Path(modules).parent.name
        loader = _only(root, f"usr/lib/{triplet}/ld-linux*.so.*", f"lib/{triplet}/ld-linux*.so.*")
        shown = root / "usr" / "bin" / _LOADER
        shown.symlink_to(os.path.relpath(root / loader, shown.parent))
        libraries = ":".join(f"$root/{path}" for path in (f"usr/lib/{triplet}", f"lib/{triplet}"))
        program = f'"$root/usr/bin/{_LOADER}" --library-path "{libraries}" {program}'
    text = _START.format(
        version=made.build,
        suite=made.suite,
        modules=modules,
        program=program,
        firmware="".join(f' -L "$root/{path}"' for path in firmware),
    )
    made.path.write_text(text, encoding="utf-8")
    made.path.chmod(0o755)
    version = emulators.version(made.path)
    if not emulators.machines(made.path):
        raise MachineError(f"QEMU {version} from {made.suite} has no machine type: not saved")
    return version.partition(" ")[0]


def _lacking(root: Path) -> list[str]:
    """The shared libraries and symbol versions that QEMU needs and this system lacks."""
    program = str(root / "usr" / "bin" / PROGRAM)
    finished = run(["ldd", program], _LDD_S, check=False, env=environment(LC_ALL="C"))
    text = finished.stdout + finished.stderr
    libraries = re.findall(r"^\s*(\S+) => not found", text, re.MULTILINE)
    symbols = re.findall(r"version `([^']+)' not found", text)
    if not finished.ok and not libraries and not symbols:
        raise MachineError(f"ldd: {finished.why}: {finished.last_line}", where=program)
    return sorted({*libraries, *symbols})


def _only(root: Path, *patterns: str) -> str:
    """The first match of the patterns, relative to `root`. MachineError when there is none."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            return str(path.relative_to(root))
    raise MachineError(f"the packages have no {patterns[0]}: not saved")


def _processes(folder: Path) -> list[int]:
    users = []
    for process in psutil.process_iter(["exe"]):
        program = process.info["exe"]
        if program and Path(program).is_relative_to(folder.resolve()):
            users.append(process.pid)
    return users


@contextlib.contextmanager
def _workshop(folder: Path, progress: Progress) -> Iterator[Path]:
    """A context with a temporary folder, for one process at a time. At the end it is removed, together with
    those that killed processes left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another fetch or removal")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sweep(folder)
        try:
            yield Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
        except OSError as error:
            raise _unwritable(folder, error) from error
        finally:
            _sweep(folder)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{_STAGING}*"):
        try:
            shutil.rmtree(left)
        except OSError as error:
            raise MachineError(
                f"cannot be removed: {error.strerror}",
                where=str(left),
                hint=f"rm -r {shlex.quote(str(left))}",
            ) from error


def _unwritable(folder: Path, error: OSError) -> FreezelabError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MachineError(
        "the disk is full" if full else f"the cache cannot be written: {error.strerror}",
        where=str(folder),
        hint="set FREEZELAB_CACHE to another folder",
    )


def _sync(folder: Path) -> None:
    """Flush a folder's files to the disk, so that no manifest survives a crash without its emulator."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
