"""Fills a guest's memory with incompressible pages, and verifies them later."""

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
"""How much of the guest's memory stays free, for its services and a login."""

_ITSELF_BYTES = 48 << 20
"""The memory of the program itself: Python, and a block of random bytes."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Verified:
    """The result of a verification. differ: how many pages have changed. differing: the numbers of the first
    few."""

    pages: int
    differ: int
    differing: tuple[int, ...]

    @property
    def ok(self) -> bool:
        return self.differ == 0


def room(ssh: SSH) -> int:
    """How many bytes of the guest's memory can be filled now: MemAvailable (proc(5), meminfo) less
    RESERVE_BYTES and the program's own memory. GuestError when the guest does not report it."""
    text = ssh.check("sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").strip()
    if not text.isdigit():
        raise GuestError(f"its free memory is unknown: {text!r}", where=f"guest {ssh.address.guest}")
    return max(0, (int(text) << 10) - RESERVE_BYTES - _ITSELF_BYTES) // PAGE * PAGE


class Fill:
    """A program in the guest that holds `size` bytes (rounded up to whole pages) until it is stopped or the
    guest ends. It outlives its SSH connection.

    ssh: returns the connection to use, re-established if it was lost (GuestProbe.ssh); it is not closed here.
    locked: whether the pages are locked in memory (mlock(2)).
    """

    def __init__(self, ssh: Callable[[], SSH], size: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        self.locked = False
        self.program = BackgroundProgram(ssh, "memory_filler", "the program that fills the memory")

    def start(self) -> Fill:
        """Start filling. GuestError when less than RESERVE_BYTES would stay free."""
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
        """Wait until all pages are written. progress: called with the bytes done and the total. GuestError on
        a time-out, or when the program is gone."""
        self._ask("wait", "D", timeout_s, progress)

    def verify(self, timeout_s: float = 600.0, progress: Progress | None = None) -> Verified:
        """Wait for the filling, and compare every page with what was written. Raises the same errors as
        wait."""
        found = self._ask("verify", "V", timeout_s, progress)
        return Verified(found["pages"], found["differ"], tuple(found["differing"]))

    def stop(self) -> None:
        """End the program and release its memory. Does nothing when it is gone already."""
        self.program.stop("E", ANSWER_S)

    def _ask(self, what: str, letter: str, timeout_s: float, progress: Progress | None) -> dict[str, Any]:
        def pass_on(done: int) -> None:
            if progress is not None:
                progress(done, self.size)

        answer = self.program.ask(what, letter, timeout_s, pass_on)
        if answer is None:
            raise GuestError("the program that fills the memory has ended", where=self.program.where)
        return answer
