"""Asks each guest a period, checks the token in its answer, and reports all that the guest has dated.

A log line is reported when it is read back from the guest's journal; it was written while its request was
answered. Answers of a guest that is not frozen are no requests: it is there for its log.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from functools import partial
from typing import Any

from lab.core.units import NS_PER_S, NS_PER_US
from lab.core.workload.shipped.timestamps import KEY, PORT
from lab.host.clients.base import arguments, hello, print_sample, raw_ns
from lab.host.clients.wire import ClientLoop, ClientPort

GIVE_UP_NS = 30 * NS_PER_S
"""So that answers to what waits for a frozen guest are among what it has dated."""

KEPT = 2_000
"""Requests whose answers and log lines are awaited."""


class NoToken(ValueError):
    """A text that is no token of the guest's."""


def claims_of(token: str) -> tuple[int, int]:
    """iat and exp of a token (RFC 7519, signed by HS256), in ns. NoToken."""
    text, _, signature = token.rpartition(".")
    right = base64.urlsafe_b64encode(hmac.digest(KEY, text.encode(), "sha256")).rstrip(b"=").decode()
    if not hmac.compare_digest(right, signature):
        raise NoToken("its signature is wrong")
    try:
        body = text.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return claims["iat"] * NS_PER_S, claims["exp"] * NS_PER_S
    except (IndexError, KeyError, ValueError, TypeError, binascii.Error) as error:
        raise NoToken(f"its claims cannot be read: {error}") from None


class StampedGuest:
    """One guest. counts: its answers are requests. waiting: by number, when a request was due and sent, until
    it is over; asked: when the last ones were sent, and done, once that is known."""

    def __init__(self, loop: ClientLoop, name: str, address: str, *, counts: bool) -> None:
        self._loop, self._name, self._counts = loop, name, counts
        self._waiting: dict[int, tuple[int, int]] = {}
        self._asked: dict[int, tuple[int, int | None]] = {}
        self._have = 0
        self._port = ClientPort(loop, (address, PORT), self._answered)

    def ask(self, number: int, due_ns: int) -> None:
        """Send a request."""
        sent = raw_ns()
        self._waiting[number], self._asked[number] = (due_ns, sent), (sent, None)
        if len(self._asked) > KEPT:
            del self._asked[next(iter(self._asked))]
        self._port.send(json.dumps({"number": number, "have": self._have}).encode())
        self._loop.after(GIVE_UP_NS, partial(self._expired, number))

    def _expired(self, number: int) -> None:
        if number in self._waiting:
            self._over(number, raw_ns(), ok=False, error="no answer")

    def _over(self, number: int, done: int, **result: Any) -> None:
        due, sent = self._waiting.pop(number)
        if self._counts:
            print_sample(seq=number, due=due, sent=sent, done=done, by=self._name, **result)

    def _answered(self, data: bytes) -> None:
        done, answer = raw_ns(), json.loads(data)
        number = answer["number"]
        if number not in self._asked:
            return
        sent = self._asked[number][0]
        self._asked[number] = sent, done
        if number in self._waiting:
            self._over(number, done, ok=True, stamp=answer["now"])
        try:
            issued, until = claims_of(answer["token"])
            self._stamped("token", issued, sent, done, until=until, unit_ns=NS_PER_S)
        except NoToken:
            print_sample(event="bad token", at=done, by=self._name)
        self._stamped("file write", answer["mtime"], sent, done)
        new = answer["lines"][max(0, self._have - answer["have"]) :]
        self._have += len(new)
        for handled, at_us in new:
            if handled in self._asked:
                asked = self._asked[handled]
                self._stamped("log line", at_us * NS_PER_US, asked[0], asked[1] or done, unit_ns=NS_PER_US)

    def _stamped(self, what: str, stamp: int, sent: int, done: int, **more: int) -> None:
        print_sample(stamped=what, stamp=stamp, sent=sent, done=done, by=self._name, **more)


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    loop = ClientLoop()
    for place, (name, address) in enumerate(given.guests.items()):
        loop.each(given.period_ns, StampedGuest(loop, name, address, counts=place == 0).ask)
    loop.run()


if __name__ == "__main__":
    main()
