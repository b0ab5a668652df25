"""A guest's memory filled with pages that cannot be made smaller, and looked at again later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.core.units import format_size
from lab.errors import GuestError
from lab.guest.client import ANSWER_S, BackgroundProgram
from lab.guest.ssh import SSH

PAGE = 4096
RESERVE_BYTES = 96 << 20
"""What stays free of the guest's memory: its own services, and a login."""

_ITSELF_BYTES = 48 << 20
"""Of the program: Python, and a block of random bytes."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Verified:
    """What became of the pages. differ: how many no longer hold what was written; differing: the numbers
    of the first few."""

    pages: int
    differ: int
    differing: tuple[int, ...]

    @property
    def ok(self) -> bool:
        return self.differ == 0


def room(ssh: SSH) -> int:
    """How many bytes of the guest's memory can be filled now: what its kernel has available (proc(5),
    meminfo), less RESERVE_BYTES and what the program itself takes. GuestError when the guest does not say."""
    text = ssh.check("sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").strip()
    if not text.isdigit():
        raise GuestError(f"its free memory is unknown: {text!r}", where=f"guest {ssh.address.guest}")
    return max(0, (int(text) << 10) - RESERVE_BYTES - _ITSELF_BYTES) // PAGE * PAGE


class Fill:
    """A program in the guest that holds `size` bytes (rounded up to whole pages) until it is stopped or the
    guest ends. It outlives its SSH connection.

    ssh: the connection to use, had again when it was lost (GuestProbe.ssh); it is not closed here.
    locked: the guest's kernel keeps the pages in memory; false when it did not agree.
    """

    def __init__(self, ssh: Callable[[], SSH], size: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        self.locked = False
        self.program = BackgroundProgram(ssh, "memory_filler", "the program that fills the memory")

    def start(self) -> Fill:
        """Start it; it fills from now on. GuestError when it would leave the guest less than the reserve."""
        letter, data = self.program.start(str(self.size), str(RESERVE_BYTES))
        if letter == "N":
            free = format_size(data["available"] >> 20 << 20)
            raise GuestError(
                f"{format_size(self.size)} do not fit: of {free} that are free, "
                f"{format_size(RESERVE_BYTES)} must stay so",
                where=self.program.where,
                hint="more memory for the guest, or less of it filled",
            )
        self.locked = data["locked"]
        return self

    def wait(self, timeout_s: float = 600.0, progress: Progress | None = None) -> None:
        """Until all is written. progress: told the bytes done, and of how many. GuestError on a time-out, or
        when the program is gone."""
        self._ask("wait", "D", timeout_s, progress)

    def verify(self, timeout_s: float = 600.0, progress: Progress | None = None) -> Verified:
        """Compare every page with what was written. Waits for the filling. Raises as wait does."""
        found = self._ask("verify", "V", timeout_s, progress)
        return Verified(found["pages"], found["differ"], tuple(found["differing"]))

    def stop(self) -> None:
        """End it, and give the memory back. Nothing happens when it is gone already."""
        self.program.stop("E", ANSWER_S)

    def _ask(self, what: str, letter: str, timeout_s: float, progress: Progress | None) -> dict[str, Any]:
        def pass_on(done: int) -> None:
            if progress is not None:
                progress(done, self.size)

        answer = self.program.ask(what, letter, timeout_s, pass_on)
        if answer is None:
            raise GuestError("the program that fills the memory has ended", where=self.program.where)
        return answer
