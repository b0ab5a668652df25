"""How long nothing was answered, as a client sees it that asks now and then.

The outage is the longest time that somebody who asks all the time would have waited for an answer. So the
latency of one request belongs to it, and the client's own period does not: a client cannot miss what it does
not ask for. Both bounds follow from what it asked:

- At most: from when a success was asked for until the next one was there, that was asked for later. All that
  was served before an outage was asked for before it, and all that was served after it was there after it.
- At least: what one request waited, unless one that was asked for later was there sooner (by more than some
  latencies: after a freeze all that waited are answered at once, in any order); or the time between requests
  that failed. Two that failed, with no success under way between them, are one outage: it is assumed
  that nothing would have been answered between them. What the next success waited is added.

A cycle's outage is the part of it that lies in the cycle.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

from lab.core.clock import Interval
from lab.core.units import NS_PER_MS
from lab.core.workload.sample import WorkloadRequest

QUIET = 3
"""How many of its usual steps a client has to be without success at the end of a cycle for the outage to be
called unended."""

QUIET_NS = 500 * NS_PER_MS
"""At least so long: a client each millisecond is not in an outage because the host was busy for three."""

SOME = 3
"""Answers within this many latencies (the lower quartile of them) came together."""


@dataclass(frozen=True)
class Outage:
    """The longest outage of a cycle. from_ns: host MONOTONIC_RAW of the last answer before it. unended: the
    cycle ended in an outage, so that it may have become longer than any bound."""

    length: Interval
    from_ns: int
    unended: bool


def longest_outage(
    requests: Sequence[WorkloadRequest], began_ns: int, ended_ns: int, period_ns: int | None = None
) -> Outage | None:
    """The longest outage between began_ns and ended_ns (host MONOTONIC_RAW); None without a success.
    period_ns: between two requests; None: unknown."""
    spans = [
        (max(one.sent_ns, began_ns), min(one.done_ns, ended_ns), one.ok)
        for one in requests
        if one.done_ns >= began_ns and one.sent_ns <= ended_ns
    ]
    good = sorted((sent, done) for sent, done, ok in spans if ok)
    if not good:
        return None
    bad = sorted(sent for sent, _, ok in spans if not ok)
    soonest = list(accumulate((done for _, done in reversed(good)), min))[::-1]
    high, since = _at_most(good, soonest, began_ns, ended_ns)
    waits = _waits(good, soonest)
    low = max(*waits, _failing(good, waits, bad))
    return Outage(Interval(low, max(low, high)), since, _unended(good, ended_ns, period_ns))


Spans = Sequence[tuple[int, int]]
"""When successes were asked for, and when they were there; in order of asking."""


def _at_most(good: Spans, soonest: Sequence[int], began: int, ended: int) -> tuple[int, int]:
    """The upper bound, and the answer from which it counts. soonest: of each success and all that were asked
    for later, when the first was there."""
    longest = (soonest[0] - began, began)
    for (sent, done), there in zip(good, [*soonest[1:], ended], strict=True):
        longest = max(longest, (there - sent, done))
    return longest


def _waits(good: Spans, soonest: Sequence[int]) -> list[int]:
    """What each success waited until it, or one that was asked for later, was there; 0 where that one was
    much sooner: then the answer was late, not the service."""
    latencies = sorted(done - sent for sent, done in good)
    together = SOME * latencies[len(latencies) // 4]
    return [
        first - sent if done - first <= together else 0
        for (sent, done), first in zip(good, soonest, strict=True)
    ]


def _failing(good: Spans, waits: Sequence[int], bad: Sequence[int]) -> int:
    """The longest time between failures with no success under way, and what the next success waited."""
    asked = [sent for sent, _ in good]
    latest = list(accumulate((done for _, done in good), max))

    def is_quiet(since: int, place: int) -> bool:
        """None of the first `place` successes was under way at `since` or later."""
        return place == 0 or latest[place - 1] < since

    longest, start = 0, bad[0] if bad else 0
    for number, this in enumerate(bad):
        if number and not is_quiet(bad[number - 1], bisect_right(asked, this)):
            start = this
        longest = max(longest, this - start)
        place = bisect_left(asked, this)
        if place < len(good) and is_quiet(this, place):
            longest = max(longest, this - start + waits[place])
    return longest


def _unended(good: Spans, ended: int, period: int | None) -> bool:
    steps = [after - before for (before, _), (after, _) in pairwise(good)]
    usual = max(period or 0, int(median(steps)) if steps else 0)
    return ended - good[-1][0] > max(QUIET * usual, QUIET_NS) + (good[-1][1] - good[-1][0])
