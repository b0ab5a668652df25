"""A loop with timers, and TCP connections that never block: what clients of text and binary protocols share.

A request that hangs delays no other: what the network does not take yet waits here, in order.
"""

from __future__ import annotations

import heapq
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from lab.host.clients.base import raw_ns

_CHUNK = 1 << 16
LONGEST_WAIT_S = 0.5


class ClientLoop:
    """Calls back when a time has come (host MONOTONIC_RAW), and when a connection has something to read."""

    def __init__(self) -> None:
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self.wires: set[ClientWire | ClientPort] = set()

    def at(self, time_ns: int, call: Callable[[], None]) -> None:
        """Call once, from time_ns on."""
        heapq.heappush(self._timers, (time_ns, next(self._order), call))

    def after(self, delay_ns: int, call: Callable[[], None]) -> None:
        """Call once, delay_ns from now."""
        self.at(raw_ns() + delay_ns, call)

    def each(self, period_ns: int, call: Callable[[int, int], None]) -> None:
        """Call with a number and its due time, each period, however long the calls take (open loop)."""
        first = raw_ns() + period_ns

        def due(number: int) -> None:
            time_ns = first + number * period_ns
            self.at(first + (number + 1) * period_ns, lambda: due(number + 1))
            call(number, time_ns)

        self.at(first, lambda: due(0))

    def repeat(self, period_ns: int, call: Callable[[], None]) -> None:
        """Call, again and again, period_ns after it has ended."""

        def again() -> None:
            call()
            self.after(period_ns, again)

        self.after(period_ns, again)

    def run(self) -> None:
        """For ever."""
        while True:
            while self._timers and self._timers[0][0] <= raw_ns():
                heapq.heappop(self._timers)[2]()
            wait_s = LONGEST_WAIT_S
            if self._timers:
                wait_s = min(wait_s, max(0.0, (self._timers[0][0] - raw_ns()) / 1e9))
            reading = list(self.wires)
            writing = [wire for wire in reading if wire.wants_to_write]
            readable, writable, _ = select.select(reading, writing, [], wait_s)
            for wire in writable:
                wire.write_more()
            for wire in readable:
                wire.read_more()


class ClientWire:
    """A TCP connection. received: called with what has arrived. closed: called once with the reason when the
    other side has closed it or it has failed; not after close(). A failed connect is told so, too."""

    def __init__(
        self,
        loop: ClientLoop,
        address: tuple[str, int],
        received: Callable[[bytes], None],
        closed: Callable[[str], None],
    ) -> None:
        self._loop, self._received, self._closed = loop, received, closed
        self._out, self.is_open, self._connected = b"", True, False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.wires.add(self)
        self._socket.connect_ex(address)

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        return bool(self._out) or not self._connected

    def send(self, data: bytes) -> None:
        """Send now what the network takes, and the rest when it takes more."""
        if not self.is_open:
            return
        self._out += data
        if self._connected:
            self.write_more()

    def write_more(self) -> None:
        """The network takes something."""
        if not self.is_open:
            return
        if not self._connected:
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._end(OSError(error, "").strerror or "not connected")
                return
            self._connected = True
        if not self._out:
            return
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or "broken")

    def read_more(self) -> None:
        """Something has arrived, or it is closed."""
        if not self.is_open or not self._connected:
            return
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error.strerror or "broken")
            return
        if data:
            self._received(data)
        else:
            self._end("closed by the server")

    def close(self) -> None:
        """Close it from this side."""
        if self.is_open:
            self.is_open = False
            self._loop.wires.discard(self)
            self._socket.close()

    def _end(self, reason: str) -> None:
        self.close()
        self._closed(reason)


class ClientPort:
    """A UDP socket that talks to one address. received: called with each packet. What cannot be sent is
    lost, as any packet may be."""

    wants_to_write = False

    def __init__(self, loop: ClientLoop, address: tuple[str, int], received: Callable[[bytes], None]) -> None:
        self._received = received
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(address)
        loop.wires.add(self)

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Send a packet."""
        with suppress(OSError):
            self._socket.send(data)

    def write_more(self) -> None:
        """Nothing waits."""

    def read_more(self) -> None:
        """A packet has come, or an error of an earlier one."""
        with suppress(OSError):
            self._received(self._socket.recv(_CHUNK))
