"""Writes a number a period to the primary that the Sentinels name.

With the option client=stays it keeps its connection as long as it is open, as redis-py does by default, and
moves when the server turns out to be read-only. With client=follows it moves at a Sentinel's +switch-master,
and when nothing is answered for 2 s, as Jedis does by default.

A write counts as delivered once both servers have it. All that Sentinels publish is an event.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.shipped.redis_sentinel import FOLLOWS, MASTER, NAMES, PORT, SENTINEL_PORT
from lab.host.clients.base import ClientArguments, arguments, hello, print_sample, raw_ns
from lab.host.clients.resp import RespAnswer, RespClient, RespError, RespValue
from lab.host.clients.wire import ClientLoop

PATIENCE_NS = 2 * NS_PER_S
"""Jedis's default of its socket timeout."""

GIVE_UP_NS = 60 * NS_PER_S
"""After this long a request has failed for a client that stays (Lettuce's default of its command timeout)."""

LOOK_NS = 250 * NS_PER_MS
CHECK_NS = 500 * NS_PER_MS
FRESH_NS = NS_PER_S
AGAIN_NS = 500 * NS_PER_MS
MOST_UNSURE = 4000
_SERVERS = NAMES[:2]


class ReconnectingClient:
    """A connection to a server of a guest that is made again when it is lost. opened: called with it then."""

    def __init__(
        self,
        loop: ClientLoop,
        address: tuple[str, int],
        opened: Callable[[RespClient], None] | None = None,
        unasked: Callable[[RespValue], None] | None = None,
    ) -> None:
        self._loop, self._address, self._opened, self._unasked = loop, address, opened, unasked
        self._open()

    def _open(self) -> None:
        self.client = RespClient(self._loop, self._address, self._lost, self._unasked)
        if self._opened is not None:
            self._opened(self.client)

    def _lost(self, _reason: str) -> None:
        self._loop.after(AGAIN_NS, self._open)


@dataclass(frozen=True)
class _Write:
    """A write that is not answered."""

    due_ns: int
    sent_ns: int


class PrimaryWriter:
    """Writes to the primary that the Sentinels name. unsure: what was acknowledged, and is not yet known to
    be on both servers."""

    def __init__(self, loop: ClientLoop, given: ClientArguments, key: str) -> None:
        self._loop, self._addresses, self._key = loop, given.guests, key
        self._follows = given.options["client"] == FOLLOWS
        self._client: RespClient | None = None
        self._waiting: dict[int, _Write] = {}
        self._at = self._primary = ""
        self._epoch = 0
        self.unsure: set[int] = set()

    @property
    def knows_primary(self) -> bool:
        return bool(self._primary)

    def write(self, number: int, due_ns: int) -> None:
        """Write a number, and report what becomes of it."""
        if self._client is None:
            self._connect()
        sent = raw_ns()
        if self._client is None:
            print_sample(seq=number, due=due_ns, sent=sent, done=sent, ok=False, error="no primary")
            return
        self._waiting[number] = _Write(due_ns, sent)
        self._client.ask(partial(self._answered, number, self._at), "ZADD", self._key, number, number)
        limit = PATIENCE_NS if self._follows else GIVE_UP_NS
        self._loop.at(sent + limit, partial(self._expired, number))

    def named(self, primary: str, epoch: int) -> None:
        """A Sentinel names the primary of an epoch. One that was frozen names that of an earlier epoch."""
        if primary and epoch >= self._epoch:
            self._primary, self._epoch = primary, epoch

    def switched(self, primary: str) -> None:
        """A Sentinel has told of another primary."""
        self._primary = primary or self._primary
        if self._follows and self._primary != self._at:
            self._drop("moved")

    def _connect(self) -> None:
        if self._primary:
            self._at = self._primary
            self._client = RespClient(self._loop, (self._addresses[self._at], PORT), self._drop)

    def _answered(self, number: int, by: str, answer: RespAnswer) -> None:
        one = self._waiting.pop(number, None)
        if one is None:
            return  # it had been given up
        value = answer.value
        refused = isinstance(value, RespError)
        why = value.text.partition(" ")[0] if isinstance(value, RespError) else ""
        print_sample(
            seq=number, due=one.due_ns, sent=one.sent_ns, done=raw_ns(), ok=not refused, error=why, by=by
        )
        if refused:
            self._drop(why)
        else:
            self.unsure.add(number)

    def _expired(self, number: int) -> None:
        if number in self._waiting:
            if self._follows:
                self._drop("timed out")
            else:
                self._failed(number, "timed out")

    def _failed(self, number: int, why: str) -> None:
        one = self._waiting.pop(number)
        print_sample(seq=number, due=one.due_ns, sent=one.sent_ns, done=raw_ns(), ok=False, error=why)

    def _drop(self, why: str) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        for number in list(self._waiting):
            self._failed(number, why)


class SentinelWatch:
    """What one Sentinel publishes, and what it says when asked."""

    def __init__(self, loop: ClientLoop, name: str, given: ClientArguments, writer: PrimaryWriter) -> None:
        self._name, self._writer = name, writer
        self._names = {address: guest for guest, address in given.guests.items()}
        address = (given.guests[name], SENTINEL_PORT)
        self._asked = ReconnectingClient(loop, address)
        ReconnectingClient(
            loop, address, lambda client: client.ask(_nothing, "PSUBSCRIBE", "*"), self._published
        )
        loop.repeat(LOOK_NS, self._look)

    def _look(self) -> None:
        if not self._asked.client.unanswered:
            self._asked.client.ask(self._told, "SENTINEL", "MASTER", MASTER)

    def _told(self, answer: RespAnswer) -> None:
        done, value = raw_ns(), answer.value
        if not isinstance(value, list) or done - answer.asked_ns > FRESH_NS:
            return
        words = dict(zip(value[::2], value[1::2], strict=False))
        name = self._names.get(str(words.get("ip")), "")
        self._writer.named(name, int(str(words.get("config-epoch", 0))))
        print_sample(state={"master": name or None}, sent=answer.asked_ns, done=done, by=self._name)

    def _published(self, value: RespValue) -> None:
        if isinstance(value, list) and len(value) == 4 and value[0] == "pmessage":
            print_sample(event=str(value[2]), at=raw_ns(), by=self._name)
            if value[2] == "+switch-master":
                self._writer.switched(self._names.get(str(value[3]).split()[3], ""))


class ServerWatch:
    """A server's role, and what it has of the numbers that were written."""

    def __init__(self, loop: ClientLoop, name: str, address: str, key: str, writer: PrimaryWriter) -> None:
        self._name, self._key, self._writer = name, key, writer
        self._asked, self._checked = (ReconnectingClient(loop, (address, PORT)) for _ in range(2))
        self.has: set[int] = set()
        loop.repeat(LOOK_NS, self._look)
        loop.repeat(CHECK_NS, self._check)

    def _look(self) -> None:
        if not self._asked.client.unanswered:
            self._asked.client.ask(self._told, "ROLE")

    def _told(self, answer: RespAnswer) -> None:
        done, value, asked = raw_ns(), answer.value, answer.asked_ns
        if isinstance(value, list) and done - asked <= FRESH_NS:
            print_sample(state={"primary": value[0] == "master"}, sent=asked, done=done, by=self._name)

    def _check(self) -> None:
        unsure = self._writer.unsure
        if unsure and not self._checked.client.unanswered:
            lowest = max(min(unsure), max(unsure) - MOST_UNSURE)
            self._checked.client.ask(self._shown, "ZRANGEBYSCORE", self._key, lowest, "+inf")

    def _shown(self, answer: RespAnswer) -> None:
        if isinstance(answer.value, list):
            self.has = {int(str(item)) for item in answer.value}


def _nothing(_answer: RespAnswer) -> None:
    """Of what has no answer of its own."""


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    loop, key = ClientLoop(), f"numbers:{os.urandom(6).hex()}"
    writer = PrimaryWriter(loop, given, key)
    servers = [ServerWatch(loop, name, given.guests[name], key, writer) for name in _SERVERS]
    for name in given.guests:
        SentinelWatch(loop, name, given, writer)

    def deliver() -> None:
        both = writer.unsure & servers[0].has & servers[1].has
        writer.unsure -= both
        for written in sorted(both):
            print_sample(got=written, at=raw_ns(), by="both")

    loop.repeat(CHECK_NS, deliver)

    def begin() -> None:
        if writer.knows_primary:
            loop.each(given.period_ns, writer.write)
        else:
            loop.after(LOOK_NS, begin)

    begin()
    loop.run()


if __name__ == "__main__":
    main()
