"""The host's end that all programs in guests (inside/) share: lines over an SSH channel, and a background
program that is queried over its own socket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import paramiko

from lab.errors import GuestError
from lab.guest import program
from lab.guest.ssh import SSH
from lab.process.pace import paced

START_S, ANSWER_S, STOP_S = 60.0, 30.0, 10.0
_TRIES = 3


class ChannelLines:
    """Reads lines from an SSH channel."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._unread = b""

    def read(self, deadline_s: float) -> bytes:
        """The next line, without its line end. TimeoutError when none arrives by CLOCK_MONOTONIC `deadline_s`
        (seconds); EOFError when the program has ended; OSError when the connection is lost."""
        while b"\n" not in self._unread:
            self._channel.settimeout(max(0.001, deadline_s - time.monotonic()))
            data = self._channel.recv(65536)
            if not data:
                raise EOFError
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line


def last_error(channel: paramiko.Channel) -> str:
    """The last line of a program's standard error that has arrived; "" without one."""
    text = channel.recv_stderr(4096) if channel.recv_stderr_ready() else b""
    return (text.decode(errors="replace").strip().splitlines() or [""])[-1]


class BackgroundProgram:
    """A background program in a guest, which answers one request at a time. It outlives its SSH connection.

    ssh: returns the connection to use, re-established if it was lost (GuestProbe.ssh); it is not closed here.
    name: the module in inside/. title: the program's name in messages.
    """

    def __init__(self, ssh: Callable[[], SSH], name: str, title: str) -> None:
        self._ssh, self._name, self._title = ssh, name, title
        self.path = ""
        """The path of its socket in the guest; "" while it does not run."""
        self.where = ""
        """The guest, for messages; "" before it was started."""

    def start(self, *arguments: str) -> tuple[str, dict[str, Any]]:
        """Start it. Returns the letter of its first line ("R": it is running) and the JSON object there.
        GuestError when it does not start."""
        ssh = self._connect()
        answer = ssh.check(program.start_command(self._name, *arguments), START_S)
        letter, _, rest = answer.strip().partition(" ")
        try:
            data: dict[str, Any] = json.loads(rest)
            self.path = data["path"] if letter == "R" else ""
        except (ValueError, KeyError):
            letter = ""
        if not letter or (letter == "R" and not self.path):
            raise GuestError(
                f"{self._title} does not start: {answer.strip() or 'no answer'}", where=self.where
            )
        return letter, data

    def ask(
        self, request: str, letter: str, timeout_s: float, progress: Callable[[int], None] | None = None
    ) -> dict[str, Any] | None:
        """Send a request. Returns the JSON object after `letter` in the answer ({} for none); None when the
        program is gone. The request is repeated when the connection is lost. progress: called with the number
        in each line "P" before the answer. GuestError when no answer comes within `timeout_s` seconds, or
        longer where guests are slow, or no connection can be made."""
        timeout_s, opens_s = paced(timeout_s), paced(min(timeout_s, ANSWER_S))
        for tries_left in reversed(range(_TRIES)):
            channel = self._connect().socket(self.path, opens_s) if self.path else None
            if channel is None:
                return None
            try:
                return _answer(channel, request, letter, time.monotonic() + timeout_s, progress)
            except TimeoutError:
                what = f"{self._title} did not answer {request!r} within {timeout_s:.0f} s"
                raise GuestError(what, where=self.where) from None
            except (OSError, EOFError, paramiko.SSHException) as error:
                if not tries_left:
                    raise GuestError(f"the connection to {self._title} was lost", where=self.where) from error
            finally:
                with suppress(OSError, EOFError):
                    channel.close()
        return None

    def _connect(self) -> SSH:
        ssh = self._ssh()
        self.where = f"guest {ssh.address.guest}"
        return ssh

    def stop(self, letter: str, timeout_s: float) -> None:
        """End the program. Does nothing when the program or its guest is gone already."""
        if self.path:
            with suppress(GuestError):
                self.ask("stop", letter, timeout_s)
        self.path = ""


class CycleProgram:
    """A background program in a guest that records one cycle after another. A context manager. ssh, name,
    title: see BackgroundProgram. arguments: of the program. most_ns: the longest time that a cycle takes: it
    works no longer, as the host may have been killed."""

    def __init__(
        self,
        guest: str,
        ssh: Callable[[], SSH],
        name: str,
        title: str,
        arguments: Sequence[str],
        most_ns: int,
    ) -> None:
        self.guest, self._begin = guest, f"cycle {most_ns}"
        self._program, self._arguments = BackgroundProgram(ssh, name, title), tuple(arguments)

    def __enter__(self) -> Self:
        self._program.start(*self._arguments)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program, which tidies up before. Does nothing when it or its guest is gone already."""
        self._program.stop("X", STOP_S)

    def start_cycle(self) -> None:
        """Have it forget what it has recorded. GuestError when the guest does not answer."""
        if self._ask(self._begin, "C") is None:  # gone, with a guest that was rebooted
            self._program.start(*self._arguments)
            self._ask(self._begin, "C")

    def _ask(self, what: str, letter: str) -> dict[str, Any] | None:
        return self._program.ask(what, letter, ANSWER_S)


def _answer(
    channel: paramiko.Channel,
    request: str,
    letter: str,
    deadline_s: float,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    channel.sendall(request.encode() + b"\n")
    lines = ChannelLines(channel)
    while True:
        begins, _, rest = lines.read(deadline_s).partition(b" ")
        if begins == letter.encode():
            answer: dict[str, Any] | None = json.loads(rest or b"{}")
            return answer or {}
        if begins != b"P":
            raise EOFError
        if progress is not None:
            progress(int(rest))
