"""Golden states in the cache: what a guest was when it had just booted, for others to begin with.

    <cache>/golden/<image>-<key12>/   ram (sparse), state, disk.qcow2 (over the image), overlay.qcow2 (empty,
                                      over disk.qcow2), golden.json
    <cache>/golden/.make-*/           one that is being made, or what is left of a killed maker
    <cache>/golden/.lock-<key12>      held while it is made

The key is a digest of all that decides whether a guest may begin with it. A folder is complete, for it gets
its name last. It holds a guest's memory, so it is ours alone. None is ever changed: guests that run from one
have its disk below theirs, and another QEMU process may have to open it by its name. So one that is in use,
by whatever process (a shared lock of its manifest), is not removed.

One start that fails says little of the state: the host may be busy, or full. Only what QEMU itself refuses,
and what failed STRIKES times in a row, is no good for anybody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import ImageError
from lab.image.build import disk_full, sync, sync_tree
from lab.image.program import run
from lab.image.store import Image
from lab.process.runner import find

SCHEMA = "freezelab.golden/1"
MANIFEST = "golden.json"
_PAGE = 4096
_PIECE = 1 << 20
_ZERO = bytes(_PAGE)
_LOCK_S = 0.1
_FAILED = "failed"
STRIKES = 3
"""Starts in a row that have to fail before a state is removed for all."""


@dataclass(frozen=True)
class Golden:
    """One that is complete.

    image: its name. ram_bytes: as the guest sees it. allocated_bytes: what is not zero of it. report: what
    the maker wants to find again. facts: what the key was made of.
    """

    folder: Path
    image: str
    ram_bytes: int
    allocated_bytes: int
    state_sha256: str
    report: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def ram(self) -> Path:
        return self.folder / "ram"

    @property
    def label(self) -> str:
        """The name of its folder: debian-0123456789ab."""
        return self.folder.name

    def state(self) -> bytes:
        """The device state. ImageError when it is not what was kept."""
        try:
            data = (self.folder / "state").read_bytes()
        except OSError as error:
            raise ImageError(f"its state cannot be read: {error.strerror}", where=str(self.folder)) from error
        if hashlib.sha256(data).hexdigest() != self.state_sha256:
            raise ImageError("its state is damaged", where=str(self.folder))
        return data

    def overlay(self, path: Path) -> Path:
        """A new disk at `path` over the golden one. ImageError when it cannot be made."""
        try:
            shutil.copyfile(self.folder / "overlay.qcow2", path)
        except OSError as error:
            raise ImageError(f"no overlay of the golden disk: {error.strerror}", where=str(path)) from error
        return path

    def copy_ram(self, path: Path) -> Path:
        """RAM of a guest's own at `path`, which another QEMU can map as well; as sparse as here, unless it is
        allocated already: then what this does not write has to be zero there. ImageError when it cannot be
        made."""
        try:
            with self.ram.open("rb") as source, open(path, "wb", opener=_without_truncation) as target:
                os.ftruncate(target.fileno(), self.ram_bytes)
                for start, end in _extents(source.fileno(), self.ram_bytes):
                    os.lseek(target.fileno(), start, os.SEEK_SET)
                    while start < end:
                        start += os.sendfile(target.fileno(), source.fileno(), start, end - start)
        except OSError as error:
            raise ImageError(f"the golden RAM cannot be copied: {error.strerror}", where=str(path)) from error
        return path


def _without_truncation(path: str, _flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


class GoldenStore:
    """cache: as of the ImageStore."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "golden"

    def find(self, image: Image, facts: Mapping[str, Any]) -> Golden | None:
        """The one for these facts. None when there is none; what is damaged at first sight is removed."""
        folder = self._folder_of(image, facts)
        if not folder.exists():
            return None
        try:
            return _load(folder)
        except ImageError:
            self.remove(folder)
            return None

    def make(
        self,
        image: Image,
        facts: Mapping[str, Any],
        fill: Callable[[Path], tuple[bytes, Mapping[str, Any]]],
        waiting: Callable[[], None] = lambda: None,
    ) -> Golden:
        """The one for these facts, made by `fill` unless somebody else just did: it is given a folder, puts
        `ram` and `disk.qcow2` there, and returns the device state and what it wants to be told again.

        Nothing is left when it fails. waiting: called once while another process makes it. ImageError when
        the cache cannot be written.
        """
        final = self._folder_of(image, facts)
        with self._lock(final.name, waiting):
            if (found := self.find(image, facts)) is not None:
                return found
            staging = Path(tempfile.mkdtemp(prefix=f".make-{final.name}+", dir=self.folder))
            try:
                state, report = fill(staging)
                self._complete(staging, final, image, facts, state, report)
                staging.rename(final)
                sync(self.folder)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise disk_full(self.folder, 1 << 28) from error
                raise ImageError(f"cannot be saved: {error.strerror}", where=str(self.folder)) from error
            finally:
                self._sweep(final.name)
            self._retire(image, final, facts)
        return _load(final)

    @contextlib.contextmanager
    def in_use(self, golden: Golden) -> Iterator[None]:
        """Nobody removes it meanwhile."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                handle = os.open(golden.folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield

    def served(self, golden: Golden) -> None:
        """A guest has begun with it: what failed before was not its fault."""
        (golden.folder / _FAILED).unlink(missing_ok=True)

    def failed(self, golden: Golden, *, refused: bool) -> bool:
        """A guest could not begin with it, and then booted well; whether it was removed for that. refused: by
        QEMU, or damaged."""
        count = golden.folder / _FAILED
        try:
            times = 1 + (int(count.read_text(encoding="ascii")) if count.exists() else 0)
            count.write_text(str(times), encoding="ascii")
        except (OSError, ValueError):
            times = 1
        return (refused or times >= STRIKES) and self.remove(golden.folder)

    def listing(self) -> list[Golden]:
        """All that are complete, by name."""
        found = []
        for manifest in sorted(self.folder.glob(f"[!.]*/{MANIFEST}")):
            with contextlib.suppress(ImageError):
                found.append(_load(manifest.parent))
        return found

    def remove(self, folder: Path) -> bool:
        """One of them, unless it is in use; whether it is gone."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, handle)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            with contextlib.suppress(OSError):
                away = Path(tempfile.mkdtemp(prefix=f".make-{folder.name}+", dir=self.folder))
                folder.rename(away / "retired")
                shutil.rmtree(away, ignore_errors=True)
        return not folder.exists()

    def remove_of(self, digest: str) -> list[str]:
        """Those of the image with this digest, as it is removed; their names. What is in use stays."""
        of_it = [golden for golden in self.listing() if golden.facts.get("image") == digest]
        return [golden.label for golden in of_it if self.remove(golden.folder)]

    def _folder_of(self, image: Image, facts: Mapping[str, Any]) -> Path:
        return self.folder / f"{image.name}-{key(facts)[:12]}"

    def _complete(
        self,
        staging: Path,
        final: Path,
        image: Image,
        facts: Mapping[str, Any],
        state: bytes,
        report: Mapping[str, Any],
    ) -> None:
        (staging / "state").write_bytes(state)
        ram, disk = staging / "ram", staging / "disk.qcow2"
        # -u: where it will be, not where it is.
        base = ["-u", "-b", str(final / "disk.qcow2"), "-F", "qcow2"]
        overlay = [*base, str(staging / "overlay.qcow2"), str(image.disk.stat().st_size)]
        run([find("qemu-img"), "create", "-q", "-f", "qcow2", *overlay], timeout_s=60)
        manifest = {
            "schema": SCHEMA,
            "image": image.name,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "ram_bytes": ram.stat().st_size,
            "held_bytes": ram.stat().st_blocks * 512,
            "disk_bytes": disk.stat().st_size,
            "state_sha256": hashlib.sha256(state).hexdigest(),
            "told": dict(report),
            "facts": dict(facts),
        }
        text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
        (staging / MANIFEST).write_text(text, encoding="utf-8")
        for path in staging.iterdir():
            path.chmod(0o600)
        sync_tree(staging)

    def _retire(self, image: Image, final: Path, facts: Mapping[str, Any]) -> None:
        """Remove those of this image's name that nobody can begin with any more: of another digest, or of the
        same shape with other contents."""
        for golden in self.listing():
            if golden.folder == final or golden.image != image.name:
                continue
            same = all(golden.facts.get(name) == facts.get(name) for name in ("image", "emulator", "shape"))
            if golden.facts.get("image") != facts.get("image") or same:
                self.remove(golden.folder)

    def _sweep(self, name: str) -> None:
        """What this maker, or a killed one, has left. Only under the lock."""
        for path in self.folder.glob(f".make-{name}+*"):
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            handle = os.open(self.folder / f".lock-{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ImageError(
                f"the cache cannot be written: {error.strerror}",
                where=str(self.folder),
                hint="set FREEZELAB_CACHE to another folder",
            ) from error
        try:
            reported = False
            while True:  # not a blocking flock: an interrupt has to end the wait
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not reported:
                        reported = True
                        waiting()
                    time.sleep(_LOCK_S)
            yield
        finally:
            os.close(handle)


def key(facts: Mapping[str, Any]) -> str:
    """SHA-256 over the facts, in hexadecimal digits."""
    text = json.dumps({"schema": SCHEMA, **facts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def compact_ram(source: Path, target: Path) -> None:
    """Copy a RAM file without its pages of zeros, wherever they are."""
    size = source.stat().st_size
    with source.open("rb") as reading, target.open("wb") as writing:
        os.ftruncate(writing.fileno(), size)
        for start, end in _extents(reading.fileno(), size):
            for at in range(start, end, _PIECE):
                piece = os.pread(reading.fileno(), min(_PIECE, end - at), at)
                for offset, run_of in _runs(piece):
                    os.pwrite(writing.fileno(), run_of, at + offset)


def _runs(piece: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a piece that are not zero, in whole pages."""
    if not piece.strip(b"\0"):
        return
    begin = -1
    for offset in range(0, len(piece), _PAGE):
        zero = piece[offset : offset + _PAGE] == _ZERO
        if zero and begin >= 0:
            yield begin, piece[begin:offset]
            begin = -1
        elif not zero and begin < 0:
            begin = offset
    if begin >= 0:
        yield begin, piece[begin:]


def _extents(handle: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are there (lseek(2), SEEK_DATA)."""
    at = 0
    with contextlib.suppress(OSError):  # ENXIO: no data from here on
        while at < size:
            start = os.lseek(handle, at, os.SEEK_DATA)
            at = os.lseek(handle, start, os.SEEK_HOLE)
            yield start, at


def _load(folder: Path) -> Golden:
    """ImageError when something of it is missing or of another size."""
    try:
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if known["schema"] != SCHEMA:
            raise ValueError("its schema is unknown")
        golden = Golden(
            folder,
            str(known["image"]),
            int(known["ram_bytes"]),
            int(known["held_bytes"]),
            str(known["state_sha256"]),
            dict(known["told"]),
            dict(known["facts"]),
        )
        sizes = {"ram": golden.ram_bytes, "disk.qcow2": int(known["disk_bytes"])}
        for name, size in sizes.items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{name} was cut off")
        golden.state()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"not a golden state: {error}", where=str(folder)) from error
    return golden
