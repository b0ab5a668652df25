"""Receives RTP (RFC 3550) and plays it out. A request is a slot of the playout, of a packet's length: it
succeeds when its packet came in time.

Packets of another source than before, as of a sender that was started anew, begin another playout.
"""

from __future__ import annotations

import socket
import struct

from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.shipped.rtp import BEHIND, JITTER, LATE, PACKET_NS, PORT, REORDERED, RESTARTED
from lab.host.clients.base import arguments, hello, print_sample, raw_ns
from lab.host.clients.playout import Playout

SLICE_NS = 100_000_000


class SequenceNumbers:
    """Numbers of 16 bits, unwrapped (RFC 3550, A.1), and counted from the first one."""

    def __init__(self, first: int) -> None:
        self._first, self.highest = first, 0

    def unwrap(self, number: int) -> int:
        near = (number - self._first - self.highest + 0x8000) % 0x10000 - 0x8000
        self.highest = max(self.highest, self.highest + near)
        return self.highest + min(near, 0)


class RtpReceiver:
    """Prints a line a slot."""

    def __init__(self, name: str, jitter_ns: int) -> None:
        self._name, self._jitter = name, jitter_ns
        self._source: int | None = None
        self._numbers, self._playout = SequenceNumbers(0), Playout(PACKET_NS, jitter_ns)
        self._base, self._printed = 0, 0
        self._count, self._slice_end = 0, raw_ns() + SLICE_NS

    def receive(self, data: bytes, at: int) -> None:
        """A datagram has come."""
        if len(data) < 12 or data[0] >> 6 != 2:
            return
        _, _, number, _, source = struct.unpack_from(">BBHII", data)
        if source != self._source:
            if self._source is not None:
                self._event(RESTARTED, at)
            self._source, self._base = source, self._printed
            self._numbers, self._playout = SequenceNumbers(number), Playout(PACKET_NS, self._jitter)
        highest = self._numbers.highest
        unwrapped = self._numbers.unwrap(number)
        if unwrapped < highest:
            self._event(REORDERED, at)
        late, behind = self._playout.arrived(unwrapped, at)
        if late:
            self._event(LATE, at)
        if behind:
            self._event(BEHIND, at)
        self._count += 1

    def tick(self, now: int) -> None:
        """Print the slots that are over, and how many packets came in each tenth of a second."""
        for slot in self._playout.over(now):
            ok = slot.at_ns is not None
            done = slot.at_ns if slot.at_ns is not None else slot.due_ns + self._jitter
            due = min(slot.due_ns, done)
            number = self._base + slot.number
            print_sample(
                seq=number,
                due=due,
                sent=due,
                done=done,
                ok=ok,
                error="" if ok else "not there",
                by=self._name,
            )
            self._printed = number + 1
        if now >= self._slice_end:
            if self._source is not None:
                print_sample(gauge={"packets in 100 ms": self._count}, at=now)
            self._count, self._slice_end = 0, max(now, self._slice_end + SLICE_NS)

    def _event(self, name: str, at: int) -> None:
        print_sample(event=name, at=at, by=self._name)


def main() -> None:
    given = arguments()
    name = next(iter(given.guests))
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
    door.bind(("", PORT))
    data = door.recv(4096)
    hello(given.period_ns)  # not before: ffmpeg ended when nobody listened here, and has been started again
    door.settimeout(0.02)
    receiver = RtpReceiver(name, duration_ns(given.options, "jitter", *JITTER))
    while True:
        if data:
            receiver.receive(data, raw_ns())
        receiver.tick(raw_ns())
        try:
            data = door.recv(4096)
        except TimeoutError:
            data = b""


if __name__ == "__main__":
    main()
