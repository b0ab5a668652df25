"""A guest's memory filled with pages that cannot be made smaller, and looked at again later."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import paramiko

from lab.core.units import format_size
from lab.errors import GuestError
from lab.guest import program
from lab.guest.ssh import SSH

PAGE = 4096
KEEP_BYTES = 96 << 20
"""What stays free of the guest's memory: its own services, and a login."""

_ITSELF_BYTES = 48 << 20
"""Of the program: Python, and a block of random bytes."""

START_S, ANSWER_S = 60.0, 30.0
_TRIES = 3
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
    meminfo), less KEEP_BYTES and what the program itself takes. GuestError when the guest does not say."""
    said = ssh.check("sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").strip()
    if not said.isdigit():
        raise GuestError(f"its free memory cannot be told: {said!r}", where=f"guest {ssh.address.guest}")
    return max(0, (int(said) << 10) - KEEP_BYTES - _ITSELF_BYTES) // PAGE * PAGE


class Fill:
    """A program in the guest that holds `size` bytes (rounded up to whole pages) until it is stopped or the
    guest ends. It outlives its SSH connection.

    ssh: the connection to use, had again when it was lost (GuestProbe.ssh); it is not closed here.
    locked: the guest's kernel keeps the pages in memory; false when it did not agree.
    """

    def __init__(self, ssh: Callable[[], SSH], size: int) -> None:
        self._ssh = ssh
        self.size = -(-size // PAGE) * PAGE
        self.locked = False
        self._path = ""

    def start(self) -> Fill:
        """Start it; it fills from now on. GuestError when it would leave the guest less than KEEP_BYTES."""
        ssh = self._ssh()
        said = ssh.check(program.start_command("memory_filler", str(self.size), str(KEEP_BYTES)), START_S)
        data = json.loads(said[2:] or "{}")
        where = f"guest {ssh.address.guest}"
        if said.startswith("N"):
            free = format_size(data["available"] >> 20 << 20)
            raise GuestError(
                f"{format_size(self.size)} do not fit: of {free} that are free, "
                f"{format_size(KEEP_BYTES)} must stay so",
                where=where,
                hint="more memory for the guest, or less of it filled",
            )
        if not data.get("path"):
            raise GuestError(f"the memory cannot be filled: {said.strip() or 'no answer'}", where=where)
        self._path, self.locked = data["path"], data["locked"]
        return self

    def wait(self, timeout_s: float = 600.0, progress: Progress | None = None) -> None:
        """Until all is written. progress: told the bytes done, and of how many. GuestError on a time-out, or
        when the program is gone."""
        self._ask("wait", "D", timeout_s, progress)

    def verify(self, timeout_s: float = 600.0, progress: Progress | None = None) -> Verified:
        """Compare every page with what was written. Waits for the filling. Raises as wait does."""
        said = self._ask("verify", "V", timeout_s, progress)
        return Verified(said["pages"], said["differ"], tuple(said["differing"]))

    def stop(self) -> None:
        """End it, and give the memory back. Nothing happens when it is gone already."""
        if self._path:
            with suppress(GuestError):
                self._ask("stop", "E", ANSWER_S, None)
        self._path = ""

    def _ask(self, what: str, letter: str, timeout_s: float, progress: Progress | None) -> dict[str, Any]:
        """The answer that starts with `letter`; asked again when the connection is lost meanwhile."""
        deadline = time.monotonic() + timeout_s
        for tries_left in reversed(range(_TRIES)):
            ssh = self._ssh()
            channel = ssh.socket(self._path, ANSWER_S) if self._path else None
            where = f"guest {ssh.address.guest}"
            if channel is None:
                raise GuestError("the program that fills the memory is gone", where=where)
            try:
                return self._converse(channel, what, letter, deadline, progress)
            except TimeoutError:
                raise GuestError(f"{what}: not done after {timeout_s:.0f} s", where=where) from None
            except (OSError, EOFError, paramiko.SSHException) as error:
                if not tries_left:
                    raise GuestError(f"{what}: the connection was lost", where=where) from error
            finally:
                with suppress(OSError, EOFError):
                    channel.close()
        raise GuestError(f"{what}: no answer")  # not reached: the last try returns or raises

    def _converse(
        self, channel: paramiko.Channel, what: str, letter: str, deadline: float, progress: Progress | None
    ) -> dict[str, Any]:
        channel.sendall(what.encode() + b"\n")
        waiting = b""
        while True:
            channel.settimeout(max(0.01, deadline - time.monotonic()))
            data = channel.recv(65536)
            if not data:
                raise EOFError
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                if line.startswith(letter.encode()):
                    answer: dict[str, Any] = json.loads(line[2:] or b"{}")
                    return answer
                if progress is not None and line.startswith(b"P "):
                    progress(int(line[2:]), self.size)
