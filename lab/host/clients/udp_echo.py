"""Sends a packet a period to the last guest and reads the echoes. An echo carries the guest's REALTIME."""

from __future__ import annotations

import select

from lab.core.workload.shipped.echo import PORT
from lab.host.clients.base import arguments, datagrams, expired, hello, print_sample, raw_ns, udp_socket

GIVE_UP_NS = 1_000_000_000
"""After this long a packet without an echo is lost: the network loses nothing that it delays that long."""


class EchoClient:
    """One socket. waiting: by number, when a packet was due and sent; in order of both."""

    def __init__(self, name: str, address: str, period_ns: int) -> None:
        self._name, self._period = name, period_ns
        self._socket = udp_socket()
        self._address = (address, PORT)
        self._waiting: dict[int, tuple[int, int]] = {}

    def run(self) -> None:
        first, number = raw_ns() + self._period, 0
        while True:
            now = raw_ns()
            due = first + number * self._period
            if now >= due:
                self._send(number, due)
                number += 1
                continue
            self._expire(now)
            wait_ns = min(due - now, self._period)
            if select.select([self._socket], [], [], wait_ns / 1e9)[0]:
                self._receive()

    def _send(self, number: int, due: int) -> None:
        sent = raw_ns()
        try:
            self._socket.sendto(b"%d" % number, self._address)
        except OSError as error:  # the neighbour does not answer, or the queue is full
            print_sample(
                seq=number, due=due, sent=sent, done=raw_ns(), ok=False, error=error.strerror or "no way"
            )
            return
        self._waiting[number] = (due, sent)

    def _receive(self) -> None:
        for data in datagrams(self._socket):
            done = raw_ns()
            number, _, stamp = data.partition(b" ")
            asked = self._waiting.pop(int(number), None)
            if asked is not None:
                due, sent = asked
                print_sample(
                    seq=int(number), due=due, sent=sent, done=done, ok=True, by=self._name, stamp=int(stamp)
                )

    def _expire(self, now: int) -> None:
        for number, due, sent in expired(self._waiting, now - GIVE_UP_NS):
            print_sample(seq=number, due=due, sent=sent, done=now, ok=False, error="no echo")


def main() -> None:
    given = arguments()
    name, address = list(given.guests.items())[-1]
    hello(given.period_ns)
    EchoClient(name, address, given.period_ns).run()


if __name__ == "__main__":
    main()
