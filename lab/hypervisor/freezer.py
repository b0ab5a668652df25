"""The kernel's freezer on one process: cgroup.freeze of cgroups' version 2, or freezer.state of version 1.

The process is moved into a cgroup of its own below the one that it is in, so that no other process is ever
frozen. The cgroup has a name of the lab's: whoever finds a process in one knows that a lab has put it there,
and may thaw it.

A frozen process differs from one that SIGSTOP has stopped: SIGCONT does not continue it, its parent does not
hear of it, and its threads are in state S (version 2, Linux, kernel/cgroup/freezer.c) or D (version 1, the
refrigerator that a host's suspend uses as well, kernel/freezer.c) instead of T. Version 1 keeps even SIGKILL
until it is thawed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.core.units import NS_PER_S
from lab.errors import HypervisorError, Refused
from lab.ports import Clock

_NAME = re.compile(r"/freezelab-\d+-frozen-\d+$")
_POLL_NS = 200_000
_EMPTY_S = 0.5
"""How long a process that has ended may still count as one of its cgroup's."""

HINT = (
    "run it as root, or in a cgroup of its own: systemd-run --user --scope -p Delegate=yes freezelab …; "
    "or use method sigstop"
)


@dataclass(frozen=True)
class Freezer:
    """A cgroup with one process in it. version: of cgroups."""

    folder: Path
    version: int

    @property
    def label(self) -> str:
        return f"cgroup v{self.version}"

    @classmethod
    def around(cls, pid: int, where: str, versions: Collection[int] = (1, 2)) -> Freezer:
        """Create a cgroup and move the process into it. Refused when this host or user cannot. versions:
        those that may be used."""
        reasons = []
        for parent in (each for each in _places(pid) if each.version in versions):
            made = cls(parent.folder / f"freezelab-{os.getpid()}-frozen-{pid}", parent.version)
            try:
                made._create()
                (made.folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
            except OSError as error:
                with contextlib.suppress(OSError):
                    made.folder.rmdir()
                reasons.append(f"{parent.label}: {error.strerror}: {parent.folder}")
            else:
                return made
        raise Refused(_why(reasons), where=where, hint=HINT)

    @classmethod
    def of(cls, pid: int) -> Freezer | None:
        """The lab's cgroup that a process is in; None: in none."""
        found = (place for place in _places(pid) if _NAME.search(str(place.folder)))
        return next(found, None)

    def _create(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for name in ("cgroup.procs", self._switch):
            if not os.access(self.folder / name, os.W_OK):
                raise PermissionError(None, "not delegated")
        if not os.access(self.folder.parent / "cgroup.procs", os.W_OK):
            raise PermissionError(None, "not delegated")
        if self.version == 2 and self._read("cgroup.type").strip() != "domain":
            raise PermissionError(None, "a cgroup of threads, which a move would lose")

    @property
    def _switch(self) -> str:
        return "cgroup.freeze" if self.version == 2 else "freezer.state"

    def _read(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / name).read_text(encoding="ascii")
        return ""

    def freeze(self) -> None:
        """Order the freeze, which takes thread by thread; see wait_frozen. OSError when it is refused."""
        (self.folder / self._switch).write_text("1" if self.version == 2 else "FROZEN", encoding="ascii")

    def thaw(self) -> None:
        """Let the process run. Does nothing when the cgroup is gone."""
        with contextlib.suppress(OSError):
            (self.folder / self._switch).write_text("0" if self.version == 2 else "THAWED", encoding="ascii")

    @property
    def is_ordered(self) -> bool:
        """Whether the process is frozen, or is about to be."""
        if self.version == 2:
            return self._read("cgroup.freeze").strip() == "1"
        return self._read("freezer.state").strip() in ("FREEZING", "FROZEN")

    @property
    def is_frozen(self) -> bool:
        """Whether every thread of the process is frozen."""
        if self.version == 2:
            return "frozen 1" in self._read("cgroup.events")
        return self._read("freezer.state").strip() == "FROZEN"

    def wait_frozen(self, clock: Clock, deadline_raw_ns: int) -> bool:
        """Wait until it is frozen, at most until CLOCK_MONOTONIC_RAW `deadline_raw_ns`. Returns whether it
        is."""
        while not self.is_frozen:
            now = clock.now().raw_ns
            if now >= deadline_raw_ns or not self.folder.exists():
                return self.is_frozen
            clock.sleep_until(now + _POLL_NS)
        return True

    def leave(self) -> None:
        """Put the process back where it was, running, and remove the cgroup. Safe to repeat."""
        self.thaw()
        for pid in self._read("cgroup.procs").split():
            with contextlib.suppress(OSError):
                (self.folder.parent / "cgroup.procs").write_text(pid, encoding="ascii")
        end = time.monotonic() + _EMPTY_S
        while self.folder.exists():
            try:
                self.folder.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > end:
                    return
                time.sleep(_POLL_NS / NS_PER_S)


def obstacle(pid: int) -> str:
    """Why a process in the cgroup of process `pid` cannot be frozen; "" when it can. Creates a cgroup for a
    moment, and moves nothing."""
    reasons = []
    for parent in _places(pid):
        made = Freezer(parent.folder / f"freezelab-{os.getpid()}-try", parent.version)
        try:
            made._create()
        except OSError as error:
            reasons.append(f"{parent.label}: {error.strerror}: {parent.folder}")
        else:
            return ""
        finally:
            with contextlib.suppress(OSError):
                made.folder.rmdir()
    return _why(reasons)


def place(pid: int) -> str:
    """Where a process in the cgroup of process `pid` would be frozen, in words; "" where it cannot be."""
    return "" if obstacle(pid) else next(f"{each.label} in {each.folder}" for each in _places(pid))


def _why(reasons: list[str]) -> str:
    return "the kernel's freezer cannot be used: " + (
        "; ".join(reasons) or "no cgroup of version 2, and none of version 1 with a freezer, is mounted"
    )


def _places(pid: int) -> Iterator[Freezer]:
    """The process's cgroups in which it can be frozen, version 2 first."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines()]
    except OSError as error:
        raise HypervisorError(f"the cgroups of process {pid} are unknown: {error.strerror}") from error
    paths = {controllers: path for _id, controllers, path in (line.split(":", 2) for line in lines)}
    for version, controller in ((2, ""), (1, "freezer")):
        path = next((path for names, path in paths.items() if controller in names.split(",")), None)
        for mount in mounts:
            # ID PARENT DEVICE ROOT POINT OPTIONS [FIELDS] - TYPE SOURCE SUPER-OPTIONS (proc(5), mountinfo)
            kind, _source, options = mount[mount.index("-") + 1 :][:3]
            right = (
                kind == "cgroup2" if version == 2 else "freezer" in options.split(",") and kind == "cgroup"
            )
            if path is not None and right:
                below = path.removeprefix(mount[3].rstrip("/")) if mount[3] != "/" else path
                yield Freezer(Path(mount[4]) / below.lstrip("/"), version)
                break
