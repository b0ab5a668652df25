"""Finds everything that a program has started, to kill it when the program's time is over.

A process leaves its process group by setsid(2), and its process tree by a second fork. Two ways find it
still:

- A cgroup for the program (cgroups(7), version 2), below this process's own. Only root can move processes out
  of it, and the kernel kills all of its processes at once. It is available to root, and where this process's
  cgroup is delegated (`systemd-run --user --scope -p Delegate=yes`, many containers).
- Without a cgroup: a mark in the environment, which children inherit, and the process tree. This misses
  processes that have cleared their environment and whose parent has ended. Another user's processes cannot be
  signalled.

The program enters the cgroup between fork and exec, so that none of its children can be outside.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

MARK = "FREEZELAB_SCOPE"
_PACE_S = 0.002
_PREFIX = "freezelab-"
"""Of a cgroup's name, before the process id of who made it."""


class Scope:
    """All processes of one program. Always close it. cgroup: False uses only the mark and the process
    tree."""

    def __init__(self, *, cgroup: bool = True) -> None:
        self._mark = secrets.token_hex(8)
        self._folder = _make(self._mark) if cgroup else None
        self._entrance = -1
        if self._folder is not None:
            self._entrance = os.open(self._folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    @property
    def enter(self) -> Callable[[], object] | None:
        """The function to call in the new process before it executes the program; None without a cgroup. It
        makes only one system call, because the process was forked from one with threads."""
        if self._entrance < 0:
            return None
        entrance = self._entrance
        return lambda: os.write(entrance, b"0")

    def environment(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """The environment to execute the program with: `wanted` and the mark."""
        return {**wanted, MARK: self._mark}

    def kill(self, known: Sequence[psutil.Process], late: Callable[[], bool]) -> bool:
        """Send SIGKILL to all processes until none is left, or `late` returns True. Returns whether none is
        left. known: processes that belong to the program even when they have changed their environment."""
        while self.kill_members() if self._folder is not None else self._kill_known(known):
            if late():
                return False
            time.sleep(_PACE_S)
        return True

    def kill_members(self) -> bool:
        """Send SIGKILL to all processes in the cgroup. Returns whether there was any."""
        members = self._members()
        if self._folder is not None and members:
            try:
                (self._folder / "cgroup.kill").write_text("1", encoding="ascii")  # Linux 5.14
            except OSError:
                for pid in members:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
        return bool(members)

    def _kill_known(self, known: Sequence[psutil.Process]) -> bool:
        living = [process for process in (*known, *self._marked()) if _lives(process)]
        for process in living:
            for each in (*descendants(process), process):
                with contextlib.suppress(psutil.Error):  # psutil notices when the number is another process's
                    each.kill()
        return bool(living)

    def _members(self) -> list[int]:
        if self._folder is None:
            return []
        try:
            return [int(word) for word in (self._folder / "cgroup.procs").read_text(encoding="ascii").split()]
        except (OSError, ValueError):
            return []

    def _marked(self) -> list[psutil.Process]:
        """The processes that were started with the mark in their environment (proc(5), environ)."""
        found, mark = [], f"{MARK}={self._mark}".encode()
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(pid))
        return found

    def close(self) -> None:
        """Remove the cgroup. Processes that are left in it move to this process's cgroup and live on."""
        if self._folder is None:
            return
        os.close(self._entrance)
        for pid in self._members():
            with contextlib.suppress(OSError):
                (self._folder.parent / "cgroup.procs").write_text(str(pid), encoding="ascii")
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def may_be_sure() -> bool:
    """Whether this process can create a cgroup."""
    scope = Scope()
    try:
        return scope._folder is not None
    finally:
        scope.close()


def _make(name: str) -> Path | None:
    """Create a cgroup below this process's own. None where that is not possible."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        ours = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        root = next(line.split()[4] for line in mounts if " - cgroup2 " in line)
        path = next(line.removeprefix("0::") for line in ours if line.startswith("0::"))
        parent = Path(root) / path.lstrip("/")
        _sweep(parent)
        folder = parent / f"{_PREFIX}{os.getpid()}-{name}"
        folder.mkdir()
    except (OSError, StopIteration):
        return None
    if os.access(folder / "cgroup.procs", os.W_OK) and os.access(folder.parent / "cgroup.procs", os.W_OK):
        return folder
    with contextlib.suppress(OSError):
        folder.rmdir()
    return None


def _sweep(parent: Path) -> None:
    """Remove the empty cgroups of processes that have ended, such as a killed run."""
    for folder in parent.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not (owner.isdigit() and Path("/proc", owner).exists()):
            with contextlib.suppress(OSError):  # it has processes still, or has gone
                folder.rmdir()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """All descendants of a process; [] when it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []
