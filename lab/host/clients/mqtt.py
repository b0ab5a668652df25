"""MQTT 3.1.1 (docs.oasis-open.org/mqtt/mqtt/v3.1.1), QoS 0 and 1: a client that another workload may use.

It keeps the connection as paho does: after a keep-alive in which it has sent or heard nothing it pings, and
gives up when the answer has not come within another one. A client with a persistent session sends what was
not acknowledged again when it is back, as the standard demands (4.4.0-1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.host.clients.base import raw_ns
from lab.host.clients.wire import ClientLoop, ClientWire

AGAIN_NS = NS_PER_S
TICK_NS = 100 * NS_PER_MS


class MqttKind(IntEnum):
    """Types of packets."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    SUBACK = 9
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


@dataclass(frozen=True)
class MqttPacket:
    """A packet. flags: the low four bits of its first byte."""

    kind: int
    flags: int
    body: bytes

    def encode(self) -> bytes:
        """Its bytes."""
        size, length = len(self.body), b""
        while True:
            size, digit = size >> 7, size & 0x7F
            length += bytes([digit | (0x80 if size else 0)])
            if not size:
                return bytes([self.kind << 4 | self.flags]) + length + self.body


class MqttReader:
    """Takes what a broker sends apart."""

    def __init__(self, packet: Callable[[MqttPacket], None]) -> None:
        self._packet, self._rest = packet, b""

    def feed(self, data: bytes) -> None:
        """Take further bytes. ValueError when a length is longer than MQTT allows."""
        self._rest += data
        while len(self._rest) >= 2:
            size = shift = 0
            place = 1
            while True:
                if place == len(self._rest):
                    return
                digit = self._rest[place]
                size |= (digit & 0x7F) << shift
                shift, place = shift + 7, place + 1
                if not digit & 0x80:
                    break
                if place > 4:
                    raise ValueError("not MQTT: a length of more than four bytes")
            if len(self._rest) < place + size:
                return
            first, body = self._rest[0], self._rest[place : place + size]
            self._rest = self._rest[place + size :]
            self._packet(MqttPacket(first >> 4, first & 0x0F, body))


def text(value: str) -> bytes:
    """A string as MQTT has it: its length, and UTF-8."""
    data = value.encode()
    return len(data).to_bytes(2, "big") + data


@dataclass(frozen=True)
class MqttIdentity:
    """What a client is to a broker. keepalive_s: 0: none. will: topic and message; persistent: its session
    outlasts its connection."""

    name: str
    keepalive_s: int
    will: tuple[str, bytes] | None = None
    persistent: bool = False

    def packet(self) -> MqttPacket:
        """CONNECT."""
        flags = (0 if self.persistent else 0x02) | (0x0C if self.will else 0)  # a will of QoS 1
        body = text("MQTT") + bytes([4, flags]) + self.keepalive_s.to_bytes(2, "big") + text(self.name)
        if self.will:
            topic, message = self.will
            body += text(topic) + len(message).to_bytes(2, "big") + message
        return MqttPacket(MqttKind.CONNECT, 0, body)


@dataclass(frozen=True)
class MqttMessage:
    """A message from the broker. again: it says that this is a repetition."""

    topic: str
    data: bytes
    again: bool


class MqttEvents:
    """What happens to a client; all of it nothing by default."""

    def ready(self) -> None:
        """It is connected."""

    def message(self, message: MqttMessage) -> None:
        """A message has come."""

    def acknowledged(self, number: int) -> None:
        """The message with this packet identifier is acknowledged."""

    def ended(self, *, by_broker: bool) -> None:
        """The connection has ended, by the broker, or because the broker does not answer."""


class MqttClient:
    """A client that connects again when its connection is lost."""

    def __init__(
        self,
        loop: ClientLoop,
        address: tuple[str, int],
        identity: MqttIdentity,
        events: MqttEvents,
        topics: tuple[str, ...] = (),
    ) -> None:
        self._loop, self._address, self._identity = loop, address, identity
        self._events, self._topics = events, topics
        self._unacknowledged: dict[int, bytes] = {}
        self._last_id = 0
        self.is_ready = False
        self._connect()
        loop.repeat(TICK_NS, self._tick)

    @property
    def in_flight(self) -> int:
        """Messages that are not acknowledged."""
        return len(self._unacknowledged)

    def publish(self, topic: str, data: bytes) -> int:
        """Send a message of QoS 1; its packet identifier."""
        self._last_id = self._last_id % 65535 + 1
        body = text(topic) + self._last_id.to_bytes(2, "big") + data
        self._unacknowledged[self._last_id] = body
        self._send(MqttPacket(MqttKind.PUBLISH, 0x02, body))
        return self._last_id

    def _connect(self) -> None:
        self._wire = ClientWire(self._loop, self._address, MqttReader(self._take).feed, self._lost)
        self._pinged_ns: int | None = None
        self._heard_ns = self._sent_ns = raw_ns()
        self._send(self._identity.packet())

    def _send(self, packet: MqttPacket) -> None:
        self._sent_ns = raw_ns()
        self._wire.send(packet.encode())

    def _take(self, packet: MqttPacket) -> None:
        self._heard_ns = raw_ns()
        body = packet.body
        if packet.kind == MqttKind.CONNACK:
            if body[1]:
                self._wire.close()
                self._ended(by_broker=True)
                return
            self.is_ready = True
            if self._topics and not body[0]:  # the broker has no session of it
                names = b"".join(text(topic) + b"\x01" for topic in self._topics)
                self._send(MqttPacket(MqttKind.SUBSCRIBE, 0x02, b"\x00\x01" + names))
            for again in self._unacknowledged.values():
                self._send(MqttPacket(MqttKind.PUBLISH, 0x0A, again))
            self._events.ready()
        elif packet.kind == MqttKind.PUBLISH:
            size = int.from_bytes(body[:2], "big")
            topic, rest = body[2 : 2 + size].decode("utf-8", "replace"), body[2 + size :]
            if packet.flags & 0x06:
                self._send(MqttPacket(MqttKind.PUBACK, 0, rest[:2]))
                rest = rest[2:]
            self._events.message(MqttMessage(topic, rest, bool(packet.flags & 0x08)))
        elif packet.kind == MqttKind.PUBACK:
            number = int.from_bytes(body[:2], "big")
            if self._unacknowledged.pop(number, None) is not None:
                self._events.acknowledged(number)
        elif packet.kind == MqttKind.PINGRESP:
            self._pinged_ns = None

    def _tick(self) -> None:
        now, keepalive = raw_ns(), self._identity.keepalive_s * NS_PER_S
        if not keepalive or not self._wire.is_open:
            return
        if self._pinged_ns is not None or not self.is_ready:
            if now - (self._pinged_ns or self._sent_ns) >= keepalive:
                self._wire.close()
                self._ended(by_broker=False)
        elif now - min(self._sent_ns, self._heard_ns) >= keepalive:
            self._pinged_ns = now
            self._send(MqttPacket(MqttKind.PINGREQ, 0, b""))

    def _lost(self, _reason: str) -> None:
        self._ended(by_broker=True)

    def _ended(self, *, by_broker: bool) -> None:
        was_ready, self.is_ready = self.is_ready, False
        if was_ready:
            self._events.ended(by_broker=by_broker)
        self._loop.after(AGAIN_NS, self._connect)
