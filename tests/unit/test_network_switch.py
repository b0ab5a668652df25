"""The switch's rules: who gets a frame, when, and which are dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.network import FrameCounts, NetworkLimits
from lab.host.network.switch import BURST, Switch, SwitchPort, Taken

MS = 10**6
EVERYBODY = b"\xff" * 6


def mac(name: str) -> bytes:
    return b"\x52\x54\x01\x00\x00" + name.encode()


def frame(to: str, origin: str, content: bytes = b"x", size: int = 0) -> bytes:
    """A frame between two that are named by a letter; "*": to everybody."""
    head = (EVERYBODY if to == "*" else mac(to)) + mac(origin)
    return (head + content).ljust(size, b".")


@dataclass
class Guest:
    """What a guest takes, and whether it does."""

    takes: Taken = Taken.YES
    got: list[bytes] = field(default_factory=list)

    def send(self, one: bytes) -> Taken:
        if self.takes is Taken.YES:
            self.got.append(one)
        return self.takes


class Net:
    """A switch with guests that are called a, b and so on."""

    def __init__(self, *limits: NetworkLimits, seed: int = 1) -> None:
        self.switch = Switch(seed)
        self.guests = {chr(97 + n): Guest() for n in range(len(limits))}
        self.ports = {}
        for (name, guest), one in zip(self.guests.items(), limits, strict=True):
            self.ports[name] = SwitchPort(name, one, guest.send)
            self.switch.add(self.ports[name])

    def send(self, origin: str, to: str, now_ns: int = 0, content: bytes = b"x", size: int = 0) -> None:
        self.switch.forward(self.ports[origin], frame(to, origin, content, size), now_ns)

    def introduce(self) -> None:
        """Everybody is known to the switch."""
        for name in self.guests:
            self.send(name, "*")
        for guest in self.guests.values():
            guest.got.clear()
        for port in self.ports.values():
            port.counts = FrameCounts()

    def got(self, name: str) -> list[bytes]:
        return self.guests[name].got


PLAIN = NetworkLimits()


def test_an_unknown_address_is_flooded_and_a_known_one_is_not() -> None:
    net = Net(PLAIN, PLAIN, PLAIN)
    net.send("a", "b")
    assert net.got("b") == net.got("c") == [frame("b", "a")]
    assert not net.got("a")
    net.send("b", "a")
    assert net.got("a") == [frame("a", "b")]
    assert len(net.got("c")) == 1
    net.send("a", "*")
    assert len(net.got("b")) == len(net.got("c")) == 2


def test_an_address_moves_with_its_frames() -> None:
    net = Net(PLAIN, PLAIN, PLAIN)
    net.introduce()
    net.switch.forward(net.ports["c"], frame("*", "b"), 0)  # b is where c was
    net.send("a", "b", content=b"to b")
    assert frame("b", "a", b"to b") in net.got("c")
    assert frame("b", "a", b"to b") not in net.got("b")


def test_what_is_no_frame_is_dropped() -> None:
    net = Net(PLAIN, PLAIN)
    net.switch.forward(net.ports["a"], b"short", 0)
    assert not net.got("b")
    assert net.ports["a"].counts == FrameCounts()


def test_the_delay_is_the_longer_one_and_applies_once() -> None:
    net = Net(NetworkLimits(delay_ns=MS), NetworkLimits(delay_ns=20 * MS))
    net.introduce()
    net.switch.deliver(100 * MS)
    net.got("a").clear()
    net.got("b").clear()
    for origin, to in (("a", "b"), ("b", "a")):
        net.send(origin, to, now_ns=200 * MS)
        net.switch.deliver(220 * MS - 1)
        assert not net.got(to)
        assert net.switch.due_ns == 220 * MS
        net.switch.deliver(220 * MS)
        assert len(net.got(to)) == 1
        assert net.switch.due_ns is None


def test_frames_under_way_keep_their_order() -> None:
    net = Net(NetworkLimits(delay_ns=MS), PLAIN)
    net.introduce()
    net.switch.deliver(MS)
    net.got("b").clear()
    for number in range(50):
        net.send("a", "b", now_ns=10 * MS, content=b"%d" % number)
    net.switch.deliver(11 * MS)
    assert net.got("b") == [frame("b", "a", b"%d" % number) for number in range(50)]


def test_the_bandwidth_spaces_frames() -> None:
    """1000 bytes at 8 Mbit/s take a millisecond: on the slower of the two links, whichever it is."""
    for limits in (
        (NetworkLimits(bits_per_s=8_000_000), PLAIN),
        (PLAIN, NetworkLimits(bits_per_s=8_000_000)),
    ):
        net = Net(*limits)
        for _ in range(3):
            net.switch.forward(net.ports["a"], frame("b", "a", size=1000), 0)
        arrivals = []
        for now in range(0, 5 * MS, MS // 4):
            before = len(net.got("b"))
            net.switch.deliver(now)
            arrivals += [now] * (len(net.got("b")) - before)
        assert arrivals == [MS, 2 * MS, 3 * MS]


def test_the_bandwidths_queue_is_limited() -> None:
    net = Net(PLAIN, NetworkLimits(bits_per_s=8_000_000, queue=5))
    for _ in range(100):
        net.switch.forward(net.ports["a"], frame("b", "a", size=1000), 0)
    net.switch.deliver(10**9)
    assert 5 <= len(net.got("b")) <= 7
    assert net.ports["b"].counts.overflowed == 100 - len(net.got("b"))


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.1, 0.5, 0.9]))
@settings(max_examples=25, deadline=None)
def test_losses_are_as_frequent_as_asked_and_repeat_with_their_seed(seed: int, loss: float) -> None:
    def lost() -> list[int]:
        net = Net(PLAIN, NetworkLimits(loss=loss), seed=seed)
        for number in range(2000):
            net.send("a", "b", content=b"%d" % number)
        assert net.ports["b"].counts.lost == 2000 - len(net.got("b"))
        numbers = {int(one[12:]) for one in net.got("b")}
        return [number for number in range(2000) if number not in numbers]

    first = lost()
    assert first == lost()
    sigma = (2000 * loss * (1 - loss)) ** 0.5
    assert abs(len(first) - 2000 * loss) < 6 * sigma


def test_a_frozen_guests_frames_wait_in_order_and_the_last_are_dropped() -> None:
    net = Net(PLAIN, NetworkLimits(queue=10))
    net.introduce()
    net.ports["b"].freeze(0)
    for number in range(25):
        net.send("a", "b", content=b"%d" % number)
    assert not net.got("b")
    net.ports["b"].thaw()
    assert net.got("b") == [frame("b", "a", b"%d" % number) for number in range(10)]
    counts = net.ports["b"].counts
    assert (counts.received, counts.overflowed) == (10, 15)
    net.send("a", "b")
    assert len(net.got("b")) == 11


def test_without_a_queue_all_is_dropped_while_it_is_frozen_and_nothing_before() -> None:
    net = Net(PLAIN, NetworkLimits(queue=0))
    net.introduce()
    net.guests["b"].takes = Taken.LATER  # it runs, and is busy
    for _ in range(20):
        net.send("a", "b")
    net.guests["b"].takes = Taken.YES
    net.ports["b"].flush()
    assert len(net.got("b")) == 20
    net.ports["b"].freeze(0)
    for _ in range(20):
        net.send("a", "b")
    net.ports["b"].thaw()
    assert len(net.got("b")) == 20
    assert net.ports["b"].counts.overflowed == 20


def test_a_guest_that_is_heard_runs_again_whoever_has_resumed_it() -> None:
    net = Net(PLAIN, PLAIN)
    net.introduce()
    net.ports["b"].freeze(100 * MS)
    net.send("a", "b", now_ns=100 * MS)
    net.send("b", "a", now_ns=101 * MS)  # was sent before the freeze
    assert not net.got("b")
    net.send("b", "a", now_ns=200 * MS)
    assert len(net.got("b")) == 1
    assert not net.ports["b"].frozen


def test_frames_wait_for_a_guest_whose_process_comes_back_later() -> None:
    """save-restore: there is no QEMU meanwhile, before the resume and some time after it."""
    net = Net(PLAIN, NetworkLimits(queue=3))
    net.introduce()
    net.guests["b"].takes = Taken.ABSENT
    net.send("a", "b", content=b"0")
    net.ports["b"].freeze(0)
    for number in range(1, 6):
        net.send("a", "b", content=b"%d" % number)
    net.ports["b"].thaw()
    assert not net.got("b")
    assert net.ports["b"].absent
    net.guests["b"].takes = Taken.YES
    net.ports["b"].flush()
    assert [one[12:] for one in net.got("b")] == [b"0", b"1", b"2"]
    assert net.ports["b"].counts.overflowed == 3


def test_frames_before_a_guests_start_are_not_for_it() -> None:
    net = Net(PLAIN, PLAIN)
    net.guests["b"].takes = Taken.ABSENT
    net.send("a", "*")
    net.guests["b"].takes = Taken.YES
    net.ports["b"].flush()
    assert not net.got("b")
    assert net.ports["b"].counts.absent == 1


def test_a_slow_guest_has_a_limit_too() -> None:
    net = Net(PLAIN, NetworkLimits(queue=1))
    net.introduce()
    net.guests["b"].takes = Taken.LATER
    for _ in range(BURST + 5):
        net.send("a", "b")
    assert len(net.ports["b"].waiting) == BURST
    assert net.ports["b"].counts.overflowed == 5


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_frame_is_accounted_for(seed: int) -> None:
    """Whatever happens, a frame for a port is received, lost, overflowed, absent, waiting, or under way."""
    random = Random(seed)
    net = Net(
        *(
            NetworkLimits(
                delay_ns=random.choice([0, MS, 30 * MS]),
                loss=random.choice([0, 0.2]),
                bits_per_s=0,
                queue=random.choice([0, 1, 7, 1000]),
            )
            for _ in range(3)
        ),
        seed=seed,
    )
    net.introduce()
    net.switch.deliver(10**12)
    for port in net.ports.values():
        port.counts = FrameCounts()
    for guest in net.guests.values():
        guest.got.clear()
    now, sent = 10**12, 0
    for _ in range(300):
        now += random.randrange(5 * MS)
        name = random.choice("abc")
        match random.randrange(6):
            case 0:
                net.ports[name].freeze(now)
            case 1:
                net.ports[name].thaw()
            case 2:
                net.guests[name].takes = random.choice(list(Taken))
            case _:
                to = random.choice("abc".replace(name, ""))
                net.send(name, to, now_ns=now)
                sent += 1
        net.switch.deliver(now)
    net.switch.deliver(now + 10**12)
    counts = [port.counts for port in net.ports.values()]
    ended = sum(one.received + one.lost + one.overflowed + one.absent for one in counts)
    assert sent == sum(one.sent for one in counts)
    assert sent == ended + sum(len(port.waiting) for port in net.ports.values())
    assert sum(one.received for one in counts) == sum(len(guest.got) for guest in net.guests.values())
