"""A relay in front of an NTP server that injects a fault for a while: answers are dropped, delayed, or say
that the server is not synchronised.

At other times packets pass unchanged. An answer is matched to its query by its origin timestamp, which is the
query's transmit timestamp (RFC 5905, figure 8), so clients may change their ports.
"""

from __future__ import annotations

import heapq
import os
import selectors
import socket
import threading
from collections import OrderedDict
from contextlib import suppress
from types import TracebackType
from typing import Any

from lab.core.plan import TimeFault, TimeFaultKind
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.ports import Clock
from lab.threads import Worker

MOST_WAITING = 1024
"""The most queries that wait for an answer; beyond it the oldest is dropped."""

_LARGEST = 2048
_ORIGIN, _TRANSMIT = slice(24, 32), slice(40, 48)
_HEAD = 48
_UNSYNCHRONISED = 3 << 6
STOP_S = 5.0


class NtpRelay:
    """A context manager: inside the `with` block it answers on `address`:`port` as the server does.

    server: address and port of the real server. fault: the fault between begin() and the time that end_in()
    sets. spoilt: the number of answers dropped, delayed or changed.
    """

    def __init__(self, server: tuple[str, int], fault: TimeFault, clock: Clock) -> None:
        self.address, self.port = server[0], 0
        self.fault, self.spoilt = fault, 0
        self._server, self._clock = server, clock
        self._until_raw_ns: int | None = 0  # None: until end_in()
        self._waiting: OrderedDict[bytes, Any] = OrderedDict()
        self._late: list[tuple[int, int, bytes, Any]] = []
        self._closing = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> NtpRelay:
        """Start the relay. MachineError when no port is available."""
        self._door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._wake, self._waker = os.pipe()
        try:
            self._door.bind((self.address, 0))
            self._upstream.connect(self._server)
        except OSError as error:
            self._close()
            raise MachineError(
                f"the relay cannot be started: {error.strerror}", where=self.address
            ) from error
        self._door.setblocking(False)
        self._upstream.setblocking(False)
        self.port = int(self._door.getsockname()[1])
        self._thread = Worker(target=self._run, name="ntp-relay", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        os.write(self._waker, b".")
        if self._thread is not None:
            self._thread.join(STOP_S)
        self._close()

    def begin(self) -> None:
        """Begin the fault. It lasts until the time that end_in() sets."""
        self._until_raw_ns = None

    def end_in(self, ns: int) -> None:
        """End the fault `ns` nanoseconds from now."""
        self._until_raw_ns = self._clock.now().raw_ns + ns

    @property
    def active(self) -> bool:
        until = self._until_raw_ns
        return until is None or self._clock.now().raw_ns < until

    def _close(self) -> None:
        self._door.close()
        self._upstream.close()
        os.close(self._wake)
        os.close(self._waker)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for readable in (self._door, self._upstream, self._wake):
                selector.register(readable, selectors.EVENT_READ)
            while not self._closing:
                now = self._clock.now().raw_ns
                wait_s = max(0, self._late[0][0] - now) / NS_PER_S if self._late else None
                ready = {key.fileobj for key, _ in selector.select(wait_s)}
                if self._door in ready:
                    self._asked()
                if self._upstream in ready:
                    self._answered()
                while self._late and self._late[0][0] <= self._clock.now().raw_ns:
                    _, _, packet, client = heapq.heappop(self._late)
                    self._send(packet, client)

    def _asked(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            packet, client = self._door.recvfrom(_LARGEST)
            self._waiting[packet[_TRANSMIT]] = client
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)
            self._upstream.send(packet)

    def _answered(self) -> None:
        try:
            packet = self._upstream.recv(_LARGEST)
        except (BlockingIOError, ConnectionError):  # the server is gone
            return
        client = self._waiting.pop(packet[_ORIGIN], None)
        if client is None or len(packet) < _HEAD:
            return
        if not self.active:
            self._send(packet, client)
            return
        self.spoilt += 1
        if self.fault.kind is TimeFaultKind.LATE:
            due = self._clock.now().raw_ns + self.fault.late_ns
            heapq.heappush(self._late, (due, self.spoilt, packet, client))
        elif self.fault.kind is TimeFaultKind.UNSYNCHRONISED:
            # RFC 5905, figures 9 and 11: the leap indicator is 3, and stratum 16 is 0 on the wire.
            head = bytes([packet[0] | _UNSYNCHRONISED, 0])
            self._send(head + packet[2:12] + bytes(4) + packet[16:], client)

    def _send(self, packet: bytes, client: Any) -> None:
        with suppress(BlockingIOError, ConnectionError):
            self._door.sendto(packet, client)
