"""Numbered packets at a fixed rate, to the guest or from it, looked at in slices of a period.

A request is a slice: it succeeds when packets arrived in it, or upwards receipts for packets. What is wrong
with single packets are events.
"""

from __future__ import annotations

import secrets
import select
from collections import OrderedDict
from itertools import islice

from lab.core.workload.shipped.option_values import bit_rate
from lab.core.workload.shipped.udp_stream import LATE, LOST, PORT, RATES, REORDERED, TWICE
from lab.host.clients.base import (
    ClientArguments,
    arguments,
    datagrams,
    hello,
    print_sample,
    raw_ns,
    udp_socket,
)

GIVE_UP_NS = 1_000_000_000
ASK_NS = 500_000_000
"""How often the guest is told to send: it may be new, or the packet was lost."""

REMEMBERED = 100_000
"""How many packets that were lost are remembered, to know them when they come."""


class PacketWindow:
    """The packets that are waited for, with the time from which on, and those that were lost; by number."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, int] = OrderedDict()
        self._lost: OrderedDict[int, None] = OrderedDict()
        self._highest = -1

    def wait(self, number: int, since: int) -> None:
        """Wait for this packet, whose number is higher than all before."""
        self._waiting[number] = since

    def lost(self, now: int) -> int:
        """How many packets are given up now."""
        count = 0
        while self._waiting:
            number, since = next(iter(self._waiting.items()))
            if since > now - GIVE_UP_NS:
                break
            del self._waiting[number]
            self._lost[number] = None
            count += 1
        while len(self._lost) > REMEMBERED:
            self._lost.popitem(last=False)
        return count

    def arrived(self, number: int, at: int, *, sent_by_us: bool) -> str:
        """What is wrong with a packet that has come; "": nothing. Of the guest's packets only their numbers
        tell which of them are missing."""
        if not sent_by_us:
            for missing in range(self._highest + 1, number + 1):
                self.wait(missing, at)
        early = number > self._highest
        self._highest = max(self._highest, number)
        if self._waiting.pop(number, None) is not None:
            return "" if early else REORDERED
        if number in self._lost:
            del self._lost[number]
            return LATE
        return TWICE


class UdpStreamClient:
    """One socket, in either direction."""

    def __init__(self, name: str, address: str, given: ClientArguments) -> None:
        self._name, self._slice, self._address = name, given.period_ns, (address, PORT)
        self._size, self._down = int(given.options["size"]), given.options["direction"] == "down"
        every = self._size * 8 * 10**9 // bit_rate(given.options, "rate", *RATES)
        self._every = ASK_NS if self._down else every
        self._socket = udp_socket(1 << 22)
        self._window = PacketWindow()
        self._order = b"S %s %d %d" % (secrets.token_hex(4).encode(), every, self._size)
        self._bytes, self._first, self._last, self._stamp = 0, 0, 0, 0
        self._still = False

    def run(self) -> None:
        """Runs until the process is ended."""
        began, turn, number = raw_ns(), 0, 0
        since = began
        while True:
            now, due = raw_ns(), began + turn * self._every
            end = began + (number + 1) * self._slice
            if now >= end:
                self._print(number, end - self._slice, since, now)
                number, since = number + 1, now
            elif now >= due:
                self._send(turn)
                turn += 1
            elif select.select([self._socket], [], [], (min(due, end) - now) / 1e9)[0]:
                self._receive()

    def _send(self, number: int) -> None:
        data = self._order if self._down else (b"%d " % number).ljust(self._size, b"-")
        if not self._down:
            self._window.wait(number, raw_ns())
        try:
            self._socket.sendto(data, self._address)
        except OSError:
            return  # the neighbour does not answer, or the queue is full: it is lost

    def _receive(self) -> None:
        for data in islice(datagrams(self._socket), 256):
            at = raw_ns()
            if self._down:
                number, stamp = data.split(b" ", 2)[:2]
                self._arrived([number], stamp, at)
            else:
                _, stamp, *numbers = data.split()
                self._arrived(numbers, stamp, at)

    def _arrived(self, numbers: list[bytes], stamp: bytes, at: int) -> None:
        for number in numbers:
            word = self._window.arrived(int(number), at, sent_by_us=not self._down)
            if word:
                print_sample(event=word, at=at, by=self._name)
        self._first = self._first or at
        self._last, self._stamp = at, int(stamp)
        self._bytes += len(numbers) * self._size

    def _print(self, number: int, due: int, since: int, now: int) -> None:
        """since: when the slice really began, as the one before was over."""
        for _ in range(self._window.lost(now)):
            print_sample(event=LOST, at=now, by=self._name)
        ok = self._bytes > 0
        done = max(since, self._first if self._still else self._last) if ok else now
        more = {"stamp": self._stamp} if ok else {"error": "no packets"}
        gauge = {"throughput_bit_s": self._bytes * 8_000_000_000 // max(1, now - since)}
        print_sample(seq=number, due=due, sent=since, done=done, ok=ok, by=self._name, gauge=gauge, **more)
        self._still = not ok
        self._bytes, self._first, self._last = 0, 0, 0


def main() -> None:
    given = arguments()
    name, address = next(iter(given.guests.items()))
    hello(given.period_ns)
    UdpStreamClient(name, address, given).run()


if __name__ == "__main__":
    main()
