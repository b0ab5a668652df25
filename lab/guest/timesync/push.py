"""The guest's clock set by the host from readings: what Hyper-V's time service does on a resume.

A program (payload_clock.py) waits in the guest. The host takes a few readings of its clock, each an interval
that holds the offset (MEASURING.md), and has the program step the clock by minus the middle of what they
agree on. What is left is no more than half of that interval's width.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.core.clock import Interval, Stamp, intersect
from lab.core.mechanism import ResyncMechanism
from lab.core.timesync.setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from lab.errors import FreezelabError, GuestError
from lab.guest import program
from lab.guest.timesync.line import Line
from lab.guest.timesync.ways import Ways

ANSWER_S = 5.0
REGAIN_S = 20.0
GOOD_NS = 700 * NS_PER_US
"""Readings stop when they agree on the offset to this (half the width): under TCG one exchange takes 1.5-3
ms."""

FEWEST, MOST = 2, 8


@dataclass(frozen=True)
class Pushed:
    """The step that was made, and where the offset lies since, as far as the readings before it tell."""

    step_ns: int
    left: Interval
    readings: int
    done: Stamp


def command() -> str:
    """The shell command that starts the program in the guest."""
    return program.command(program.source("payload_clock.py"))


def read(line: Line, number: int) -> Interval:
    """Guest REALTIME minus the host's: [t3 - t4, t2 - t1]. GuestError when there is no answer."""
    sent, answer, arrived = line.ask(f"r {number}", ANSWER_S)
    words = answer.split()
    if len(words) != 4 or words[:2] != ["R", str(number)]:
        raise GuestError(f"not an answer: {answer!r}", where=line.where)
    low, high = int(words[3]) - arrived.real_ns, int(words[2]) - sent.real_ns
    return Interval(min(low, high), max(low, high))


def order(line: Line, what: str, answer: str) -> Stamp:
    """Have it do something. GuestError with its own words when it could not."""
    _, said, arrived = line.ask(what, ANSWER_S)
    if said != answer:
        raise GuestError(f"the clock was not set: {said.removeprefix('E ')}", where=line.where)
    return arrived


def push(line: Line, fewest: int = FEWEST, most: int = MOST) -> Pushed:
    """Read, and step. GuestError when the program does not answer, or may not."""
    known = None
    for number in range(most):
        latest = read(line, number)
        # When they contradict each other somebody else moved the clock: the last one counts.
        known = latest if known is None else intersect((known, latest)) or latest
        if number + 1 >= fewest and known.half_width_ns <= GOOD_NS:
            break
    if known is None:
        raise ValueError("a push needs a reading")
    step_ns = 0 if 0 in known else -known.mid_ns
    done = order(line, f"p {step_ns}", "P")
    return Pushed(step_ns, known.shifted(step_ns), number + 1, done)


@contextmanager
def once(ways: Ways) -> Iterator[Line]:
    """The program for a short while, over the caller's connection."""
    line = Line(ways.ssh(), command(), "H")
    try:
        yield line.open()
    finally:
        line.close(keep_connection=True)


def set_clock(line: Line) -> Pushed:
    """Set the guest's clock to the host's as well as can be, and make its kernel forget what it was told to
    correct. GuestError when that fails."""
    forget(line)
    return push(line, MOST, MOST)


def forget(line: Line) -> None:
    """Make the guest's kernel forget what it was told to correct: frequency, tick, slew, status."""
    order(line, "z", "Z")


def rtc_minus_real(line: Line) -> Interval:
    """How far the guest's RTC is ahead of its REALTIME. Takes up to a second. GuestError without an RTC."""
    _, answer, _ = line.ask("t", ANSWER_S)
    words = answer.split()
    if words[:1] != ["T"]:
        raise GuestError(f"the RTC cannot be read: {answer.removeprefix('E ')}", where=line.where)
    begun, before, after = (int(word) for word in words[1:])
    return Interval(begun * NS_PER_S - after, begun * NS_PER_S - before)


class PushResync:
    """ports.Resync: on the resume the host reads and steps, in a thread of its own."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._line: Line | None = None
        self._thread: threading.Thread | None = None
        self._said = ""
        self._lock = threading.Lock()

    def install(self) -> PushResync:
        """Start the program, with a connection of its own. GuestError when that cannot be had."""
        line = Line(self._ways.ssh().again(ANSWER_S * 2), command(), "H")
        self._line = line
        line.open()
        read(line, 0)
        return self

    def setup(self) -> Setup:
        with self._lock:
            line = self._working()
            found = read(line, 0)
        version = line.greeting.split()[-1]
        status = {"push_bound_ns": str(found.half_width_ns)}
        return Setup(ResyncMechanism.PUSH, f"freezelab, Python {version}", "", status, self._ways.rtc_stops)

    def resumed(self) -> None:
        self._said = "the program in the guest did not answer"
        resumed = self._ways.clock.now()
        self._thread = threading.Thread(target=self._act, args=(resumed,), name="push", daemon=True)
        self._thread.start()

    def _act(self, resumed: Stamp) -> None:
        deadline = time.monotonic() + REGAIN_S
        with self._lock:
            while True:
                try:
                    self._said = _told(push(self._working()), resumed)
                except GuestError as error:
                    self._said = f"the push failed: {error.what}"
                    if time.monotonic() >= deadline or self._line is None:
                        return
                    try:
                        self._line.again(deadline)
                    except FreezelabError as lost:
                        self._said = f"the push failed: {lost.what}"
                        return
                else:
                    return

    def _working(self) -> Line:
        if self._line is None:
            raise GuestError("the push is not installed", where=self._ways.where)
        return self._line

    def outcome(self) -> str:
        if self._thread is not None:
            self._thread.join(REGAIN_S + ANSWER_S)
        return self._said

    def remove(self) -> None:
        self.outcome()
        line, self._line = self._line, None
        if line is not None:
            line.close()


def _told(pushed: Pushed, resumed: Stamp) -> str:
    after = (pushed.done.raw_ns - resumed.raw_ns) / NS_PER_MS
    left = pushed.left.half_width_ns / NS_PER_MS
    step = f"{pushed.step_ns / NS_PER_MS:+.1f} ms" if pushed.step_ns else "nothing"
    told = f"pushed {step} from {pushed.readings} readings"
    return f"{told}, done after {after:.1f} ms, left within ± {left:.2f} ms"
