"""The search for the shortest pause that a workload fails at.

Timers have a phase: a pause near a threshold fails in one try and passes in the next. So the result is two
pauses, the longest that passed in all of its tries and the shortest that failed in any, and the tries.

A long pause costs as long as it is, so pauses are tried often only where it decides something. The search
brackets first, with one try a pause: it begins at the shortest pause and doubles it until one fails. Then it
halves the bracket, on a logarithmic scale and with one try a pause, until its ends are closer than the
precision. Last, the longest pause that passed is tried until it has passed `tries` times. If it fails in one
of them, it is the new end that failed, and the search goes on below it, from the next shorter pause that
passed. One failure is enough for the other end: that is its definition.

The pauses of a search are at least sqrt(1 + precision) apart, as halving goes (rounding and the last doubling
aside), so there are at most 3 + 2 ln(longest / shortest) / ln(1 + precision) of them, whatever the workload
does; `most_tries` counts their tries. Usual are 7 to 15 tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, inf, log, sqrt

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome

ROUND_NS = 10 * NS_PER_MS
"""Pauses are whole multiples of this, so that they are easy to read and to repeat."""


@dataclass(frozen=True)
class ToleranceSpec:
    """What is searched, and how long.

    shortest_ns, longest_ns: the range of pauses. tries: how often the longest pause that passed has to pass.
    precision: the search ends when the ends of the bracket are closer than this share of the shorter one.
    budget_ns: the longest time of the search for one workload in one regime; a try that has begun is
    finished.
    """

    shortest_ns: int = NS_PER_S
    longest_ns: int = 60 * NS_PER_S
    tries: int = 3
    precision: float = 0.15
    budget_ns: int = 600 * NS_PER_S


@dataclass(frozen=True)
class ToleranceTry:
    """One try. pause_ns: the pause as it was asked for. An inconclusive one counts as neither."""

    pause_ns: int
    outcome: Outcome


@dataclass(frozen=True)
class ToleranceResult:
    """longest_passed_ns: the longest pause that passed in all of its tries, and below which none failed;
    None: there is none. shortest_failed_ns: the shortest that failed in any try; None: none failed. complete:
    the search has ended by itself, so the longest pause has passed as often as the plan has it; else why says
    what ended it."""

    longest_passed_ns: int | None
    shortest_failed_ns: int | None
    tries: tuple[ToleranceTry, ...]
    complete: bool
    why: str = ""

    @property
    def passes(self) -> int:
        """How often the longest pause that passed has passed."""
        longest = self.longest_passed_ns
        return sum(one.pause_ns == longest and one.outcome is Outcome.PASSED for one in self.tries)


MOST_INCONCLUSIVE = 3
"""A pause whose tries were inconclusive this often in a row ends the search: it does not get better."""


class ToleranceSearch:
    """The next pause from the tries so far, so a search can go on from a history."""

    def __init__(self, spec: ToleranceSpec) -> None:
        self._spec = spec

    def next(self, tries: Sequence[ToleranceTry], spent_ns: int = 0) -> int | None:
        """The pause to try next, in ns; None: the search has ended. spent_ns: how long it has taken so
        far."""
        if self.ended_by(tries, spent_ns):
            return None
        return self._wanted(tries)

    def ended_by(self, tries: Sequence[ToleranceTry], spent_ns: int = 0) -> str:
        """What has ended the search: "complete", or what ended it early; "" while it goes on."""
        last = tries[-MOST_INCONCLUSIVE:]
        if len(last) == MOST_INCONCLUSIVE and all(one.outcome is Outcome.INCONCLUSIVE for one in last):
            return f"{MOST_INCONCLUSIVE} inconclusive tries one after another"
        if self._wanted(tries) is None:
            return "complete"
        if spent_ns >= self._spec.budget_ns:
            return "its time is over"
        return ""

    def result(self, tries: Sequence[ToleranceTry], spent_ns: int = 0) -> ToleranceResult:
        """What is known after these tries."""
        passed, failed = _bracket(tries)
        why = self.ended_by(tries, spent_ns)
        complete = why == "complete"
        return ToleranceResult(passed, failed, tuple(tries), complete, "" if complete else why or "stopped")

    def _wanted(self, tries: Sequence[ToleranceTry]) -> int | None:
        spec = self._spec
        if tries and tries[-1].outcome is Outcome.INCONCLUSIVE:
            return tries[-1].pause_ns
        passed, failed = _bracket(tries)
        if passed is None:
            return self._below(failed)
        if failed is None:
            if passed < spec.longest_ns:
                return min(2 * passed, spec.longest_ns)
            return self._confirmed(tries, passed)
        middle = round(sqrt(passed * failed) / ROUND_NS) * ROUND_NS
        if failed - passed <= spec.precision * passed or not passed < middle < failed:
            return self._confirmed(tries, passed)
        return middle

    def _below(self, failed: int | None) -> int | None:
        """Where nothing has passed: the shortest pause, unless that, or a shorter one, has failed."""
        return self._spec.shortest_ns if failed is None or failed > self._spec.shortest_ns else None

    def _confirmed(self, tries: Sequence[ToleranceTry], passed: int) -> int | None:
        """The longest pause that passed, until it has passed as often as it has to."""
        count = sum(one.pause_ns == passed and one.outcome is Outcome.PASSED for one in tries)
        return passed if count < self._spec.tries else None


def _bracket(tries: Sequence[ToleranceTry]) -> tuple[int | None, int | None]:
    """The longest pause that passed in all of its tries, and the shortest that failed in any."""
    failed = min((one.pause_ns for one in tries if one.outcome is Outcome.FAILED), default=None)
    passed = (one.pause_ns for one in tries if one.outcome is Outcome.PASSED)
    return max((pause for pause in passed if failed is None or pause < failed), default=None), failed


def most_tries(spec: ToleranceSpec) -> int:
    """How many tries a search takes at most, without a budget: each of its pauses `tries` times, and two
    inconclusive ones before each of those and at the end."""
    ratio = max(spec.longest_ns / spec.shortest_ns, 1.0)
    pauses = 3 + floor(2 * log(ratio) / log(1 + spec.precision)) if spec.precision > 0 else inf
    by_rounding = 3 + (spec.longest_ns - spec.shortest_ns) // ROUND_NS
    conclusive = spec.tries * int(min(pauses, by_rounding))
    return conclusive + (MOST_INCONCLUSIVE - 1) * conclusive + MOST_INCONCLUSIVE
