"""Time-sync set-ups: what does not need a guest."""

from __future__ import annotations

import calendar
import ctypes
import fcntl
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Stamp
from lab.core.mechanism import ResyncMechanism
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestError, HypervisorError
from lab.guest.inside import clock_setter, clock_setting
from lab.guest.inside.adjtimex import ADJ_TICK, Adjtimex
from lab.guest.timesync import push, push_port, services
from lab.guest.timesync.access import Agent, GuestAccess
from lab.guest.timesync.host_actions import PATIENCE_NS, AgentResync
from lab.ports import Call
from lab.process.clock import HostClock
from lab.threads import Worker

CHRONYC = """\
0A000202,10.0.2.2,3,1795411456.934457813,-0.000066207,0.000277956,0.000277956,0.000,-49.486,100.0,0.0005,0.0012,0.3,Normal
^,*,10.0.2.2,2,-2,17,1,0.000277956,0.000277956,0.000288678
^,?,10.0.2.3,0,6,0,4294967295,0.0,0.0,0.0
"""
NTPD = """\
leap=0, stratum=3, precision=-20, rootdelay=5.721, rootdisp=193.421,\r
refid=10.0.2.2, reftime=0xeeae4a20.96e2bc29, tc=6, peer=17767,\r
offset=-5.323645, frequency=0.000000, clock=0xeeae4a46.a95680e3,\r
system="Linux/6.1.0-56-cloud-amd64", version="ntpd ntpsec-1.2.2"\r
srcadr=10.0.2.2, leap=0,hmode=3, stratum=2, hpoll=6,\r
rec=0xeeae4a20.96e2bc29, reach=0x1, filtdelay=�QN�� 5.72 2.79\r
"""


def test_chronycs_answers() -> None:
    service = services.chrony(ResyncMechanism.CHRONY)
    status = service.parse(CHRONYC)
    assert (status["state"], status["poll"], status["reach"], status["leap"]) == ("*", "-2", "17", "Normal")
    # |offset| + root dispersion + root delay / 2
    assert service.claim(status) == "chronyd claims ± 1.52 ms"
    assert service.claim(service.parse("506 Cannot talk to daemon\n")) == ""
    assert services.chrony(ResyncMechanism.CHRONY_DISTRIBUTION).parse(CHRONYC)["updates"] == "4"


def test_ntpds_answers() -> None:
    service = services.ntpd("10.0.2.2", 5)
    status = service.parse(NTPD)
    assert (status["stratum"], status["hpoll"], status["tc"], status["offset"]) == (
        "3",
        "6",
        "6",
        "-5.323645",
    )
    assert status["mu"] == "38"
    assert service.claim(status) == "ntpd claims -5.323645 ms, root dispersion 193.421 ms"
    assert service.claim(service.parse("")) == ""


def test_timesyncds_answers() -> None:
    service = services.timesyncd("10.0.2.2", 5)
    assert service.parse("1795411400 1795411412\nt 64000000\n") == {
        "PollIntervalUSec": "64000000",
        "since_poll_s": "12",
    }
    assert service.claim(service.parse("1795411412\n")) == ""


@pytest.mark.parametrize("mechanism", list(ResyncMechanism))
def test_configurations_are_filled(mechanism: ResyncMechanism) -> None:
    text = mechanism.config("10.0.2.2", 4711, "/dev/ptp1", 812_345_678)
    assert "{" not in text
    assert bool(text) == mechanism.is_daemon
    assert ("10.0.2.2" in text) == mechanism.uses_ntp
    assert ("offset 0.812" in text) == (mechanism.reads_rtc and mechanism.is_daemon)


def test_the_programs_own_calendar(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in random.Random(1).sample(range(4102444800), 2000):
        shown = time.gmtime(seconds)
        fields = (shown.tm_sec, shown.tm_min, shown.tm_hour, shown.tm_mday, shown.tm_mon - 1)
        answer = struct.pack("9i", *fields, shown.tm_year - 1900, 0, 0, 0)
        monkeypatch.setattr(fcntl, "ioctl", lambda *_, answer=answer: answer)
        assert clock_setting.rtc_second(0) == seconds == calendar.timegm(shown)


def test_the_kernels_structure() -> None:
    # struct timex is 208 bytes on 64-bit systems; what is read beyond it must be ours too.
    kernel = Adjtimex()
    assert kernel.structure.status.offset == 5 * ctypes.sizeof(ctypes.c_long)
    assert kernel.structure.seconds.offset == 9 * ctypes.sizeof(ctypes.c_long)
    assert kernel.structure.tick.offset == 11 * ctypes.sizeof(ctypes.c_long)
    assert ctypes.sizeof(kernel.structure) >= 208


def test_this_kernel_fills_the_structure() -> None:
    """It is only read here: modes 0 changes nothing."""
    kernel = Adjtimex()
    assert kernel.read() >= 0
    assert 9000 <= kernel.timex.tick <= 11000
    assert abs(kernel.timex.seconds - time.time()) < 10


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match=r"Invalid argument|not permitted"):
        Adjtimex().adjust(modes=ADJ_TICK, tick=1)  # a tick may be a tenth from the usual one, no more


class Guest:
    """A simulated guest with a known clock at the other end of a channel; delays are drawn. seen: its offset
    at first and after each step. slept_ns: how long the first message waits for it."""

    patience_s = 1.0

    def __init__(self, offset_ns: int, delays: random.Random, most_ns: int, slept_ns: int = 0) -> None:
        self.offset_ns, self._delays, self._most_ns = offset_ns, delays, most_ns
        self._host_ns, self._slept_ns = 10**18, slept_ns
        self.where = "guest web-0"
        self.seen = [offset_ns]
        self._answer = ""

    def now(self) -> Stamp:
        return Stamp(self._host_ns, self._host_ns)

    def _pass(self) -> None:
        self._host_ns += self._delays.randrange(1, self._most_ns)

    @property
    def _clock(self) -> int:
        return self._host_ns + self.offset_ns

    def _move(self, by_ns: int) -> None:
        self.offset_ns += by_ns
        self.seen.append(self.offset_ns)

    def send(self, line: str) -> Stamp:
        sent = self.now()
        self._pass()
        self._host_ns, self._slept_ns = self._host_ns + self._slept_ns, 0
        received = self._clock
        self._pass()
        word, number, *more = line.split()
        if word == "p":
            self._move(int(more[0]))
        if word == "s" and received < int(more[0]):
            self._move(int(more[0]) - received)
        self._pass()
        stamps = f"{self._clock}" if word == "p" else f"{received} {self._clock}"
        self._answer = f"{word.upper()} {number} {stamps}"
        return sent

    def receive(self, timeout_s: float) -> tuple[str, Stamp]:
        self._pass()
        return self._answer, self.now()


@given(
    st.integers(-30 * NS_PER_S, 30 * NS_PER_S),
    st.randoms(use_true_random=False),
    st.sampled_from([2 * 10**5, 2 * NS_PER_MS, 50 * NS_PER_MS]),
    st.sampled_from([0, NS_PER_S]),
)
def test_a_push_ends_where_it_says(offset_ns: int, delays: random.Random, most_ns: int, late_ns: int) -> None:
    guest = Guest(offset_ns, delays, most_ns, late_ns)
    pushed = push.push(guest)
    assert guest.offset_ns in pushed.left
    moves = [b - a for a, b in zip(guest.seen, guest.seen[1:], strict=False)]
    assert len(pushed.steps_ns) == len(moves) <= 2
    # Of the first step forward what passed in the guest meanwhile is not known.
    assert all(0 <= told - move < 2 * most_ns for told, move in zip(pushed.steps_ns, moves, strict=True))
    assert pushed.answered.raw_ns <= pushed.done.raw_ns
    assert pushed.first_raw_ns <= pushed.done.raw_ns
    if offset_ns < -2 * most_ns - late_ns:
        # The first step is never too far, and leaves no more than the time that the message took.
        assert -4 * most_ns - late_ns < guest.seen[1] <= 0
    if pushed.steps_ns:
        first = guest.seen[1]
        assert abs(first) <= abs(offset_ns) + max(push.GOOD_NS, pushed.left.half_width_ns)
        assert first * offset_ns >= 0 or len(pushed.steps_ns) == 1


def test_an_answer_that_came_too_late_is_nobody_elses() -> None:
    class Slow(Guest):
        """Its first answer comes with its second."""

        late: str | None = None

        def receive(self, timeout_s: float) -> tuple[str, Stamp]:
            if self.late is None:
                self.late = self._answer
                raise GuestError("no answer in time")
            line, self.late = self.late or super().receive(timeout_s)[0], ""
            return line, self.now()

    guest = Slow(-NS_PER_S, random.Random(1), NS_PER_MS)
    with pytest.raises(GuestError, match="in time"):
        push.read(guest)
    assert -NS_PER_S in push.read(guest)


class Patience:
    """A clock that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.at = 0

    def now(self) -> Stamp:
        return Stamp(self.at, self.at)

    def sleep_until(self, raw_ns: int) -> None:
        self.at = max(self.at, raw_ns)


def agent_setup(answers_at_ns: int | None) -> tuple[Setup, int]:
    """What an agent's set-up is when it answers from then on, or never; and how long that took."""
    clock = Patience()

    def ping() -> Call:
        if answers_at_ns is None or clock.at < answers_at_ns:
            raise HypervisorError("the agent's guest-ping failed: it is not connected")
        return Call(Stamp(clock.at, 0), Stamp(clock.at + 3000, 0))

    agent = Agent(ping, ping, ping, ping)
    ways = GuestAccess("web-0", lambda: pytest.fail("nobody asks over SSH"), clock, agent=agent)
    return AgentResync(ResyncMechanism.AGENT, ways).setup(), clock.at


def test_an_agent_is_asked_again_before_it_is_given_up() -> None:
    """V9: one that is just being started again; and one that is stopped keeps its guest from nothing."""
    setup, waited_ns = agent_setup(1_500_000_000)
    assert setup.status == {"round_trip_ns": "3000"}
    assert 1_500_000_000 <= waited_ns < 2_000_000_000
    setup, waited_ns = agent_setup(None)
    assert "it is not connected" in setup.status["silent"]
    assert "round_trip_ns" not in setup.status
    assert waited_ns == PATIENCE_NS


def test_a_program_that_may_not_step_says_so() -> None:
    class Refusing(Guest):
        def receive(self, timeout_s: float) -> tuple[str, Stamp]:
            line, arrived = super().receive(timeout_s)
            return f"E {line.split()[1]} [Errno 1] Operation not permitted", arrived

    with pytest.raises(GuestError, match=r"failed: .*not permitted"):
        push.push(Refusing(-NS_PER_S, random.Random(1), NS_PER_MS))


# -- the push's virtio-serial channel ------------------------------------------------------------------


class Process:
    """What QEMU and the program in the guest are for the host: a socket, and answers; this host's own clock
    is read and never set, as it is never behind."""

    def __init__(self, path: Path) -> None:
        self.path, self.accepted = path, 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ends: list[socket.socket] = []
        Worker(target=self._serve, name=path.name, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                end = self._listener.accept()[0]
            except OSError:
                return
            self.accepted += 1
            self._ends.append(end)
            clock_setter.serve(Adjtimex(), end.fileno(), end.fileno())

    def end(self) -> None:
        for one in (*self._ends, self._listener):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.path.unlink()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    made = Process(tmp_path / "old"), Process(tmp_path / "new")
    yield made
    for one in made:
        with suppress(FileNotFoundError):
            one.end()


def test_a_successor_is_connected_before_it_is_needed(pair: tuple[Process, Process]) -> None:
    old, new = pair
    paths = [old.path, new.path]
    port = push_port.PushPort("web-0", HostClock(), lambda: tuple(paths))
    assert port.connect()
    assert 0 in push.read(port)
    begun = push.step_forward(port)
    assert push.push(port, begun).left.half_width_ns <= NS_PER_S
    paths.pop(0)  # the guest runs in its successor
    assert 0 in push.read(port)
    assert port.connect()
    assert (old.accepted, new.accepted) == (1, 1)
    port.close()


def test_a_process_that_was_replaced_at_the_same_socket_is_found(tmp_path: Path) -> None:
    """As a restore does."""
    old = Process(tmp_path / "one")
    port = push_port.PushPort("web-0", HostClock(), lambda: (old.path,))
    assert 0 in push.read(port)
    old.end()
    with pytest.raises(GuestError, match="channel was lost"):
        push.read(port)
    new = Process(tmp_path / "one")
    assert 0 in push.read(port)
    port.close()
    new.end()


def test_without_a_channel_there_is_none() -> None:
    port = push_port.PushPort("web-0", HostClock(), tuple)
    assert not port.connect()
    with pytest.raises(GuestError, match="channel was lost"):
        push.step_forward(port)
