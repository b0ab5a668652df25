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
    """A guest's serial channel. path: returns the socket's present path; None without such a channel."""

    def __init__(self, guest: str, clock: Clock, path: Callable[[], Path | None]) -> None:
        self._guest, self._clock, self._path = guest, clock, path
        self._socket: socket.socket | None = None
        self._at: Path | None = None
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

    def exchange(self, line: bytes, letter: bytes, echo: bytes = b"") -> tuple[Stamp, Stamp, bytes]:
        """One exchange; see probe_protocol.Exchange. GuestError when no answer comes in time."""
        if self.here() and self._socket is not None:
            with suppress(OSError):
                sent = self._clock.now()
                self._socket.sendall(line)
                deadline = time.monotonic() + ANSWER_S
                while (left := deadline - time.monotonic()) > 0:
                    if not select.select([self._socket], [], [], left)[0]:
                        break
                    data = self._socket.recv(65536)
                    received = self._clock.now()
                    if not data:
                        break
                    *lines, self._unread = (self._unread + data).split(b"\n")
                    for answer in lines:
                        if answer.startswith(letter + echo):
                            self._deaf_s = DEAF_S
                            return sent, received, answer[len(letter) + len(echo) :].strip()
        self.close()
        self._deafen()
        raise GuestError("no answer over the serial channel", where=f"guest {self._guest}")
