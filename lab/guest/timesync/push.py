"""Sets the guest's clock from the host by readings, as Hyper-V's time service does after a resume.

A program (inside/clock_setter.py) waits in the guest, at a virtio-serial channel of its own (push_port.py),
and at SSH for guests without one. The first step needs one message. It carries t1, the host's clock before
it was sent. The guest reads its own clock t2 on receipt, when the host's shows t1 or more, so the offset
(guest minus host) is at most t2 - t1. If that is negative, the guest is certainly behind by t1 - t2. It sets
its clock to t1 at once, which steps it forward by that or a little less, and is not ahead after it. A message
that was under way for long, as one that waits for a guest to run, makes the bound weaker and never wrong.
There is no such bound from below: a guest that is ahead is stepped back by what its answer shows to be
certain, by an interval with t3 and t4 (docs/measuring.md).

So after the first step the guest is behind by at most the message's way, and never ahead. More readings
narrow the interval, and a second step goes to its middle. The remaining offset is at most half of the
interval's width.
"""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from lab.core.clock import Interval, Stamp, intersect
from lab.core.mechanism import ResyncMechanism
from lab.core.timesync_setup import PUSH_CHANNEL, PUSH_SERIAL, PUSH_SSH, Setup
from lab.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from lab.errors import FreezelabError, GuestError, GuestGone
from lab.guest import program
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.line_client import PATIENCE_S, START_S, Line
from lab.guest.timesync.push_port import PushPort
from lab.threads import Worker

REGAIN_S = 20.0
GOOD_NS = 700 * NS_PER_US
"""Readings stop when the half width of their common interval is at most this; under TCG one exchange takes
1.5-3 ms."""

MOST = 8

_NUMBERS = itertools.count()


class PushChannel(Protocol):
    """Lines to the program and back: Line and PushPort. patience_s: time limit for an answer, in seconds.
    send() returns a host stamp before the sending, receive() the next line and a host stamp after its
    arrival. Both raise GuestError when the channel is lost or no line comes in time."""

    patience_s: float

    @property
    def where(self) -> str: ...

    def now(self) -> Stamp: ...

    def send(self, line: str) -> Stamp: ...

    def receive(self, timeout_s: float) -> tuple[str, Stamp]: ...


@dataclass(frozen=True)
class PushRequest:
    """A line that was sent. argument: "" for none. sent: a host stamp before it."""

    letter: str
    number: int
    argument: str
    sent: Stamp


@dataclass(frozen=True)
class Pushed:
    """The result of a push. steps_ns: the one or two steps, positive: forward; (): none was needed. A first
    step forward is given as from the message's receipt. left: the bounds of the remaining offset, guest minus
    host. first_raw_ns: when the first step was done at the latest, by the guest's own stamp after it.
    answered: the arrival of the first answer. done: a stamp at the end."""

    steps_ns: tuple[int, ...]
    left: Interval
    readings: int
    first_raw_ns: int
    answered: Stamp
    done: Stamp


def command() -> str:
    """The shell command that starts the program in the guest, which needs Python."""
    return program.start_command("clock_setter")


def request(channel: PushChannel, letter: str, argument: str = "") -> PushRequest:
    """Send a line with a number of its own, which the answer repeats: an answer that came too late is thus
    never taken for another's. GuestError when the channel is lost."""
    number = next(_NUMBERS)
    return PushRequest(letter, number, argument, channel.send(f"{letter} {number} {argument}".rstrip()))


def answer(
    channel: PushChannel, asked: PushRequest, patience_s: float | None = None
) -> tuple[list[str], Stamp]:
    """The words of the answer, and its arrival. GuestError, with the program's message, when the program
    reports a failure; or when no answer comes in time. patience_s: the channel's by default."""
    deadline = time.monotonic() + (channel.patience_s if patience_s is None else patience_s)
    while True:
        line, arrived = channel.receive(deadline - time.monotonic())
        letter, _, rest = line.partition(" ")
        number, _, rest = rest.partition(" ")
        if number != str(asked.number):
            continue
        if letter == "E":
            raise GuestError(f"the program in the guest failed: {rest}", where=channel.where)
        if letter != asked.letter.upper():
            raise GuestError(f"not an answer: {line!r}", where=channel.where)
        return rest.split(), arrived


def _numbers(channel: PushChannel, asked: PushRequest, count: int) -> tuple[list[int], Stamp]:
    """The answer's numbers, and its arrival. GuestError as for answer(), and when they are not so many: a
    shell whose date(1) cannot be started writes none."""
    words, arrived = answer(channel, asked)
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise GuestError(f"not an answer to {asked.letter}: {' '.join(words)!r}", where=channel.where)
    return numbers, arrived


def read(channel: PushChannel) -> Interval:
    """Guest REALTIME minus the host's: [t3 - t4, t2 - t1]. GuestError when there is no answer."""
    asked = request(channel, "r")
    (upper, lower), arrived = _numbers(channel, asked, 2)
    low, high = lower - arrived.real_ns, upper - asked.sent.real_ns
    return Interval(min(low, high), max(low, high))


def step_forward(channel: PushChannel) -> PushRequest:
    """Have the guest step by what this message makes certain; see above. Its answer is for push(). GuestError
    when the channel is lost."""
    return request(channel, "s", str(channel.now().real_ns))


def push(channel: PushChannel, begun: PushRequest | None = None) -> Pushed:
    """Step, read, and step again. begun: a step_forward() that is under way. GuestError when the program does
    not answer, or may not set the clock."""
    begun = begun or step_forward(channel)
    (received, before), arrived = _numbers(channel, begun, 2)
    by_ns = max(0, int(begun.argument) - received)
    low, high = before - arrived.real_ns, received + by_ns - begun.sent.real_ns
    known = Interval(min(low, high), max(low, high))
    steps = [by_ns] if by_ns else []
    answered, moved_ns = arrived, 0

    def step(by_ns: int) -> tuple[int, Stamp]:
        nonlocal known, moved_ns
        (shown,), arrived = _numbers(channel, request(channel, "p", str(by_ns)), 1)
        steps.append(by_ns)
        known, moved_ns = known.shifted(by_ns), moved_ns + by_ns
        return shown, arrived

    if known.low_ns > 0:
        before, arrived = step(-known.low_ns)
        moved_ns = 0
    number = 1
    while number < MOST and known.half_width_ns > GOOD_NS:
        latest = read(channel)
        number += 1
        # Readings that contradict each other mean that another program moved the clock; the last one counts.
        known = intersect((known, latest)) or latest
    if known.mid_ns < 0 or 0 not in known:
        step(-known.mid_ns)
    # The guest's clock showed `before` just after the first step, and was then off by `known` less what it
    # was moved by since. So the host's showed at most this:
    first_real_ns = before - (known.low_ns - moved_ns)
    first_raw_ns = arrived.raw_ns - max(0, arrived.real_ns - first_real_ns)
    return Pushed(tuple(steps), known, number, first_raw_ns, answered, channel.now())


def set_clock(line: PushChannel) -> Pushed:
    """Set the guest's clock to the host's as exactly as possible, and reset its kernel's corrections.
    GuestError when that fails."""
    forget(line)
    return push(line)


def forget(line: PushChannel) -> None:
    """Reset the guest kernel's corrections: frequency, tick, slew, status (adjtimex(2))."""
    answer(line, request(line, "z"))


def rtc_minus_real(line: PushChannel) -> Interval:
    """The guest's RTC minus its REALTIME, in ns. It takes up to a second. GuestError without an RTC."""
    (begun, before, after), _ = _numbers(line, request(line, "t"), 3)
    return Interval(begun * NS_PER_S - after, begun * NS_PER_S - before)


class PushResync:
    """ports.Resync: at a resume, the host sends the first message, and goes on in a thread."""

    def __init__(self, access: GuestAccess) -> None:
        self._access = access
        self._port = PushPort(access.guest, access.clock, access.push_sockets)
        self._serial = False
        self._line: Line | None = None
        self._thread: threading.Thread | None = None
        self._outcome = ""
        self._finished_raw_ns: int | None = None
        self._lock = threading.Lock()

    def install(self) -> PushResync:
        """Start the program with its own connection, and set the clock by it. GuestError when that fails."""
        self._line = Line(self._access.ssh().again(START_S), command())
        set_clock(self._line.open())
        if self._port.connect():
            self._read_serially()  # waits until the program has opened its end
        return self

    def setup(self) -> Setup:
        # Called before a freeze, when a successor has been started: its channel is connected here.
        with self._lock:
            found = self._read_serially() if self._port.connect() else None
            line, channel = self._working(), PUSH_SERIAL
            if found is None:
                found, channel = read(line), PUSH_SSH
        version = line.greeting.split()[-1]
        status = {"push_bound_ns": str(found.half_width_ns), PUSH_CHANNEL: channel}
        return Setup(ResyncMechanism.PUSH, f"freezelab, Python {version}", "", status, self._access.rtc_stops)

    def _read_serially(self) -> Interval | None:
        """A reading over the virtio-serial channel, which is used from now on if there is one."""
        try:
            found = read(self._port)
        except GuestError:
            found = None
        self._serial = found is not None
        return found

    def resumed(self) -> None:
        self._outcome, self._finished_raw_ns = "the program in the guest did not answer", None
        resumed, begun = self._access.clock.now(), None
        if self._serial:
            with suppress(GuestError):
                begun = step_forward(self._port)  # at once, and not when a thread has started
        self._thread = Worker(target=self._act, args=(resumed, begun), name="push", daemon=True)
        self._thread.start()

    def _act(self, resumed: Stamp, begun: PushRequest | None) -> None:
        with self._lock:
            why = ""
            if begun is not None:
                try:
                    pushed = push(self._port, begun)
                except GuestError as error:
                    why = f", because virtio-serial failed: {error.what}"
                else:
                    self._outcome = _described(pushed, resumed, PUSH_SERIAL)
                    self._finished_raw_ns = pushed.done.raw_ns
                    return
            self._push_over_ssh(resumed, why)

    def _push_over_ssh(self, resumed: Stamp, why: str) -> None:
        """Push over SSH, and again over a new connection when it was lost. why: a note for the outcome."""
        deadline = time.monotonic() + REGAIN_S
        while True:
            try:
                pushed = push(self._working())
            except GuestError as error:
                self._outcome = f"the push failed: {error.what}"
                late = isinstance(error, GuestGone) or time.monotonic() >= deadline
                if late or self._line is None:
                    return
                try:
                    self._line.again(deadline)
                except FreezelabError as lost:
                    self._outcome = f"the push failed: {lost.what}"
                    return
            else:
                self._outcome = _described(pushed, resumed, PUSH_SSH) + why
                self._finished_raw_ns = pushed.done.raw_ns
                return

    def _working(self) -> Line:
        if self._line is None:
            raise GuestError("the push is not installed", where=self._access.where)
        return self._line

    def outcome(self) -> str:
        if self._thread is not None:
            self._thread.join(REGAIN_S + PATIENCE_S)
        return self._outcome

    def finished_raw_ns(self) -> int | None:
        return self._finished_raw_ns

    def remove(self) -> None:
        self.outcome()
        line, self._line = self._line, None
        if self._serial and line is not None:
            with suppress(GuestError):  # SSH may have been cut, and then does not end the program
                answer(self._port, request(self._port, "q"))
        self._port.close()
        if line is not None:
            line.close()


def _described(pushed: Pushed, resumed: Stamp, channel: str) -> str:
    def after(raw_ns: int) -> str:
        return f"{(raw_ns - resumed.raw_ns) / NS_PER_MS:.1f} ms"

    left = f"left within [{pushed.left.low_ns / NS_PER_MS:+.2f}, {pushed.left.high_ns / NS_PER_MS:+.2f}] ms"
    readings = f"{pushed.readings} readings over {channel}"
    if not pushed.steps_ns:
        return f"nothing to push after {readings}, {left}"
    steps = ", ".join(f"{step / NS_PER_MS:+.1f} ms" for step in pushed.steps_ns)
    first, answered = after(pushed.first_raw_ns), after(pushed.answered.raw_ns)
    text = f"first done {first} after the resume, answered {answered}, all {after(pushed.done.raw_ns)}"
    return f"pushed {steps}: {text}; {readings}, {left}"
