"""Sets the guest's clock from the host by readings, as Hyper-V's time service does after a resume.

A program (inside/clock_setter.py) waits in the guest. One reading of its clock, an interval that contains the
offset (docs/measuring.md), allows a first step by the certain part of the offset: after it, the guest is
behind by at most the reading's width, and never ahead. More readings narrow the interval, and a second step
goes to its middle. The remaining offset is at most half of the interval's width.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.core.clock import Interval, Stamp, intersect
from lab.core.mechanism import ResyncMechanism
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from lab.errors import FreezelabError, GuestError, GuestGone
from lab.guest import program
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.line_client import Line
from lab.threads import Worker

ANSWER_S = 5.0
REGAIN_S = 20.0
GOOD_NS = 700 * NS_PER_US
"""Readings stop when the half width of their common interval is at most this; under TCG one exchange takes
1.5-3 ms."""

MOST = 8


@dataclass(frozen=True)
class Pushed:
    """The result of a push. steps_ns: the one or two steps, positive: forward; (): none was needed. first,
    done: stamps after the first step and at the end. left: the bounds of the remaining offset, guest minus
    host."""

    steps_ns: tuple[int, ...]
    left: Interval
    readings: int
    first: Stamp
    done: Stamp


def command() -> str:
    """The shell command that starts the program in the guest."""
    return program.start_command("clock_setter")


def read(line: Line, number: int) -> Interval:
    """Guest REALTIME minus the host's: [t3 - t4, t2 - t1]. GuestError when there is no answer."""
    sent, answer, arrived = line.ask(f"r {number}", ANSWER_S)
    words = answer.split()
    if len(words) != 4 or words[:2] != ["R", str(number)]:
        raise GuestError(f"not an answer: {answer!r}", where=line.where)
    low, high = int(words[3]) - arrived.real_ns, int(words[2]) - sent.real_ns
    return Interval(min(low, high), max(low, high))


def order(line: Line, what: str, answer: str) -> Stamp:
    """Send a command. Returns when it was answered. GuestError, with the program's message, when it
    failed."""
    _, reply, arrived = line.ask(what, ANSWER_S)
    if reply != answer:
        raise GuestError(f"the clock was not set: {reply.removeprefix('E ')}", where=line.where)
    return arrived


def push(line: Line) -> Pushed:
    """Read, step, read again, and step again. GuestError when the program does not answer, or may not set the
    clock."""
    steps: list[int] = []
    stamps: list[Stamp] = []
    known = read(line, 0)

    def step(by_ns: int) -> None:
        nonlocal known
        stamps.append(order(line, f"p {by_ns}", "P"))
        steps.append(by_ns)
        known = known.shifted(by_ns)

    if 0 not in known:
        step(-known.high_ns if known.high_ns < 0 else -known.low_ns)
    number = 1
    while number < MOST and known.half_width_ns > GOOD_NS:
        latest = read(line, number)
        number += 1
        # Readings that contradict each other mean that another program moved the clock; the last one counts.
        known = intersect((known, latest)) or latest
    if known.mid_ns < 0 or 0 not in known:
        step(-known.mid_ns)
    stamps.append(line.now())
    return Pushed(tuple(steps), known, number, stamps[0], stamps[-1])


@contextmanager
def once(access: GuestAccess) -> Iterator[Line]:
    """A context with a running program, over the caller's connection."""
    line = Line(access.ssh(), command())
    try:
        yield line.open()
    finally:
        line.close(leave_connection=True)


def set_clock(line: Line) -> Pushed:
    """Set the guest's clock to the host's as exactly as possible, and reset its kernel's corrections.
    GuestError when that fails."""
    forget(line)
    return push(line)


def forget(line: Line) -> None:
    """Reset the guest kernel's corrections: frequency, tick, slew, status (adjtimex(2))."""
    order(line, "z", "Z")


def rtc_minus_real(line: Line) -> Interval:
    """The guest's RTC minus its REALTIME, in ns. It takes up to a second. GuestError without an RTC."""
    _, answer, _ = line.ask("t", ANSWER_S)
    words = answer.split()
    if words[:1] != ["T"]:
        raise GuestError(f"the RTC cannot be read: {answer.removeprefix('E ')}", where=line.where)
    begun, before, after = (int(word) for word in words[1:])
    return Interval(begun * NS_PER_S - after, begun * NS_PER_S - before)


class PushResync:
    """ports.Resync: after a resume, the host reads and steps the guest's clock in its own thread."""

    def __init__(self, access: GuestAccess) -> None:
        self._access = access
        self._line: Line | None = None
        self._thread: threading.Thread | None = None
        self._outcome = ""
        self._finished_raw_ns: int | None = None
        self._lock = threading.Lock()

    def install(self) -> PushResync:
        """Start the program with its own connection, and set the clock by it. GuestError when that fails."""
        self._line = Line(self._access.ssh().again(ANSWER_S * 2), command())
        set_clock(self._line.open())
        return self

    def setup(self) -> Setup:
        with self._lock:
            line = self._working()
            found = read(line, 0)
        version = line.greeting.split()[-1]
        status = {"push_bound_ns": str(found.half_width_ns)}
        return Setup(ResyncMechanism.PUSH, f"freezelab, Python {version}", "", status, self._access.rtc_stops)

    def resumed(self) -> None:
        self._outcome, self._finished_raw_ns = "the program in the guest did not answer", None
        resumed = self._access.clock.now()
        self._thread = Worker(target=self._act, args=(resumed,), name="push", daemon=True)
        self._thread.start()

    def _act(self, resumed: Stamp) -> None:
        deadline = time.monotonic() + REGAIN_S
        with self._lock:
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
                    self._outcome, self._finished_raw_ns = _described(pushed, resumed), pushed.done.raw_ns
                    return

    def _working(self) -> Line:
        if self._line is None:
            raise GuestError("the push is not installed", where=self._access.where)
        return self._line

    def outcome(self) -> str:
        if self._thread is not None:
            self._thread.join(REGAIN_S + ANSWER_S)
        return self._outcome

    def finished_raw_ns(self) -> int | None:
        return self._finished_raw_ns

    def remove(self) -> None:
        self.outcome()
        line, self._line = self._line, None
        if line is not None:
            line.close()


def _described(pushed: Pushed, resumed: Stamp) -> str:
    def after(stamp: Stamp) -> str:
        return f"{(stamp.raw_ns - resumed.raw_ns) / NS_PER_MS:.1f} ms"

    left = f"left within [{pushed.left.low_ns / NS_PER_MS:+.2f}, {pushed.left.high_ns / NS_PER_MS:+.2f}] ms"
    if not pushed.steps_ns:
        return f"nothing to push after {pushed.readings} readings, {left}"
    steps = ", ".join(f"{step / NS_PER_MS:+.1f} ms" for step in pushed.steps_ns)
    text = f"pushed {steps}: first done {after(pushed.first)} after the resume, all {after(pushed.done)}"
    return f"{text}; {pushed.readings} readings, {left}"
