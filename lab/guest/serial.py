"""The host's end of a guest's virtio-serial channel: QEMU's socket, with one line for each request and
answer.

It reaches the same program as SSH, but needs no network. It works while the network is cut, and after a
hand-over to another QEMU process before the SSH connection can be re-established.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lab.core.clock import Stamp
from lab.errors import GuestError
from lab.ports import Clock

ANSWER_S = 1.0
"""Time limit for an answer, in seconds. The probe polls the channel every 20 ms; slower guests are asked over
SSH."""

DEAF_S, _DEAFEST_S = 0.25, 64.0
"""How long an end that does not answer or does not exist is not used, in seconds; doubled each time up to the
second value."""


class SerialLine:
    """A guest's serial channel. path: returns the socket's present path; None without such a channel.
    connected: a socket that is connected to that path already."""

    def __init__(
        self,
        guest: str,
        clock: Clock,
        path: Callable[[], Path | None],
        connected: socket.socket | None = None,
    ) -> None:
        self._guest, self._clock, self._path = guest, clock, path
        self._socket = connected
        self._at = path() if connected is not None else None
        self._deaf_s, self._deaf_until = DEAF_S, 0.0
        self._unread = b""

    def here(self) -> bool:
        """Whether the channel can be used: QEMU's socket exists, and the channel did not just fail."""
        path = self._path()
        if path != self._at:
            self.close()
            self._deaf_s, self._deaf_until = DEAF_S, 0.0  # another QEMU process
        if path is None or time.monotonic() < self._deaf_until:
            return False
        if self._socket is None:
            self._at, self._unread = path, b""
            made = socket.socket(socket.AF_UNIX)
            try:
                made.setblocking(False)
                made.connect(str(path))
            except OSError:
                made.close()
                self._deafen()
                return False
            self._socket = made
        return True

    def _deafen(self) -> None:
        self._deaf_until = time.monotonic() + self._deaf_s
        self._deaf_s = min(2 * self._deaf_s, _DEAFEST_S)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def exchange(
        self, line: bytes, letter: bytes, echo: bytes = b"", within_s: float = ANSWER_S
    ) -> tuple[Stamp, Stamp, bytes]:
        """One exchange; see probe_protocol.Exchange. GuestError when no answer comes within `within_s`
        seconds."""
        deadline = time.monotonic() + within_s
        with suppress(OSError):
            sent = self.send(line)
            while True:
                answer, received = self.receive(deadline)
                if answer.startswith(letter + echo):
                    self._deaf_s = DEAF_S
                    return sent, received, answer[len(letter) + len(echo) :].strip()
        self.close()
        self._deafen()
        raise GuestError("no answer over the serial channel", where=f"guest {self._guest}")

    def send(self, line: bytes) -> Stamp:
        """Send a line. Returns a host stamp before the sending. OSError when the channel cannot be used."""
        if not self.here() or self._socket is None:
            raise OSError
        sent = self._clock.now()
        self._socket.sendall(line)
        return sent

    def receive(self, deadline_s: float) -> tuple[bytes, Stamp]:
        """The next line, and a host stamp after its arrival. OSError when the channel is lost, or none comes
        by CLOCK_MONOTONIC `deadline_s` (seconds)."""
        received = self._clock.now()
        while b"\n" not in self._unread:
            left = max(0.0, deadline_s - time.monotonic())
            if self._socket is None or not select.select([self._socket], [], [], left)[0]:
                raise TimeoutError
            data = self._socket.recv(65536)
            received = self._clock.now()
            if not data:
                raise ConnectionResetError
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line, received


class SerialClockLine:
    """Lines to the program in a guest that began with a golden state, which set its clock; see
    inside/golden_probe.py. It is a timesync.push.PushChannel."""

    patience_s = 5.0

    def __init__(self, guest: str, clock: Clock, serial: SerialLine) -> None:
        self.where = f"guest {guest}"
        self._clock, self._serial = clock, serial

    def now(self) -> Stamp:
        """The host's clocks."""
        return self._clock.now()

    def send(self, line: str) -> Stamp:
        """Send a line. Returns a host stamp before the sending. GuestError when the channel is lost."""
        try:
            return self._serial.send(b"k " + line.encode() + b"\n")
        except OSError as error:
            raise self._lost() from error

    def receive(self, timeout_s: float) -> tuple[str, Stamp]:
        """The next line, and a host stamp after its arrival. GuestError when the channel is lost, or no line
        comes in time."""
        try:
            line, arrived = self._serial.receive(time.monotonic() + timeout_s)
        except OSError as error:
            raise self._lost() from error
        return line.decode(errors="replace").removeprefix("K "), arrived

    def _lost(self) -> GuestError:
        return GuestError("no answer over the serial channel", where=self.where)
