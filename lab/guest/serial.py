"""The host's end of a guest's virtio-serial channel: QEMU's socket, one line there and one back.

It asks the same program as SSH does, but needs no network: it answers while the network is cut, and a guest
that was handed to another QEMU process is heard there before its SSH connection can be had again.
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
"""The probe looks for a host at this end every 20 ms. A guest that is slower is asked over SSH."""

DEAF_S, _DEAFEST_S = 0.25, 64.0
"""How long an end that did not answer, or is not there, is left alone: twice as long each time."""


class SerialLine:
    """path: where the socket is now; None when the guest has no such channel."""

    def __init__(self, guest: str, clock: Clock, path: Callable[[], Path | None]) -> None:
        self._guest, self._clock, self._path = guest, clock, path
        self._socket: socket.socket | None = None
        self._at: Path | None = None
        self._deaf_s, self._deaf_until = DEAF_S, 0.0
        self._unread = b""

    def here(self) -> bool:
        """Whether it may be asked: QEMU's end is there, and it did not just fail to answer."""
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
        """Send `line`. Stamps before that and after the arrival of the answer that starts with `letter` and
        `echo`, and the answer without them. GuestError when there is none in time."""
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
