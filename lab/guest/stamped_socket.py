"""A TCP socket that stamps what passes, so that the time which the SSH library takes to build, encrypt,
decrypt and hand over a message, some tenths of a millisecond, is outside a reading's round trip.

What comes is stamped by the kernel (socket(7), SO_TIMESTAMPNS; of a stream, the last packet that was read):
the thread that reads it is woken some 0.1 ms later. That stamp is CLOCK_REALTIME. It is brought to
MONOTONIC_RAW by the least difference of the two that was seen before it came and after, so that a step in
between makes it later, never too early. All that has come is read at once: what a call did not bring came
after that call.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from typing import Any

from lab.core.clock import Stamp
from lab.core.units import NS_PER_S
from lab.ports import Clock

SO_TIMESTAMPNS = 35
"""Not in Python's socket module; the same number on all of Linux but alpha, parisc and sparc, where it is
refused or never answered."""

_ALL = 1 << 18


def _least_apart_ns() -> int:
    """At least how far REALTIME is from MONOTONIC_RAW: a look that is interrupted says less."""
    real = time.clock_gettime_ns(time.CLOCK_REALTIME)
    return real - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


class Wire:
    """Stands in for a socket. Stamps are the host's, always on the safe side: `first_sent` is not
    later than the sending of what was sent after `mark_sending`, and `last_received` is not earlier
    than the arrival of anything that was read so far."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._socket, self._clock = sock, clock
        self.last_received = clock.now()
        self.first_sent: Stamp | None = None
        self._unread = b""
        self._apart_ns = _least_apart_ns()
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def mark_sending(self) -> Stamp:
        """From here on the next send is the first one. Returns a stamp of now."""
        self.first_sent = None
        return self._clock.now()

    def send(self, data: bytes, *flags: int) -> int:
        if self.first_sent is None:
            self.first_sent = self._clock.now()
        return self._socket.send(data, *flags)

    def recv(self, size: int) -> bytes:
        if not self._unread:
            called = _least_apart_ns()
            self._unread, extra, _, _ = self._socket.recvmsg(_ALL, 64)
            self.last_received = self._arrived(self._clock.now(), extra)
            if len(self._unread) < _ALL:
                self._apart_ns = called
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def _arrived(self, now: Stamp, extra: list[tuple[int, int, bytes]]) -> Stamp:
        """When what was read at `now` had come, at the latest."""
        least = min(self._apart_ns, _least_apart_ns())
        for level, kind, value in extra:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, rest = struct.unpack("@ll", value)
                # In order, whatever order the packets came in.
                raw = max(seconds * NS_PER_S + rest - least, self.last_received.raw_ns)
                late = max(0, now.raw_ns - raw)
                return Stamp(now.raw_ns - late, now.real_ns - late)
        return now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)
