"""A publisher and a subscriber of QoS 1, idle clients, and a watcher of all wills.

The publisher has at most 20 messages on their way, as paho has it; further ones wait for their turn. A
request's latency counts from when it was due.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial

from lab.core.units import NS_PER_S
from lab.core.workload.shipped.mosquitto import IDLE, PORT, keepalive_ns
from lab.host.clients.base import ClientArguments, arguments, hello, print_sample, raw_ns
from lab.host.clients.mqtt import MqttClient, MqttEvents, MqttIdentity, MqttMessage
from lab.host.clients.wire import ClientLoop

MOST_IN_FLIGHT = 20
GIVE_UP_NS = 60 * NS_PER_S
"""After this long without an acknowledgement a request has failed. A client of MQTT itself waits for ever."""


class ReportedEnds(MqttEvents):
    """Reports how a client's connection ends: dropped: by the broker; gave up: by the client itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def ended(self, *, by_broker: bool) -> None:
        print_sample(event="dropped" if by_broker else "gave up", at=raw_ns(), by=self._name)


class WillWatcher(ReportedEnds):
    """Reports the wills that are published."""

    def message(self, message: MqttMessage) -> None:
        print_sample(event="will", at=raw_ns(), by=message.topic.rpartition("/")[2])


class NumberSubscriber(ReportedEnds):
    """Reports the numbers that arrive."""

    def message(self, message: MqttMessage) -> None:
        print_sample(got=int(message.data), at=raw_ns(), by=self._name)


class NumberPublisher(ReportedEnds):
    """Publishes numbers. client: set once it is there."""

    client: MqttClient

    def __init__(self, name: str, topic: str) -> None:
        super().__init__(name)
        self._topic = topic
        self._due: deque[tuple[int, int]] = deque()
        self._waiting: dict[int, tuple[int, int, int]] = {}

    def due(self, number: int, due_ns: int) -> None:
        """A number is due."""
        self._due.append((number, due_ns))
        self._go_on()

    def ready(self) -> None:
        self._go_on()

    def acknowledged(self, number: int) -> None:
        seq, due, sent = self._waiting.pop(number)
        done = raw_ns()
        ok = done - due < GIVE_UP_NS
        print_sample(seq=seq, due=due, sent=sent, done=done, ok=ok, error="" if ok else "too late")
        self._go_on()

    def _go_on(self) -> None:
        while self._due and self.client.is_ready and self.client.in_flight < MOST_IN_FLIGHT:
            seq, due = self._due.popleft()
            sent = raw_ns()
            self._waiting[self.client.publish(self._topic, b"%d" % seq)] = (seq, due, sent)


def start(loop: ClientLoop, given: ClientArguments) -> None:
    """Start all clients."""
    ((_, address),) = given.guests.items()
    broker, run = (address, PORT), os.urandom(4).hex()
    keepalive = keepalive_ns(given.options) // NS_PER_S

    def identity(name: str, *, persistent: bool = False) -> MqttIdentity:
        return MqttIdentity(f"{name}-{run}", keepalive, (f"wills/{run}/{name}", b""), persistent)

    MqttClient(loop, broker, MqttIdentity(f"watcher-{run}", 0), WillWatcher("watcher"), (f"wills/{run}/+",))
    topic = f"numbers/{run}"
    MqttClient(
        loop, broker, identity("subscriber", persistent=True), NumberSubscriber("subscriber"), (topic,)
    )
    publisher = NumberPublisher("publisher", topic)
    publisher.client = MqttClient(loop, broker, identity("publisher", persistent=True), publisher)
    for number in range(IDLE):
        name = f"idle-{number}"
        begin = partial(_start_idle, loop, broker, identity(name), name)
        loop.after(number * keepalive * NS_PER_S // IDLE, begin)
    loop.after(NS_PER_S, lambda: loop.each(given.period_ns, publisher.due))


def _start_idle(loop: ClientLoop, broker: tuple[str, int], identity: MqttIdentity, name: str) -> None:
    MqttClient(loop, broker, identity, ReportedEnds(name))


def main() -> None:
    given = arguments()
    hello(given.period_ns)
    loop = ClientLoop()
    start(loop, given)
    loop.run()


if __name__ == "__main__":
    main()
