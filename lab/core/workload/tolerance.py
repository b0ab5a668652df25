"""The search for the shortest pause that a workload fails at.

Timers have a phase: a pause near a threshold fails in one try and passes in the next. So the result is two
pauses, the longest that passed in all of its tries and the shortest that failed in any, and the tries.

The search brackets first: it begins at the shortest pause and doubles it until one fails. Then it halves the
bracket, on a logarithmic scale, until its ends are closer than the precision. Each pause is tried up to
`tries` times, and no more once it has failed. Last, the longest pause that passed is tried as often again
as there are tries, because it is the one that the result is trusted for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome

ROUND_NS = 10 * NS_PER_MS
"""Pauses are whole multiples of this, so that they are easy to read and to repeat."""


@dataclass(frozen=True)
class ToleranceSpec:
    """What is searched, and how long.

    shortest_ns, longest_ns: the range of pauses. tries: of each pause. precision: the search ends when the
    ends of the bracket are closer than this share of the shorter one. budget_ns: the longest time of the
    search for one workload in one regime; a try that has begun is finished.
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
    the search has ended by itself; else why says what ended it."""

    longest_passed_ns: int | None
    shortest_failed_ns: int | None
    tries: tuple[ToleranceTry, ...]
    complete: bool
    why: str = ""


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
        passed, failed = self._bracket(tries)
        why = self.ended_by(tries, spent_ns)
        complete = why == "complete"
        return ToleranceResult(passed, failed, tuple(tries), complete, "" if complete else why or "stopped")

    def _wanted(self, tries: Sequence[ToleranceTry]) -> int | None:
        spec = self._spec
        begun = self._unfinished(tries)
        if begun is not None:
            return begun
        passed, failed = self._bracket(tries)
        if passed is None:
            return None if failed is not None else spec.shortest_ns
        if failed is None:
            return (
                min(2 * passed, spec.longest_ns)
                if passed < spec.longest_ns
                else self._once_more(tries, passed)
            )
        middle = round(sqrt(passed * failed) / ROUND_NS) * ROUND_NS
        if failed - passed <= spec.precision * passed or not passed < middle < failed:
            return self._once_more(tries, passed)
        return middle

    def _once_more(self, tries: Sequence[ToleranceTry], passed: int) -> int | None:
        """The longest pause that passed, until it has been tried twice as often as others."""
        count = sum(one.pause_ns == passed and one.outcome is Outcome.PASSED for one in tries)
        return passed if count < 2 * self._spec.tries else None

    def _unfinished(self, tries: Sequence[ToleranceTry]) -> int | None:
        """The last pause, if it has not failed and has fewer tries than it is to have."""
        if not tries:
            return None
        pause = tries[-1].pause_ns
        own = [one.outcome for one in tries if one.pause_ns == pause]
        if Outcome.FAILED in own or own.count(Outcome.PASSED) >= self._spec.tries:
            return None
        return pause

    def _bracket(self, tries: Sequence[ToleranceTry]) -> tuple[int | None, int | None]:
        """The longest pause that passed in all tries, and in enough of them, and the shortest that failed."""
        failed = min((one.pause_ns for one in tries if one.outcome is Outcome.FAILED), default=None)
        passed = None
        for pause in sorted({one.pause_ns for one in tries}):
            if failed is not None and pause >= failed:
                break
            count = sum(one.pause_ns == pause and one.outcome is Outcome.PASSED for one in tries)
            if count >= self._spec.tries:
                passed = pause
        return passed, failed
