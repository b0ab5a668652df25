"""Sends JPEG pictures at a fixed rate, and receives H.264 (ITU-T H.264, annex B). A request is a picture.

It is done when its frame begins to come back, and has failed when that is later than allowed. As a frame goes
in it comes out, in the same order, so the frames are counted by their access unit delimiters.
"""

from __future__ import annotations

import select
import socket
import sys
from collections import deque
from collections.abc import Iterator

from lab.core.units import NS_PER_S
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.shipped.transcoding import ENDED, LATE, PORT, SOURCE_PORT
from lab.host.clients.base import arguments, hello, print_sample, raw_ns

CONNECT_S = 10.0
STARTS_NS = 25 * NS_PER_S
"""ffmpeg starts slowly under emulation; then the frames of that time are made up for. The lab waits for 30 s
for the first line."""

DELIMITER = b"\x00\x00\x01\x09"
_END, _BEGIN = b"\xff\xd9", b"\xff\xd8"


def pictures(stream: bytes) -> list[bytes]:
    """The pictures of a stream of JPEG: their data never has an end marker (ITU-T T.81, B.1.1.5)."""
    parts = stream.split(_END + _BEGIN)
    if not stream.startswith(_BEGIN) or len(parts) < 2:
        raise ValueError("no stream of JPEG pictures")
    return [
        (b"" if number == 0 else _BEGIN) + part + (b"" if number == len(parts) - 1 else _END)
        for number, part in enumerate(parts)
    ]


class FrameCounter:
    """Counts frames in a stream that comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> int:
        """How many frames begin in this piece."""
        joined = self._rest + data
        count = joined.count(DELIMITER)
        # Less than a delimiter is kept, so none counts twice.
        self._rest = joined[-(len(DELIMITER) - 1) :]
        return count


class Transcoder:
    """The connection. waiting: numbers, due and sent times of the pictures under way, in order."""

    def __init__(self, name: str, address: str, period_ns: int, late_ns: int) -> None:
        self._name, self._period, self._late = name, period_ns, late_ns
        self._pictures = _fetch(address)
        self._socket = socket.create_connection((address, PORT), CONNECT_S)
        self._socket.setblocking(False)
        self._counter, self._unsent = FrameCounter(), bytearray()
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._counts = False
        self._began = raw_ns()

    def run(self) -> None:
        """Runs until the transcoder or this process ends."""
        for number, due in self._turns():
            self._waiting.append((number, due, raw_ns()))
            self._unsent += self._pictures[number % len(self._pictures)]
            self._write()
            if not self._counts and raw_ns() > self._began + STARTS_NS:
                self._start()
            if self._counts:
                print_sample(gauge={"frames under way": len(self._waiting)}, at=raw_ns())

    def _turns(self) -> Iterator[tuple[int, int]]:
        """Numbers and due times; between them what comes is read."""
        number = 0
        while True:
            due = self._began + number * self._period
            while (left := due - raw_ns()) > 0:
                writing = [self._socket] if self._unsent else []
                ready, writers, _ = select.select([self._socket], writing, [], left / 1e9)
                if ready:
                    self._read()
                if writers:
                    self._write()
            yield number, due
            number += 1

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError as error:
            self._ended(error.strerror or "closed")

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError as error:
            self._ended(error.strerror or "closed")
        if not data:
            self._ended("ffmpeg has ended")
        now = raw_ns()
        for _ in range(self._counter.feed(data)):
            if not self._waiting:
                self._ended("more frames than pictures")
            number, due, sent = self._waiting.popleft()
            late = now - due > self._late
            if not self._counts and not late:
                self._start()
            if self._counts:
                self._print(number, due, sent, now, "late" if late else "")

    def _print(self, number: int, due: int, sent: int, now: int, error: str) -> None:
        print_sample(seq=number, due=due, sent=sent, done=now, ok=not error, error=error, by=self._name)

    def _start(self) -> None:
        self._counts = True
        hello(self._period)

    def _ended(self, why: str) -> None:
        if not self._counts:
            sys.exit(f"the transcoder: {why}")
        now = raw_ns()
        print_sample(event=ENDED, at=now, by=self._name)
        for number, due, sent in self._waiting:
            self._print(number, due, sent, now, why)
        sys.exit(f"the transcoder: {why}")


def _fetch(address: str) -> list[bytes]:
    """The pictures, which ffmpeg in the guest has made."""
    parts = []
    with socket.create_connection((address, SOURCE_PORT), CONNECT_S) as connection:
        while data := connection.recv(1 << 16):
            parts.append(data)
    return pictures(b"".join(parts))


def main() -> None:
    given = arguments()
    name, address = next(iter(given.guests.items()))
    try:
        Transcoder(name, address, given.period_ns, duration_ns(given.options, "late", *LATE)).run()
    except OSError as error:
        sys.exit(error.strerror or str(error))


if __name__ == "__main__":
    main()
