"""A state folder's own folders in memory, on /dev/shm (shm_overview(7)), each named by a link in it.

/dev/shm may be shared by containers whose state folders have the same path and user. So a folder's name has a
part by chance beside that of the path, and the link keeps it; a link that came with a copy of another state
folder has another path's name and is not followed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

SHM = Path("/dev/shm")  # noqa: S108 - what is made there is checked to be ours


class NotOurs(OSError):
    """What lies there may be read or changed by others."""


def folder(link: Path, kind: str = "") -> Path:
    """The folder that `link` names, both made where they are not there. kind: the end of its name.
    OSError when it cannot be made; NotOurs when it is not a folder of ours alone."""
    path = named(link, kind)
    if path is None:
        with suppress(FileNotFoundError):
            link.unlink()
        path = SHM / f"{_begin(link)}{secrets.token_hex(4)}{kind}"
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(path)
        except FileExistsError:  # another process of ours was first
            path = named(link, kind) or path
    path.mkdir(mode=0o700, exist_ok=True)
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise NotOurs(0, "is not a folder of ours alone", str(path))
    return path


def named(link: Path, kind: str = "") -> Path | None:
    """The folder that `link` names; None when it names none for this path."""
    try:
        path = link.readlink()
    except OSError:
        return None
    begin = _begin(link)
    fits = path.parent == SHM and path.name.startswith(begin) and path.name.endswith(kind)
    return path if fits and len(path.name) == len(begin) + 8 + len(kind) else None


def _begin(link: Path) -> str:
    place = hashlib.sha256(os.fsencode(link.absolute())).hexdigest()[:8]
    return f"freezelab-{os.geteuid()}-{place}"
