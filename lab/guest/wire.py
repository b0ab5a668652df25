"""A TCP socket that stamps what passes, so that the time which the SSH library takes to build, encrypt,
decrypt and hand over a message, some tenths of a millisecond, is outside a reading's round trip."""

from __future__ import annotations

import socket
from typing import Any

from lab.core.clock import Stamp
from lab.ports import Clock


class Wire:
    """Stands in for a socket. Stamps are the host's, always on the safe side: `first_sent` is not
    later than the sending of what was sent after `mark_sending`, and `last_received` is not earlier
    than the arrival of anything that was read so far."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._socket, self._clock = sock, clock
        self.last_received = clock.now()
        self.first_sent: Stamp | None = None

    def mark_sending(self) -> Stamp:
        """From here on the next send is the first one. Returns a stamp of now."""
        self.first_sent = None
        return self._clock.now()

    def send(self, data: bytes, *flags: int) -> int:
        if self.first_sent is None:
            self.first_sent = self._clock.now()
        return self._socket.send(data, *flags)

    def recv(self, size: int, *flags: int) -> bytes:
        data = self._socket.recv(size, *flags)
        self.last_received = self._clock.now()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
