"""RESP 2, the protocol of Redis and its Sentinels (redis.io, Redis serialization protocol)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lab.host.clients.base import raw_ns
from lab.host.clients.wire import ClientLoop, ClientWire


@dataclass(frozen=True)
class RespError:
    """An error in place of an answer."""

    text: str


RespValue = str | int | None | RespError | list["RespValue"]


class RespReader:
    """Takes what a server sends apart."""

    def __init__(self, answer: Callable[[RespValue], None]) -> None:
        self._answer, self._rest = answer, b""

    def feed(self, data: bytes) -> None:
        """Take further bytes. ValueError when they are not RESP."""
        self._rest += data
        place = 0
        while (found := self._value(place)) is not None:
            value, place = found
            self._answer(value)
        self._rest = self._rest[place:]

    def _value(self, place: int) -> tuple[RespValue, int] | None:
        """The value that begins at this place, and where it ends; None: it is not complete."""
        end = self._rest.find(b"\r\n", place)
        if end < 0:
            return None
        kind, text, after = self._rest[place : place + 1], self._rest[place + 1 : end].decode(), end + 2
        if kind == b"+":
            return text, after
        if kind == b"-":
            return RespError(text), after
        if kind == b":":
            return int(text), after
        if kind == b"$":
            size = int(text)
            if size < 0:
                return None if len(self._rest) < after else (None, after)
            if len(self._rest) < after + size + 2:
                return None
            return self._rest[after : after + size].decode("utf-8", "replace"), after + size + 2
        if kind != b"*":
            raise ValueError(f"not RESP: {self._rest[place : place + 20]!r}")
        items: list[RespValue] = []
        for _ in range(max(0, int(text))):
            found = self._value(after)
            if found is None:
                return None
            value, after = found
            items.append(value)
        return items, after


@dataclass(frozen=True)
class RespAnswer:
    """An answer, and when it was asked for, host MONOTONIC_RAW."""

    value: RespValue
    asked_ns: int


Answered = Callable[[RespAnswer], None]


class RespClient:
    """A connection to one server, of which the answers come in the order of the commands. closed: called once
    with the reason when it is lost, and with what is not answered. unasked: takes what comes without being
    asked for, as on a subscribed connection."""

    def __init__(
        self,
        loop: ClientLoop,
        address: tuple[str, int],
        closed: Callable[[str], None],
        unasked: Callable[[RespValue], None] | None = None,
    ) -> None:
        self._waiting: deque[tuple[Answered, int]] = deque()
        self._unasked = unasked
        self._wire = ClientWire(loop, address, RespReader(self._take).feed, closed)

    def ask(self, answered: Answered, *words: str | int) -> None:
        """Send a command."""
        parts = [str(word).encode() for word in words]
        data = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._waiting.append((answered, raw_ns()))
        self._wire.send(data)

    @property
    def unanswered(self) -> int:
        """How many commands are not answered."""
        return len(self._waiting)

    def close(self) -> None:
        """Close it from this side."""
        self._wire.close()

    def _take(self, value: RespValue) -> None:
        if self._unasked is not None:
            self._unasked(value)
        elif self._waiting:
            answered, asked = self._waiting.popleft()
            answered(RespAnswer(value, asked))
