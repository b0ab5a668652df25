"""A state folder's own folders in memory, on /dev/shm (shm_overview(7)), each named by a link in it.

/dev/shm may be shared by containers whose state folders have the same path and user. So a folder's name has
a part by chance, which the link keeps, beside one for the state folder: its path, and the file system that
it is on (st_dev). A link that came with a copy of a state folder names a folder of another path, or, when
the copy is a container's whose image has a state folder that was used, of another file system, as each
container's root is one (an overlay's st_dev is its own). Such a link is not followed. The number of a file
system may change when it is mounted anew; but under the guests of a state folder it stays mounted.
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
"""libvirt writes a pid file, and 20-40 KB of status twice over, for each process that it starts."""


class NotOurs(OSError):
    """What lies there may be read or changed by others."""


def folder(link: Path, kind: str = "") -> Path:
    """The folder that `link` names, both made where they are not there. kind: the end of its name.
    OSError when it cannot be made; NotOurs when it is not a folder of ours alone."""
    path = named(link, kind)
    if path is None:
        with suppress(FileNotFoundError):
            link.unlink()
        link.parent.mkdir(parents=True, exist_ok=True)
        path = SHM / f"{_begin(link)}{secrets.token_hex(4)}{kind}"
        try:
            link.symlink_to(path)
        except FileExistsError:  # another process of ours was first
            path = named(link, kind) or path
    path.mkdir(mode=0o700, exist_ok=True)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise NotOurs(0, "is not a folder that only this user can access", str(path))
    return path


def named(link: Path, kind: str = "") -> Path | None:
    """The folder that `link` names; None when it names none for this path and file system."""
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
    """Keep some room in a folder, for what has to be written there when /dev/shm is full."""
    with suppress(OSError):
        handle = os.open(place / _RESERVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, _RESERVE_BYTES)
        finally:
            os.close(handle)


@contextmanager
def released(place: Path) -> Iterator[None]:
    """Have that room free. It is kept again afterwards, as far as it can be."""
    with suppress(OSError):
        (place / _RESERVE).unlink()
    try:
        yield
    finally:
        reserve(place)
