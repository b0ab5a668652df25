"""A TCP socket that stamps the data that passes, so that the SSH library's time to build, encrypt, decrypt
and deliver a message, some tenths of a millisecond, is not part of a reading's round trip.

The kernel stamps incoming data (socket(7), SO_TIMESTAMPNS; for a stream, the last packet that was read),
because the reading thread wakes up some 0.1 ms later. That stamp is CLOCK_REALTIME. It is converted to
MONOTONIC_RAW by the least difference of the two clocks before and after its arrival, so that a clock step
makes it later, never too early. All available data is read at once, so data that a call did not return has
arrived after that call.
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
"""Python's socket module lacks it. The number is the same on all Linux architectures but alpha, parisc and
sparc, where the option is refused or yields no stamps."""

_ALL = 1 << 18


def _least_apart_ns() -> int:
    """A lower bound of REALTIME minus MONOTONIC_RAW; an interruption between the two reads makes it
    smaller."""
    real = time.clock_gettime_ns(time.CLOCK_REALTIME)
    return real - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


class Wire:
    """Replaces a socket. Stamps are of the host's clocks and conservative: `first_sent` is not later than the
    first sending after `mark_sending`, and `last_received` is not earlier than the arrival of any data that
    was read so far."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self._socket, self._clock = sock, clock
        self.last_received = clock.now()
        self.first_sent: Stamp | None = None
        self._unread = b""
        self._apart_ns = _least_apart_ns()
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def mark_sending(self) -> Stamp:
        """Let the next send set `first_sent`. Returns a stamp of now."""
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
        """The latest possible arrival of the data that was read at `now`."""
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
