"""Checks that a guest is back in time after its second and its tenth pause as well as after its first.

A mechanism that works once proves little: some programs step the clock only in their first updates
(chrony.conf(5), the limit of makestep), some end, and some lengthen their polling interval.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.clock import Interval
from lab.core.clock_disturbance import delay_of
from lab.core.plan import Expectations
from lab.core.quantities import format_seconds
from lab.core.result import CycleResult
from lab.core.resync import SyncOutcome
from lab.core.resync_findings import ResyncFindings
from lab.core.units import NS_PER_S
from lab.core.verdict import Finding, Outcome, at_most, worst

METRIC = "resync again"

TIMES, SLACK_NS = 2, 1 * NS_PER_S
"""A later resync is as good as the first when it takes at most TIMES as long plus SLACK_NS, or no longer than
its forecast allows, because the phase of polls varies."""


def _allowed_ns(first: Interval, later: CycleResult) -> int:
    allowed = TIMES * first.high_ns + SLACK_NS
    forecast = later.forecast
    if forecast is not None and forecast.repaired and forecast.within is not None:
        allowed = max(allowed, forecast.within.high_ns + SLACK_NS)
    return allowed


def _judged(later: CycleResult, first: Interval, expect: Expectations) -> tuple[Outcome, str]:
    """The outcome of one later resync. What a busy host may have delayed by as much as it was late is
    inconclusive, as it is in the cycle's own findings."""
    resync, number = later.resync, later.observation.cycle
    took = f"the first took {format_seconds(first.high_ns)}"
    if resync is None or resync.outcome is SyncOutcome.UNDECIDED:
        return Outcome.INCONCLUSIVE, f"cycle {number} is undecided, {took}"
    delay = delay_of(later.observation, resync.time)
    if resync.time is None:
        why = f"not in time in cycle {number}, {took}"
        (own,) = ResyncFindings(later, expect).in_time()
        if delay.longest_ns and own.outcome is Outcome.INCONCLUSIVE:
            return Outcome.INCONCLUSIVE, f"{why}; {delay.text}"
        return Outcome.FAILED, why
    allowed = _allowed_ns(first, later)
    outcome = at_most(allowed, resync.time.low_ns, resync.time.high_ns)
    why = (
        ""
        if outcome is Outcome.PASSED
        else f"cycle {number} took {format_seconds(resync.time.high_ns)}, {took}"
    )
    over_ns = resync.time.low_ns - allowed
    if outcome is Outcome.FAILED and later.mechanism.repairs and over_ns <= delay.longest_ns:
        return Outcome.INCONCLUSIVE, f"{why}; {delay.text}"
    return outcome, why


def again(results: Sequence[CycleResult], expect: Expectations) -> list[Finding]:
    """One finding over all of a guest's cycles in one cell; none without two pauses, without an expectation
    of the resync, or when the guest was not in time after the first pause: that has a finding of its own."""
    paused = [r for r in results if r.observation.frozen and not r.control]
    if expect.in_time_within_ns is None or len(paused) < 2:
        return []
    first, *later = paused
    if first.resync is None or first.resync.time is None:
        return []
    judged = [_judged(result, first.resync.time, expect) for result in later]
    outcome = worst(each for each, _ in judged)
    good = sum(each is Outcome.PASSED for each, _ in judged)
    why = next((why for each, why in judged if each is outcome), "")
    obs = first.observation
    text = f"{good} of {len(later)} later pauses"
    return [Finding(obs.guest, -1, METRIC, "as good as the first", text, outcome, why, obs.cell)]
