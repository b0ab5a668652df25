"""Brings a disk of the user's own into the image cache: a qcow2 or raw file, or a block device.

The file is only read. Its contents are copied, without its holes: what the user does with it later does not
change an image, or guests with overlays over it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import ImageError, MachineError, UsageError
from lab.image.build import check_space, disk_full
from lab.image.partitions import SECTOR
from lab.image.program import ProgramFailed, run
from lab.process import runner
from lab.process.runner import find

FORMATS = ("qcow2", "raw")
_TIMEOUT_S = 6 * 3600.0
_ASK_S = 60.0
_PIECE = 1 << 20
_LOCKED = 'Failed to get shared "write" lock'
"""What qemu-img says of a disk that a guest may write (QEMU, block/file-posix.c)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class DiskFile:
    """A disk that can be copied. size_bytes: as a guest sees it. written: differs when it was written
    since."""

    path: Path
    format: str
    size_bytes: int
    written: int


def examine(path: Path, *, device: bool) -> DiskFile:
    """The disk at `path`. UsageError when there is none. ImageError when it cannot be used: it is encrypted,
    needs other files, is cut off, or in use. device: a block device will do as well."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISBLK(mode) and not device:
            raise UsageError("it is a block device", where=str(path), hint="import it with --from-disk")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise UsageError("it is neither a file nor a block device", where=str(path))
        # A block device that is mounted, or belongs to another one, cannot be opened so (open(2), O_EXCL).
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_EXCL if stat.S_ISBLK(mode) else 0)))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _in_use(path) from error
        raise UsageError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    if stat.S_ISBLK(mode):
        return DiskFile(path, "raw", _size_of_device(path), _written(path))
    return _examined(path)


def _written(path: Path) -> int:
    """When a file was last written, in ns; or how many sectors have been written to a block device since the
    start of the machine (Linux, Documentation/block/stat.rst)."""
    facts = path.stat()
    if not stat.S_ISBLK(facts.st_mode):
        return facts.st_mtime_ns
    counts = Path(f"/sys/dev/block/{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}/stat")
    try:
        return int(counts.read_text(encoding="ascii").split()[6])
    except (OSError, ValueError, IndexError):
        return 0


def _in_use(path: Path) -> ImageError:
    hint = "unmount it, or shut its guest down; or import a snapshot of it"
    return ImageError("the disk is in use", where=str(path), hint=hint)


def _size_of_device(path: Path) -> int:
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def _examined(path: Path) -> DiskFile:
    known = _qemu_img("info", path)
    form, where = str(known["format"]), str(path)
    if form not in FORMATS:
        hint = f"qemu-img convert -O qcow2 {path} {path.with_suffix('.qcow2').name}"
        raise ImageError(f"it is {form}; qcow2 and raw are supported", where=where, hint=hint)
    if base := known.get("backing-filename"):
        hint = f"qemu-img convert -O qcow2 {path} whole.qcow2"
        raise ImageError(f"it is an overlay over {base}", where=where, hint=hint)
    details = known.get("format-specific", {}).get("data", {})
    if known.get("encrypted") or "encrypt" in details:
        hint = "qemu-img convert can decrypt it"
        raise ImageError("it is encrypted", where=where, hint=hint)
    if "data-file" in details:
        raise ImageError(f"its data is in another file, {details['data-file']}", where=where)
    size = int(known["virtual-size"])
    if form == "qcow2":
        # What is missing at the end of a file is read as zeros, without an error.
        checked = _qemu_img("check", path, "-f", form)
        if errors := int(checked.get("corruptions", 0)) + int(checked.get("check-errors", 0)):
            what = f"it is damaged or cut off: qemu-img check finds {errors} errors"
            raise ImageError(what, where=where, hint="download or copy it again")
    if size < SECTOR:
        raise ImageError("it is empty", where=where)
    return DiskFile(path, form, size, _written(path))


def _qemu_img(verb: str, path: Path, *options: str) -> dict[str, Any]:
    """What qemu-img tells of a file. ImageError with its own words when it cannot read it."""
    argv = [find("qemu-img"), verb, "--output=json", *options, str(path.absolute())]
    try:
        finished = runner.run(argv, _ASK_S, check=False, env=runner.environment(LC_ALL="C"))
        known = json.loads(finished.stdout)
    except ValueError as error:
        if _LOCKED in finished.stderr:
            raise _in_use(path) from error
        why = (finished.stderr.strip().splitlines() or [finished.why])[-1]
        why = why.removeprefix("qemu-img: ").replace(f"'{path.absolute()}'", "it")
        raise ImageError(f"qemu-img cannot read it: {why}", where=str(path)) from error
    if not isinstance(known, dict):
        raise MachineError("qemu-img gives no object", where=str(path))
    return known


def checked_sum(disk: DiskFile, wanted: str, progress: Callable[[float], None]) -> str:
    """SHA-256 of the file, in hexadecimal digits. UsageError unless it is `wanted`, or that is ""."""
    wanted = wanted.lower().removeprefix("sha256:")
    if wanted and not _SHA256.fullmatch(wanted):
        raise UsageError(f"not a SHA-256: {wanted!r}", hint="64 hexadecimal digits, as sha256sum prints them")
    digest, done = hashlib.sha256(), 0
    try:
        with disk.path.open("rb") as file:
            size = max(1, file.seek(0, os.SEEK_END))
            file.seek(0)
            while piece := file.read(_PIECE):
                digest.update(piece)
                done += len(piece)
                progress(done / size)
    except OSError as error:
        raise ImageError(f"it cannot be read: {error.strerror}", where=str(disk.path)) from error
    if wanted and digest.hexdigest() != wanted:
        raise ImageError(
            f"its SHA-256 is {digest.hexdigest()}, not {wanted}",
            where=str(disk.path),
            hint="it was not downloaded whole, or is another version",
        )
    return digest.hexdigest()


def copy(disk: DiskFile, target: Path, *, lock: int) -> None:
    """Copy a disk to the raw file `target`, without holes. ImageError when there is no room for it, or it was
    written since it was examined. lock: held open as long as the copying program works."""
    program = find("qemu-img")
    check_space(target.parent, _needed(disk))
    argv = [program, "convert", "-f", disk.format, "-O", "raw", str(disk.path.absolute()), str(target)]
    try:
        run(argv, timeout_s=_TIMEOUT_S, open_descriptors=(lock,))
    except ProgramFailed as failure:
        if failure.disk_full:
            raise disk_full(target.parent, _needed(disk)) from failure
        if any(_LOCKED in line for line in failure.lines):
            raise _in_use(disk.path) from failure
        raise
    if _written(disk.path) != disk.written:
        raise ImageError("it was written while it was read", where=str(disk.path), hint="import it again")


def _needed(disk: DiskFile) -> int:
    """About how many bytes the copy takes."""
    if disk.format == "raw":
        facts = disk.path.stat()
        return facts.st_blocks * 512 if stat.S_ISREG(facts.st_mode) else disk.size_bytes
    return int(_qemu_img("measure", disk.path, "-f", disk.format, "-O", "raw")["required"])
