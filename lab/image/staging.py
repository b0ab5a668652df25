"""The folders in which images are built and imported, and the locks of their names.

<cache>/images/.build-<name>+*/     at work, or what is left of a killed one
<cache>/images/.lock-<name>         held while <name> is built, imported or removed, and by its programs
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lab.errors import ImageError
from lab.image.build import Progress, disk_full, remove_tree

_PREFIX = ".build-"


def prefix(name: str) -> str:
    """How the names of an image's folders begin; no other name's do: "debian" is not "debian-13"."""
    return f"{_PREFIX}{name}+"


def left(images: Path) -> list[Path]:
    """The folders that nobody works at any more: those of killed builds and imports."""
    there = sorted(images.glob(f"{_PREFIX}*+*")) if images.is_dir() else []
    return [folder for folder in there if _is_free(images, folder)]


def remove_left(images: Path) -> Iterator[Path]:
    """Remove what left() finds, and yield each."""
    for folder in left(images):
        try:
            with lock(images, _name(folder)):
                remove_tree(folder)
        except BlockingIOError:  # somebody has just begun
            continue
        yield folder


def _name(folder: Path) -> str:
    return folder.name.removeprefix(_PREFIX).partition("+")[0]


def _is_free(images: Path, folder: Path) -> bool:
    try:
        with lock(images, _name(folder)):
            return True
    except (BlockingIOError, ImageError):  # or it is not this user's
        return False


@contextlib.contextmanager
def lock(images: Path, name: str, progress: Progress | None = None) -> Iterator[int]:
    """Hold the lock of a name; yields its descriptor. progress: told of waiting for who has it; None:
    BlockingIOError instead of waiting. ImageError when the cache cannot be written."""
    try:
        images.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(images / f".lock-{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(_existing(images), 0) from error
        raise ImageError(
            f"the image cache cannot be written: {error.strerror}",
            where=str(images),
            hint="set FREEZELAB_CACHE to another folder",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress is None:
                raise
            progress(f"waiting for another build of {name}", None)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
