"""A lab's lease of a domain of the user's own: a lock against other labs, and a record for `recover`.

The lock is a file named for the domain's uuid in a folder that all users of this host share. It excludes
other labs of this host that see the same folder. It does not exclude labs in a container with a /run of its
own or on another host, and no other programs such as virsh. The domain's metadata in libvirt stays as it is.

The record, in the state folder, says that the lab is about to stop the domain, before it does. So a lab that
was killed knows later which domains it has stopped itself, and leaves alone those that somebody else has.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lab.errors import HypervisorError, MachineError

SHARED = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - opened without following links
"""Where the locks are: the first of these that is a folder every user may write to."""

SCHEMA = "freezelab.own/1"


@dataclass(frozen=True)
class OwnRecord:
    """What is known of a domain that a run uses. history: the run's events.jsonl. to, unsafe: see
    MigrationTarget; "": it is not migrated. frozen: the method by which it is being frozen, or was, while it
    is not back; "": none. pid: of its QEMU process then. save_to: the folder for the files of that method, if
    the playbook has one."""

    uri: str
    uuid: str
    name: str
    guest: str
    run: str
    history: str = ""
    to: str = ""
    unsafe: bool = False
    frozen: str = ""
    pid: int = 0
    save_to: str = ""

    @property
    def where(self) -> str:
        return f"domain {self.name}"

    @property
    def resumed_by_dead_man(self) -> bool:
        """Whether the run's dead-man has resumed it, as the last lines of the history say."""
        try:
            with Path(self.history).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 16)))
                lines = file.read().splitlines()
        except OSError:
            return False
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("kind") == "freeze" and self.guest in event.get("guests", ()):
                    return False
                if event.get("kind") == "deadman" and event.get("guest") == self.guest:
                    return event.get("act") in ("resumed", "running")
        return False


class OwnLease:
    """The lock and the record of one domain, until close(). HypervisorError when another lab has the lock."""

    def __init__(self, record: OwnRecord, home: Path) -> None:
        self._record = record
        self._file = -1
        self._path = _path(home, record.uuid)
        self._file = _locked(record.uuid, record.where)
        who = f"pid {os.getpid()} of {_user()}, run {record.run}\n"
        try:
            with contextlib.suppress(OSError):  # the file of another user can only be locked
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, who.encode(), 0)
            self._write(record)
        except BaseException:
            self.close()
            raise

    def freezes(self, method: str, pid: int, save_to: str = "") -> None:
        """Record that it is about to be frozen. pid, save_to: see OwnRecord. MachineError when that cannot be
        written."""
        self._write(replace(self._record, frozen=method, pid=pid, save_to=save_to))

    def runs(self) -> None:
        """Record that it runs."""
        self._write(self._record)

    def close(self, *, keep_record: bool = False) -> None:
        """Give the lock up, and remove the record. Safe to call at any time."""
        if not keep_record:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
                self._path.parent.rmdir()
        if self._file >= 0:
            os.close(self._file)  # the file stays: to remove it would let two labs lock two files
            self._file = -1

    def _write(self, record: OwnRecord) -> None:
        draft = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(json.dumps({"schema": SCHEMA, **asdict(record)}), encoding="utf-8")
            draft.replace(self._path)
        except OSError as error:
            raise MachineError(f"cannot be written: {error.strerror}", where=str(self._path)) from error


def records(home: Path) -> Iterator[OwnRecord]:
    """The records of all runs, also of killed ones. What is no record is left out."""
    for path in sorted((home / "own").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.pop("schema", "") == SCHEMA:
                yield OwnRecord(**data)


def forget(home: Path, record: OwnRecord) -> None:
    """Remove a record."""
    with contextlib.suppress(OSError):
        _path(home, record.uuid).unlink(missing_ok=True)
        (home / "own").rmdir()


def _path(home: Path, uuid: str) -> Path:
    return home / "own" / f"{uuid}.json"


def check_free(uuid: str, where: str) -> None:
    """HypervisorError when another lab has the lock of this domain. where: the domain."""
    os.close(_locked(uuid, where))


def used_by(uuid: str, where: str) -> str:
    """Which lab has the lock of this domain, in words; "" when none has."""
    try:
        check_free(uuid, where)
    except MachineError:
        return ""
    except HypervisorError as error:
        return error.what
    return ""


def _locked(uuid: str, where: str) -> int:
    """The open lock file. The kernel unlocks it when this process ends, however it ends."""
    folder = next((each for each in SHARED if each.is_dir() and os.access(each, os.W_OK)), None)
    if folder is None:
        raise MachineError(
            "no folder for the lock of a domain",
            where=" ".join(map(str, SHARED)),
            hint="mkdir -m 1777 /run/lock",
        )
    path = folder / f"freezelab-{uuid}.lock"
    try:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.pread(file, 200, 0).decode(errors="replace").strip()
            os.close(file)
            raise HypervisorError(
                f"another lab uses it{f': {who}' if who else ''}",
                where=where,
                hint="wait until it has ended; one domain is frozen by one lab at a time",
            ) from error
        return file
    except OSError as error:
        raise MachineError(f"it cannot be locked: {error.strerror}", where=str(path)) from error


def _opened(path: Path) -> int:
    """The file, which may be another user's. It is not created where it exists: a sticky folder forbids that
    (proc_sys_fs(5), protected_regular)."""
    more = os.O_CLOEXEC | os.O_NOFOLLOW
    for _ in range(3):
        for flags in (os.O_RDWR, os.O_RDONLY):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                return os.open(path, flags | more)
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | more, 0o644)
    return os.open(path, os.O_RDONLY | more)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
