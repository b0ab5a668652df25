"""A program in a guest that writes and syncs, to see its file systems stand still, and that can thaw them."""

from __future__ import annotations

from collections.abc import Callable

from lab.core.file_stall import FileWrites, LateWrite
from lab.errors import GuestError
from lab.guest.client import CycleProgram
from lab.guest.ssh import SSH

_THAW_S = 3.0


class GuestWriter(CycleProgram):
    """ports.Writer over SSH: a CycleProgram that thaws before it ends. sysrq: while it is armed, the guest's
    kernel takes Alt-SysRq-J, whatever its kernel.sysrq is. most_ns: see CycleProgram; from arm() on it writes
    no longer than some seconds after that time."""

    def __init__(self, guest: str, ssh: Callable[[], SSH], most_ns: int, *, sysrq: bool) -> None:
        super().__init__(guest, ssh, "disk_writer", "the writer", ["sysrq"] if sysrq else [], most_ns)

    def arm(self, after_ns: int) -> None:
        """Have the guest thaw by itself after so much of its own MONOTONIC, unless writes() comes before."""
        self._ask(f"arm {after_ns}", "A")

    def thaw(self) -> int:
        """Thaw the guest's file systems. Returns how many were frozen. GuestError when the guest does not
        answer."""
        answer = self._program.ask("thaw", "T", _THAW_S)
        if answer is None:
            raise GuestError("the writer is gone, and cannot thaw", where=f"guest {self.guest}")
        return int(answer["thawed"])

    def writes(self) -> FileWrites | None:
        found = self._ask("writes", "W")
        if not found:
            return None
        late = tuple(LateWrite(*row) for row in found.pop("late"))
        return FileWrites(**found, late=late)
