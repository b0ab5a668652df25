"""The kernel's stamps of a request and its answer bound the offset whatever happens on the way: the probe's
own code over a synthetic guest, whose truth is known.

The guest's CLOCK_REALTIME is stepped at any moment of the exchange, once. Packets are split, lost and sent
again, overtake each other, carry other traffic of the connection, wait in the queue with an acknowledgement
that is out of date, find no room in the packet socket, and bear no stamp.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.core.clock import GuestClock, Stamp
from lab.core.history import ReadingsTaken
from lab.core.history.encoding import line_of
from lab.core.timeline import CrossTimestamp, PacketStamps, Reading
from lab.guest.inside import packet_stamps as stamps_inside
from lab.guest.inside.clocks import RAW, REAL
from lab.guest.inside.packet_stamps import Packets
from lab.record.events import entry_of, envelope

CASES = int(os.environ.get("FREEZELAB_HYPOTHESIS", "0")) or 1500
MS = 1_000_000
LOCAL, REMOTE = 22, 40000
MASK = 0xFFFFFFFF


class World:
    """A guest whose MONOTONIC_RAW is the host's plus `offset`, and the kernel's packet socket in it."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.now = 10**12
        self.offset = draw.randrange(-(10**10), 10**10)
        self.apart = draw.randrange(10**14)
        self.step_at, self.step = 1 << 62, 0
        self.queue: list[tuple[int, bytes, bool]] = []
        self.lost = 0
        self.in_base, self.out_base = draw.randrange(1 << 32), draw.randrange(1 << 32)
        self.sent = self.got = self.out = 0  # bytes: by the host, by the guest's TCP in order, by the guest
        self.parts: list[tuple[int, int]] = []

    def real(self, at: int) -> int:
        return at + self.offset + self.apart + (self.step if at >= self.step_at else 0)

    def gettime(self, clock: int) -> int:
        self.now += self.draw.choice((300, 2_000, self.draw.randrange(MS)))
        return {RAW: self.now + self.offset, REAL: self.real(self.now)}[clock]

    def capture(self, at: int, incoming: bool, begin: int, size: int, acknowledged: int) -> None:
        """A packet passes the packet socket."""
        if self.draw.random() < 0.05:
            self.lost += 1
            return
        ports = (REMOTE, LOCAL) if incoming else (LOCAL, REMOTE)
        bases = (self.in_base, self.out_base) if incoming else (self.out_base, self.in_base)
        numbers = (bases[0] + begin & MASK, bases[1] + acknowledged & MASK)
        head = struct.pack("!BBH16x", 0x45, 0, 40 + size) + struct.pack("!HHIIB", *ports, *numbers, 0x50)
        if self.step and self.step_at > self.now and self.draw.random() < 0.2:
            self.step_at = max(self.now + 1, at - self.draw.randrange(3_000))  # just before it
        self.queue.append((at, head, self.draw.random() > 0.05))
        self.queue.sort(key=lambda packet: packet[0])

    # What Packets wants of a socket.

    def recvmsg(self, _size: int, _room: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        self.now += 500
        if not self.queue or self.queue[0][0] > self.now:
            raise BlockingIOError
        at, data, stamped = self.queue.pop(0)
        value = struct.pack("@ll", *divmod(self.real(at if stamped else self.now), 10**9))
        return data, [(socket.SOL_SOCKET, stamps_inside.SO_TIMESTAMPNS, value)], 0, None

    def getsockopt(self, *_: int) -> bytes:
        lost, self.lost = self.lost, 0
        return struct.pack("II", 0, lost)

    # What passes.

    def later(self, most: int = 3 * MS) -> int:
        return self.now + self.draw.choice((0, 1_000, self.draw.randrange(1, most)))

    def send(self, size: int) -> list[tuple[int, int, int]]:
        """The host sends `size` bytes: when each part comes to the guest, with its place; some come twice."""
        cut = self.draw.randrange(1, size) if self.draw.random() < 0.3 else size
        parts = [(self.later(), self.sent, cut)]
        if cut < size:
            parts.append((self.later(), self.sent + cut, size - cut))
        if self.draw.random() < 0.2:
            at, begin, length = self.draw.choice(parts)
            parts.append((at + self.draw.randrange(1, 3 * MS), begin, length))
        self.sent += size
        for at, begin, length in parts:
            self.capture(at, True, begin, length, 0)
        self.parts += [(at, begin + length) for at, begin, length in parts]
        return parts

    def received(self, at: int) -> int:
        """How much of the host's stream TCP has in order at `at`: up to the first part that is missing."""
        missing = [end for first, end in self.parts if first > at and not self._twice(end, at)]
        return min([self.sent, *(self._begin(end) for end in missing)])

    def _twice(self, end: int, at: int) -> bool:
        return any(other == end and when <= at for when, other in self.parts)

    def _begin(self, end: int) -> int:
        return max([0, *(other for _, other in self.parts if other < end)])

    def answer(self, size: int, built: int) -> int:
        """The guest sends `size` bytes in a packet that was built at `built`; when the host has it."""
        left = built + self.draw.choice((0, self.draw.randrange(2 * MS)))
        self.capture(left, False, self.out, size, self.received(built))
        while self.draw.random() < 0.2:  # lost on the way, and sent again
            left += self.draw.randrange(1, 5 * MS)
            self.capture(left, False, self.out, size, self.received(left))
        self.out += size
        return left + self.draw.randrange(5 * MS)


def exchange(world: World, packets: Packets, number: int) -> Reading:
    draw = world.draw
    packets.fetch()  # the sampler's look, before REALTIME is stepped again
    world.now += draw.choice((0, draw.randrange(20 * MS)))
    if draw.random() < 0.4:
        world.step_at = world.now + draw.randrange(12 * MS)
        world.step = draw.choice((-1, 1)) * draw.choice((50_000, draw.randrange(1, 10**10)))
    t1 = Stamp(world.now, 0)
    arrived = max(at for at, *_ in world.send(36))
    for _ in range(draw.choice((0, 0, 1))):
        world.send(52)
    if draw.random() < 0.3:
        world.answer(44, world.later())  # a heartbeat, perhaps on its way out for long
    while world.now < arrived:
        world.now += draw.randrange(1, 4 * MS)
        packets.fetch()
    world.now = max(world.now, arrived) + draw.choice((0, draw.randrange(3 * MS)))
    t2 = world.gettime(RAW)
    packets.ask(b"%d" % number)
    t3 = world.gettime(RAW)
    pieces = draw.choice(((100,), (40, 60)))
    t4 = 0
    for size in pieces:
        t4 = max(t4, world.answer(size, max(world.now, world.later())))
    if draw.random() < 0.3:
        world.answer(44, world.later())
    if draw.random() < 0.2:
        world.send(52)
    while not (line := packets.stamps_line(50 * MS)):
        world.now += draw.randrange(1, 2 * MS)
    assert line.split()[1] == b"%d" % number
    world.now = max([world.now, t4, *(at for at, *_ in world.queue)])
    if world.now >= world.step_at:
        world.apart += world.step
    world.step_at, world.step = 1 << 62, 0
    world.queue = [(at, head, False) for at, head, _ in world.queue]  # of the time before the step
    world.parts = [(at, end) for at, end in world.parts if at > world.now]
    numbers = [int(word) for word in line.split()[2:]]
    packet_stamps = (
        PacketStamps(numbers[0] or None, numbers[1], numbers[2] or None, numbers[3]) if numbers else None
    )
    clocks = ({GuestClock.RAW: t2}, {GuestClock.RAW: t3})
    return Reading(t1, *clocks, Stamp(t4, 0), packet_stamps=packet_stamps)


@settings(
    max_examples=CASES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 1 << 62))
def test_the_offset_lies_between_the_kernels_stamps(seed: int) -> None:
    world = World(random.Random(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stamps_inside, "gettime", world.gettime)
        packets = Packets()
        packets.socket, packets.local = world, LOCAL  # type: ignore[assignment]
        packets.start(stamps_inside.apart())
        for number in range(4):
            reading = exchange(world, packets, number)
            assert world.offset in reading.offset(GuestClock.RAW), (number, reading)
            bare = Reading(reading.t1, reading.t2, reading.t3, reading.t4)
            assert reading.offset(GuestClock.RAW).half_width_ns <= bare.offset(GuestClock.RAW).half_width_ns


def test_an_undisturbed_exchange_has_both_stamps() -> None:
    """Else the property above would hold of a probe that never stamps anything."""
    told = 0
    for seed in range(300):
        world = World(random.Random(seed))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stamps_inside, "gettime", world.gettime)
            packets = Packets()
            packets.socket, packets.local = world, LOCAL  # type: ignore[assignment]
            packets.start(stamps_inside.apart())
            for number in range(4):
                packet_stamps = exchange(world, packets, number).packet_stamps
                told += packet_stamps is not None and None not in (
                    packet_stamps.arrived_real_ns,
                    packet_stamps.left_real_ns,
                )
    assert told > 300


def test_the_record_keeps_the_stamps_and_reads_those_without() -> None:
    clocks = {clock: 10**9 + number for number, clock in enumerate(GuestClock)}
    bare = Reading(Stamp(1, 2), clocks, clocks, Stamp(3, 4))
    stamps, cross = PacketStamps(5, -6, None, 7), CrossTimestamp(8, 9, 10)
    given = [bare, replace(bare, channel="serial"), replace(bare, packet_stamps=stamps)]
    given += [replace(bare, cross=cross), replace(bare, packet_stamps=stamps, cross=cross)]
    event = ReadingsTaken("web-0", 0, tuple(given))
    line = line_of(event, 1, Stamp(5, 6))
    found = envelope(line)
    assert found is not None
    assert entry_of(line, found).event == event
    assert [len(numbers) for numbers in found.data["readings"]] == [13, 14, 18, 21, 21]
