"""Publishes an event a period, and consumes the events: each is acknowledged after its work.

The protocol is NATS's own text protocol (docs.nats.io, client protocol). With three servers the publisher is
a client of the second and the consumer one of the third, which are not frozen; the first leads the stream.
A request's stamp is the time at which the stream's leader has stored the event, which comes with its
delivery; so an acknowledged request is printed when it is delivered, or a second after its acknowledgement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.sample import StateValue
from lab.core.workload.shipped.nats import INBOX, MONITOR_PORT, PORT, STREAM, SUBJECT
from lab.core.workload.shipped.option_values import duration_ns
from lab.host.clients.base import ClientArguments, arguments, hello, print_sample, raw_ns
from lab.host.clients.looks import get_json, start_looking
from lab.host.clients.wire import ClientLoop, ClientWire

GIVE_UP_NS = 5 * NS_PER_S
"""After this long without an acknowledgement a request has failed (nats.go's default of MaxWait)."""

STAMP_NS = NS_PER_S
AGAIN_NS = NS_PER_S
LOOK_NS = 250 * NS_PER_MS


@dataclass(frozen=True)
class NatsMessage:
    """A message. status: of its headers, such as 503: nobody listens to the subject; 0: it has none."""

    subject: str
    reply: str
    data: bytes
    status: int = 0


class NatsReader:
    """Takes what a server sends apart. Its other lines, such as PING, are given to `control`."""

    def __init__(self, message: Callable[[NatsMessage], None], control: Callable[[str], None]) -> None:
        self._message, self._control, self._rest = message, control, b""

    def feed(self, data: bytes) -> None:
        """Take further bytes."""
        self._rest += data
        while True:
            line, end, after = self._rest.partition(b"\r\n")
            if not end:
                return
            words = line.decode("utf-8", "replace").split(" ")
            if words[0] not in ("MSG", "HMSG"):
                self._rest = after
                self._control(" ".join(words))
                continue
            size = int(words[-1])
            if len(after) < size + 2:
                return
            body, self._rest = after[:size], after[size + 2 :]
            with_headers = words[0] == "HMSG"
            reply = words[3] if len(words) == (6 if with_headers else 5) else ""
            status = 0
            if with_headers:
                headers, body = body[: int(words[-2])], body[int(words[-2]) :]
                code = headers.split(b"\r\n", 1)[0].split()[1:2]
                status = int(code[0]) if code else 0
            self._message(NatsMessage(words[1], reply, body, status))


class NatsClient:
    """A connection to one server that is made again when it is lost; each loss is an event."""

    def __init__(
        self,
        loop: ClientLoop,
        name: str,
        address: str,
        subject: str,
        message: Callable[[NatsMessage], None],
    ) -> None:
        self._loop, self._name, self._address = loop, name, address
        self._subject, self._message = subject, message
        self.is_ready = False
        self._connect()

    def _connect(self) -> None:
        reader = NatsReader(self._message, self._control)
        self._wire = ClientWire(self._loop, (self._address, PORT), reader.feed, self._lost)

    def _control(self, line: str) -> None:
        word = line.partition(" ")[0].upper()
        if word == "INFO" and not self.is_ready:
            connect = json.dumps({"verbose": False, "headers": True, "no_responders": True})
            self._wire.send(f"CONNECT {connect}\r\nSUB {self._subject} 1\r\n".encode())
            self.is_ready = True
        elif word == "PING":
            self._wire.send(b"PONG\r\n")
        elif word == "-ERR":
            print_sample(event="error", at=raw_ns(), by=self._name)

    def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send a message; reply: the subject of its answer."""
        words = " ".join(word for word in ("PUB", subject, reply, str(len(data))) if word)
        self._wire.send(words.encode() + b"\r\n" + data + b"\r\n")

    def _lost(self, _reason: str) -> None:
        if self.is_ready:
            print_sample(event="disconnected", at=raw_ns(), by=self._name)
        self.is_ready = False
        self._loop.after(AGAIN_NS, self._connect)


@dataclass
class _Publication:
    """An event that was published. acknowledged_ns: host MONOTONIC_RAW; 0: not yet."""

    due_ns: int
    sent_ns: int
    acknowledged_ns: int = 0


class EventsClient:
    """The publisher and the consumer."""

    def __init__(self, given: ClientArguments) -> None:
        self._period = given.period_ns
        self._work_ns = duration_ns(given.options, "work")
        self._loop = ClientLoop()
        self._run = os.urandom(6).hex()  # a stream keeps the events of earlier clients
        self._waiting: dict[int, _Publication] = {}
        self._stored: dict[int, int] = {}
        servers = list(given.guests.items())
        publishes, consumes = servers[1 % len(servers)], servers[2 % len(servers)]
        self._publisher = NatsClient(self._loop, *publishes, f"{self._run}.*", self._acknowledged)
        self._consumer = NatsClient(self._loop, *consumes, INBOX, self._delivered)
        for name, address in servers:
            start_looking(name, partial(look, name, address), LOOK_NS)

    def run(self) -> None:
        self._loop.each(self._period, self._publish)
        self._loop.run()

    def _publish(self, number: int, due_ns: int) -> None:
        sent = raw_ns()
        if not self._publisher.is_ready:
            print_sample(seq=number, due=due_ns, sent=sent, done=sent, ok=False, error="not connected")
            return
        self._waiting[number] = _Publication(due_ns, sent)
        self._publisher.publish(SUBJECT, f"{self._run} {number}".encode(), f"{self._run}.{number}")
        self._loop.at(sent + GIVE_UP_NS, lambda: self._failed(number, "no acknowledgement"))

    def _failed(self, number: int, why: str) -> None:
        one = self._waiting.get(number)
        if one is not None and not one.acknowledged_ns:
            del self._waiting[number]
            self._stored.pop(number, None)
            print_sample(seq=number, due=one.due_ns, sent=one.sent_ns, done=raw_ns(), ok=False, error=why)

    def _acknowledged(self, message: NatsMessage) -> None:
        number = int(message.subject.rpartition(".")[2])
        one = self._waiting.get(number)
        if one is None:
            return  # it had been given up
        if message.status:
            self._failed(number, f"status {message.status}")
            return
        answer = json.loads(message.data)
        if "error" in answer:
            self._failed(number, str(answer["error"].get("description", "refused")))
            return
        one.acknowledged_ns = raw_ns()
        if number in self._stored:
            self._succeeded(number)
        else:
            self._loop.after(STAMP_NS, lambda: self._succeeded(number))

    def _succeeded(self, number: int) -> None:
        one = self._waiting.pop(number, None)
        if one is None:
            return
        stamp = self._stored.pop(number, None)
        print_sample(
            seq=number, due=one.due_ns, sent=one.sent_ns, done=one.acknowledged_ns, ok=True, stamp=stamp
        )

    def _delivered(self, message: NatsMessage) -> None:
        at = raw_ns()
        run, _, number = message.data.decode("utf-8", "replace").partition(" ")
        mine = run == self._run
        self._loop.at(
            at + (self._work_ns if mine else 0), lambda: self._consumer.publish(message.reply, b"+ACK")
        )
        if not mine:
            return
        seq = int(number)
        print_sample(got=seq, at=at, by="consumer")
        one, stamp = self._waiting.get(seq), stored_ns(message.reply)
        if one is not None and stamp is not None:
            self._stored[seq] = stamp
            if one.acknowledged_ns:
                self._succeeded(seq)


def stored_ns(reply: str) -> int | None:
    """When the message was stored, CLOCK_REALTIME of the stream's leader, from a delivery's reply subject:
    $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.SEQUENCE.TIME.PENDING, or with domain and account before the
    stream (ADR-15). None: it is no such subject."""
    words = reply.split(".")
    place = {9: 7, 11: 9, 12: 9}.get(len(words))
    return int(words[place]) if place is not None and words[place].isdigit() else None


def look(name: str, address: str) -> Mapping[str, StateValue] | None:
    """Who leads the stream, according to one server."""
    answer = get_json(f"http://{address}:{MONITOR_PORT}/jsz?streams=1")
    return stream_state(answer, name)


def stream_state(answer: Mapping[str, Any], name: str) -> Mapping[str, StateValue] | None:
    """The stream's leader in /jsz as the server `name` answered it; None: it does not know the stream."""
    for account in answer.get("account_details") or ():
        for stream in account.get("stream_detail") or ():
            if stream.get("name") == STREAM:
                leader = (stream.get("cluster") or {"leader": name}).get("leader")
                return {"leader": leader or None, "leads": leader == name}
    return None


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    EventsClient(given).run()


if __name__ == "__main__":
    main()
