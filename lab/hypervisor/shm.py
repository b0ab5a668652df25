"""A state folder's private folders on /dev/shm (shm_overview(7)). A link in the state folder points to each.

Containers whose state folders have the same path and user may share /dev/shm. So a folder's name has a random
part, which the link keeps, and a part that depends on the state folder's path and file system (st_dev). A
link in a copy of a state folder names a folder for another path. In a container whose image contains a used
state folder, it names a folder for another file system, because each container's root (an overlay) has its
own st_dev. Such links are not followed. A file system's st_dev may change when it is mounted again, but it
stays mounted while guests of the state folder run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 - what is made there is checked to be ours


_RESERVE, _RESERVE_BYTES = "reserve", 1 << 20
"""The reserve file's name and size. libvirt writes a pid file, and a status of 20-40 KB twice, for each
process that it starts."""


class NotOurs(OSError):
    """Others may read or change the folder."""


def folder(link: Path, kind: str = "") -> Path:
    """The folder to which `link` points. Both are created if needed. kind: the end of the folder's name.
    OSError when it cannot be created; NotOurs when others can access it."""
    path = named(link, kind)
    if path is None:
        with suppress(FileNotFoundError):
            link.unlink()
        link.parent.mkdir(parents=True, exist_ok=True)
        path = SHM / f"{_begin(link)}{secrets.token_hex(4)}{kind}"
        try:
            link.symlink_to(path)
        except FileExistsError:  # another process of this user was faster
            path = named(link, kind) or path
    path.mkdir(mode=0o700, exist_ok=True)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise NotOurs(0, "is not a folder that only this user can access", str(path))
    return path


def named(link: Path, kind: str = "") -> Path | None:
    """The folder to which `link` points; None when it is not for this path and file system."""
    try:
        path, begin = link.readlink(), _begin(link)
    except OSError:
        return None
    fits = path.parent == SHM and path.name.startswith(begin) and path.name.endswith(kind)
    return path if fits and len(path.name) == len(begin) + 8 + len(kind) else None


def _begin(link: Path) -> str:
    where = b"%d %b" % (link.parent.stat().st_dev, os.fsencode(link.absolute()))
    place = hashlib.sha256(where).hexdigest()[:8]
    return f"freezelab-{os.geteuid()}-{place}"


def reserve(place: Path) -> None:
    """Reserve space in a folder by a file, for what must be written there even when /dev/shm is full."""
    with suppress(OSError):
        handle = os.open(place / _RESERVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, _RESERVE_BYTES)
        finally:
            os.close(handle)


@contextmanager
def released(place: Path) -> Iterator[None]:
    """A context in which the reserved space is free. It is reserved again afterwards, if possible."""
    with suppress(OSError):
        (place / _RESERVE).unlink()
    try:
        yield
    finally:
        reserve(place)
