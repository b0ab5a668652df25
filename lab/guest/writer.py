"""A program in a guest that writes and syncs, to see its file systems stand still, and that can thaw them."""

from __future__ import annotations

from collections.abc import Callable

from lab.core.file_stall import FileWrites, LateWrite
from lab.errors import GuestError
from lab.guest.client import ANSWER_S, BackgroundProgram
from lab.guest.ssh import SSH

_THAW_S = 3.0
STOP_S = 10.0


class GuestWriter:
    """ports.Writer over SSH. A context manager. ssh: see GuestWatcher. sysrq: while it is armed, the guest's
    kernel takes Alt-SysRq-J, whatever its kernel.sysrq is."""

    def __init__(self, guest: str, ssh: Callable[[], SSH], *, sysrq: bool) -> None:
        self.guest = guest
        self._arguments = ("sysrq",) if sysrq else ()
        self._program = BackgroundProgram(ssh, "disk_writer", "the writer")

    def __enter__(self) -> GuestWriter:
        self._program.start(*self._arguments)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it. It thaws before. Does nothing when it or its guest is gone already."""
        self._program.stop("X", STOP_S)

    def start_cycle(self) -> None:
        if self._program.ask("cycle", "C", ANSWER_S) is None:  # gone, with a guest that was rebooted
            self._program.start(*self._arguments)
            self._program.ask("cycle", "C", ANSWER_S)

    def arm(self, after_ns: int) -> None:
        """Have the guest thaw by itself after so much of its own MONOTONIC, unless writes() comes before."""
        self._program.ask(f"arm {after_ns}", "A", ANSWER_S)

    def thaw(self) -> int:
        """Thaw the guest's file systems. Returns how many were frozen. GuestError when the guest does not
        answer."""
        answer = self._program.ask("thaw", "T", _THAW_S)
        if answer is None:
            raise GuestError("the writer is gone, and cannot thaw", where=f"guest {self.guest}")
        return int(answer["thawed"])

    def writes(self) -> FileWrites | None:
        found = self._program.ask("writes", "W", ANSWER_S)
        if not found:
            return None
        late = tuple(LateWrite(*row) for row in found.pop("late"))
        return FileWrites(**found, late=late)
