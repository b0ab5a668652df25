"""A shell in a guest that thaws its file systems, where there is no Python; see writer.py for the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import paramiko

from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.guest import program
from lab.guest.client import ChannelLines
from lab.guest.ssh import SSH
from lab.process.pace import paced

_ANSWER_S = 5.0


class ShellThaw:
    """A context manager: the shell runs inside/shell_thaw.sh. ssh: the guest's connection, as root. Where the
    guest has no fsfreeze(8), arm() does nothing, and thaw() fails."""

    def __init__(self, guest: str, ssh: Callable[[], SSH]) -> None:
        self.guest, self._ssh = guest, ssh
        self._channel: paramiko.Channel | None = None

    def __enter__(self) -> ShellThaw:
        self._channel = self._ssh().channel(program.shell_command("shell_thaw"))
        self._lines = ChannelLines(self._channel)
        if self._answer(b"R", b"E") == [b"E"]:
            self._close()
        return self

    def __exit__(self, *_: object) -> None:
        if self._channel is not None:
            with suppress(OSError, EOFError):
                self._channel.sendall(b"end\n")
            self._close()

    def arm(self, after_ns: int) -> None:
        """Have the guest thaw by itself after so much of its own time, unless it is armed again before."""
        if self._channel is not None:
            self._ask(self._channel, f"arm {-(-after_ns // NS_PER_S)}", b"A")

    def thaw(self) -> int:
        """Thaw the guest's file systems. Returns how many were frozen. GuestError when the shell does not
        answer."""
        if self._channel is None:
            raise GuestError("it has no fsfreeze(8) that could thaw", where=f"guest {self.guest}")
        return int(self._ask(self._channel, "thaw", b"T")[-1])

    def _ask(self, channel: paramiko.Channel, request: str, letter: bytes) -> list[bytes]:
        try:
            channel.sendall(f"{request}\n".encode())
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._gone() from error
        return self._answer(letter)

    def _answer(self, *letters: bytes) -> list[bytes]:
        """The words of the next line that begins with one of these letters. What came too late for an earlier
        request is passed over."""
        deadline = time.monotonic() + paced(_ANSWER_S)
        try:
            while True:
                words = self._lines.read(deadline).split()
                if words and words[0] in letters:
                    return words
        except (OSError, EOFError) as error:
            raise self._gone() from error

    def _gone(self) -> GuestError:
        return GuestError("the shell that thaws does not answer", where=f"guest {self.guest}")

    def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with suppress(OSError, EOFError):
                channel.close()
