"""Asks the state servers of guests (lab.core.workload.shipped.state_server), all by one socket that never
blocks."""

from __future__ import annotations

import json
import select
from collections.abc import Mapping
from typing import Any

from lab.core.workload.shipped.state_server import PORT
from lab.host.clients.base import datagrams, expired, print_sample, raw_ns, udp_socket

GIVE_UP_NS = 1_000_000_000
"""After this long a request without an answer has failed."""


class StatePoller:
    """Asks each guest for its state, and one address whether it serves.

    guests: addresses by name. served: the address whose answers are the requests: they carry the guest's time
    and who answered. shares: the name of a value that this answer shows, such as holder; "": none.
    """

    def __init__(
        self, guests: Mapping[str, str], served: str, period_ns: int, every_ns: int, shares: str = ""
    ) -> None:
        self._guests, self._served, self._shares = dict(guests), served, shares
        self._period_ns, self._every_ns = period_ns, every_ns
        self._socket = udp_socket()
        self._waiting: dict[int, tuple[int, int]] = {}
        self._looks: dict[str, int] = {}
        self._asked = 0
        self._counts: dict[tuple[str, str], int] = {}

    def run(self) -> None:
        """For ever."""
        first, number, looked = raw_ns() + self._period_ns, 0, 0
        while True:
            now = raw_ns()
            due, look = first + number * self._period_ns, first + looked * self._every_ns
            if now >= due:
                self._request(number, due)
                number += 1
            elif now >= look:
                self._look()
                looked += 1
            else:
                self._expire(now)
                if select.select([self._socket], [], [], (min(due, look) - now) / 1e9)[0]:
                    self._receive()

    def _send(self, text: str, address: str) -> str:
        """Why it cannot be sent; ""."""
        try:
            self._socket.sendto(text.encode(), (address, PORT))
        except OSError as error:  # the neighbour does not answer, or the queue is full
            return error.strerror or "not sent"
        return ""

    def _request(self, number: int, due: int) -> None:
        sent = raw_ns()
        if why := self._send(f"r {number}", self._served):
            print_sample(seq=number, due=due, sent=sent, done=raw_ns(), ok=False, error=why)
        else:
            self._waiting[number] = (due, sent)

    def _look(self) -> None:
        for name, address in self._guests.items():
            self._asked += 1
            self._looks[f"l {name} {self._asked}"] = raw_ns()
            self._send(f"l {name} {self._asked}", address)

    def _receive(self) -> None:
        for data in datagrams(self._socket):
            done = raw_ns()
            try:
                answer = json.loads(data)
            except ValueError:
                continue
            self._answered(answer, done)

    def _answered(self, answer: Mapping[str, Any], done: int) -> None:
        kind, _, rest = str(answer["q"]).partition(" ")
        if kind == "l":
            sent = self._looks.pop(str(answer["q"]), None)
            if sent is not None:
                self._looked(answer["s"], sent, done, rest.partition(" ")[0])
            return
        asked = self._waiting.pop(int(rest), None)
        if asked is None:
            return
        due, sent = asked
        by = str(answer["n"])
        print_sample(seq=int(rest), due=due, sent=sent, done=done, ok=True, by=by, stamp=answer["t"])
        if self._shares:
            print_sample(state={self._shares: by}, sent=sent, done=done)

    def _looked(self, state: dict[str, Any], sent: int, done: int, by: str) -> None:
        """A look; its member `events` has numbers by name, and each that has risen is an event."""
        for name, count in state.pop("events", {}).items():
            before = self._counts.setdefault((by, name), count)
            self._counts[by, name] = count
            for _ in range(count - before):
                print_sample(event=name, at=done, by=by)
        print_sample(state=state, sent=sent, done=done, by=by)

    def _expire(self, now: int) -> None:
        for number, due, sent in expired(self._waiting, now - GIVE_UP_NS):
            print_sample(seq=number, due=due, sent=sent, done=now, ok=False, error="no answer")
        while self._looks:
            name, sent = next(iter(self._looks.items()))
            if sent > now - GIVE_UP_NS:
                break
            del self._looks[name]
