"""Everything that a program has started, wherever it has hidden: to be killed when its time is over.

A process group is left by setsid(2), and a process tree by a second fork. Two things hold on further:

- A cgroup of its own (cgroups(7), version 2), below the one that we are in. It is left by nobody but who is
  root and writes to another one. The kernel kills all of it at once. It may be had as root, and where our
  cgroup is delegated to us (`systemd-run --user --scope -p Delegate=yes`, many containers).
- Where none may be had: a mark in the environment, which children inherit, and descent. A program escapes
  that has cleared its environment and whose parent has ended; one of another user cannot be signalled at all.

The program is put into the cgroup between fork and exec, so that no child of its can be outside.
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


class Scope:
    """What one program starts. Close it, whatever happens. cgroup: False does without one."""

    def __init__(self, *, cgroup: bool = True) -> None:
        self._mark = secrets.token_hex(8)
        self._folder = _make(self._mark) if cgroup else None
        self._entrance = -1
        if self._folder is not None:
            self._entrance = os.open(self._folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    @property
    def enter(self) -> Callable[[], object] | None:
        """To be called in the new process before it executes the program: one system call, as there may be
        no more in a process that was forked from one with threads."""
        if self._entrance < 0:
            return None
        entrance = self._entrance
        return lambda: os.write(entrance, b"0")

    def environment(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """To be executed with."""
        return {**wanted, MARK: self._mark}

    def kill(self, known: Sequence[psutil.Process], late: Callable[[], bool]) -> bool:
        """SIGKILL to all of it until nothing is left, or it is `late`; whether nothing is. known: processes
        that belong to it whatever they have done to their environment."""
        while self.kill_members() if self._folder is not None else self._kill_known(known):
            if late():
                return False
            time.sleep(_PACE_S)
        return True

    def kill_members(self) -> bool:
        """SIGKILL to all that is in the cgroup; whether anything was."""
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
                with contextlib.suppress(psutil.Error):  # psutil sees a number that is another's by now
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
        """Those with the mark in their environment, as they were started with (proc(5), environ)."""
        found, mark = [], f"{MARK}={self._mark}".encode()
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(pid))
        return found

    def close(self) -> None:
        """What it has started for good lives on, in the cgroup that we are in."""
        if self._folder is None:
            return
        os.close(self._entrance)
        for pid in self._members():
            with contextlib.suppress(OSError):
                (self._folder.parent / "cgroup.procs").write_text(str(pid), encoding="ascii")
        with contextlib.suppress(OSError):
            self._folder.rmdir()


def may_be_sure() -> bool:
    """Whether a cgroup may be had here."""
    scope = Scope()
    try:
        return scope._folder is not None
    finally:
        scope.close()


def _make(name: str) -> Path | None:
    """A cgroup below our own; None where there may be none."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        ours = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        root = next(line.split()[4] for line in mounts if " - cgroup2 " in line)
        path = next(line.removeprefix("0::") for line in ours if line.startswith("0::"))
        folder = Path(root) / path.lstrip("/") / f"freezelab-{name}"
        folder.mkdir()
    except (OSError, StopIteration):
        return None
    if os.access(folder / "cgroup.procs", os.W_OK) and os.access(folder.parent / "cgroup.procs", os.W_OK):
        return folder
    with contextlib.suppress(OSError):
        folder.rmdir()
    return None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Its children, theirs, and so on; none when it has ended."""
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []
