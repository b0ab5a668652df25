"""Compares what a workload has to show with what it showed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.core.clock import Interval
from lab.core.quantities import format_at_latest, format_between, format_short
from lab.core.units import format_duration
from lab.core.verdict import Finding, Outcome, at_most, worst
from lab.core.workload.judge import WorkloadResult
from lab.core.workload.prediction import WorkloadPrediction
from lab.core.workload.spec import WorkloadSpec
from lab.core.workload.stability import (
    events_before,
    failed_before,
    has_changed_before,
    has_two_holders_before,
    outage_is_before,
)
from lab.core.workload.stamps import ANSWER

LATE_NS = 20_000_000
"""A client whose median lateness is above this has measured itself, not the guest."""


def workload_findings(
    spec: WorkloadSpec, result: WorkloadResult, forecast: Sequence[WorkloadPrediction] = (), cell: str = ""
) -> list[Finding]:
    """The findings of one workload's cycle. In a cycle without a freeze what is violated is inconclusive: the
    set-up is not stable by itself. So is what was violated before the stop already, and what a client shows
    that cannot be believed."""
    found = list(_Checks(spec, result, forecast, cell).all())
    if result.window.frozen and not result.problems:
        return found
    why = "its client cannot be believed" if result.problems else "it is unstable without a freeze"
    return [finding.undecided(why) for finding in found]


def _unless(is_before: bool, finding: Finding) -> Finding:
    """The finding; inconclusive, in place of failed, when it was so before the freeze."""
    return finding.undecided("it was so before the freeze already") if is_before else finding


def outcome(spec: WorkloadSpec, result: WorkloadResult) -> Outcome:
    """Whether the workload has endured this cycle."""
    return worst(finding.outcome for finding in workload_findings(spec, result))


class _Checks:
    def __init__(
        self,
        spec: WorkloadSpec,
        result: WorkloadResult,
        forecast: Sequence[WorkloadPrediction],
        cell: str,
    ) -> None:
        self._spec, self._expect, self._result = spec, spec.expect, result
        self._forecast, self._cell = forecast, cell

    def all(self) -> Iterator[Finding]:
        result, expect = self._result, self._expect
        yield self._heard()
        if result.is_empty:
            return
        is_before = outage_is_before(result)
        for finding in (
            *self._at_most("outage", expect.outage_ns, result.outage),
            *self._at_most("outage beyond the pause", expect.beyond_pause_ns, result.beyond_pause),
        ):
            yield _unless(is_before, finding)
        failed = result.failed if result.requests else None
        for finding in self._counted("failed requests", expect.failed, failed):
            yield _unless(failed_before(result) > (expect.failed or 0), finding)
        book = result.ledger
        late = "acknowledged so late that they may be on their way"
        lost, undecided = (None, 0) if book is None else (book.lost, book.undecided)
        yield from self._counted("lost", expect.lost, lost, undecided, late)
        yield from self._counted("delivered twice", expect.twice, None if book is None else book.twice)
        yield from self._stamps()
        for name in expect.unchanged:
            yield _unless(has_changed_before(result, name), self._unchanged(name))
        for name in expect.one_holder:
            yield _unless(has_two_holders_before(result, name), self._one_holder(name))
        counts = dict(result.events)
        for name in expect.never:
            for finding in self._counted(name, 0, counts.get(name, 0)):
                yield _unless(events_before(result, name) > 0, finding)
        if expect.as_predicted:
            yield from self._predicted()

    def _finding(self, metric: str, wanted: str, measured: str, verdict: Outcome, why: str = "") -> Finding:
        name = f"workload {self._spec.name}"
        return Finding(name, self._result.window.cycle, metric, wanted, measured, verdict, why, self._cell)

    def _heard(self) -> Finding:
        """Without samples, or with a client that does not keep its own schedule, nothing is known."""
        result, late = self._result, self._result.latencies
        wanted, measured = "samples", f"{result.requests} requests, {len(result.window.looks)} looks"
        if result.is_empty:
            why = "its client reported nothing"
            if result.window.requests or result.window.looks or result.window.events:
                why = "its client reported only what was over before the cycle began, by its hello's clock"
            return self._finding("client", wanted, "none", Outcome.INCONCLUSIVE, why)
        if result.problems:
            return self._finding("client", wanted, measured, Outcome.INCONCLUSIVE, result.problems[0])
        if result.requests and not result.ok:
            return self._finding("client", wanted, measured, *self._nothing_succeeded())
        if self._is_late() and late is not None and late.late_p50_ns is not None:
            why = f"the client itself is late by {format_short(late.late_p50_ns)} at the median"
            return self._finding("client", wanted, measured, Outcome.INCONCLUSIVE, why)
        return self._finding("client", wanted, measured, Outcome.PASSED)

    def _nothing_succeeded(self) -> tuple[Outcome, str]:
        window = self._result.window
        if not window.frozen or window.paused is None:
            return Outcome.INCONCLUSIVE, "not one request succeeded"
        if any(one.done_ns < window.paused.low_ns for one in window.requests):
            return Outcome.INCONCLUSIVE, "not one request succeeded, not even before the freeze"
        return Outcome.FAILED, "not one request succeeded"

    def _is_late(self) -> bool:
        late = self._result.latencies
        return late is not None and late.late_p50_ns is not None and late.late_p50_ns > LATE_NS

    def _at_most(self, metric: str, limit: int | None, measured: Interval | None) -> Iterator[Finding]:
        if limit is None:
            return
        wanted = f"at most {format_duration(limit)}"
        if measured is None:
            known = self._result.outage is not None
            why = "the pause is not known" if known else "there was no success"
            yield self._finding(metric, wanted, "unknown", Outcome.INCONCLUSIVE, why)
            return
        text = format_between(max(0, measured.low_ns), measured.high_ns) if measured.high_ns > 0 else "none"
        verdict, why = at_most(limit, measured.low_ns, measured.high_ns), ""
        if verdict is Outcome.PASSED and self._result.unended:
            verdict, why = Outcome.INCONCLUSIVE, "there was no success any more when the cycle ended"
        if verdict is Outcome.FAILED and self._is_late():
            verdict, why = Outcome.INCONCLUSIVE, "the client itself is late"
        yield self._finding(metric, wanted, text, verdict, why)

    def _counted(
        self, metric: str, limit: int | None, count: int | None, undecided: int = 0, because: str = ""
    ) -> Iterator[Finding]:
        """undecided: how many more it may be; because: why."""
        if limit is None:
            return
        wanted = f"at most {limit}" if limit else "none"
        if count is None:
            yield self._finding(metric, wanted, "unknown", Outcome.INCONCLUSIVE, "it was not reported")
            return
        text, why = str(count) if count else "none", ""
        verdict = at_most(limit, count, count + undecided)
        if verdict is Outcome.INCONCLUSIVE:
            text, why = f"{count} to {count + undecided}", f"{undecided} {because}"
        yield self._finding(metric, wanted, text, verdict, why)

    def _stamps(self) -> Iterator[Finding]:
        kinds, expect = self._result.stamped, self._expect
        slow = "answered too slowly for the tolerance"
        for kind in kinds:
            metric = "wrong stamps" if kind.what == ANSWER else f"wrong stamps, {kind.what}"
            wrong = kind.wrong if kind.stamped else None
            yield from self._counted(metric, expect.wrong_stamps, wrong, kind.undecided, slow)
        if not kinds:
            yield from self._counted("wrong stamps", expect.wrong_stamps, None)
        refused = sum(kind.refused for kind in kinds)
        yield from self._counted("refused by date", expect.refused, refused if self._result.stamps else None)

    def _unchanged(self, name: str) -> Finding:
        result = self._result
        if name not in result.names:
            why = "nobody reported it"
            return self._finding(name, "unchanged", "unknown", Outcome.INCONCLUSIVE, why)
        moves = [change for change in result.changed if change.name == name]
        if not moves and not result.is_looked_at(name):
            why = "it was not asked for both before and after"
            return self._finding(name, "unchanged", "unknown", Outcome.INCONCLUSIVE, why)
        if not moves:
            return self._finding(name, "unchanged", "unchanged", Outcome.PASSED)
        values = [str(moves[0].before), *(str(change.after) for change in moves)]
        return self._finding(name, "unchanged", " → ".join(values[:6]), Outcome.FAILED)

    def _one_holder(self, name: str) -> Finding:
        result, wanted = self._result, "one holder at a time"
        if name not in result.names:
            return self._finding(name, wanted, "unknown", Outcome.INCONCLUSIVE, "nobody reported it")
        found = [overlap for overlap in result.overlaps if overlap.name == name]
        if not found and not result.is_looked_at(name):
            why = "it was not asked for both before and after"
            return self._finding(name, wanted, "unknown", Outcome.INCONCLUSIVE, why)
        maybe = [overlap for overlap in result.possible_overlaps if overlap.name == name]
        if not found and maybe:
            most = max(maybe, key=lambda overlap: overlap.length.high_ns)
            text = f"{' and '.join(most.holders)} for {format_at_latest(most.length.high_ns)} at most"
            why = "the looks do not tell when it was given up and taken"
            return self._finding(name, wanted, text, Outcome.INCONCLUSIVE, why)
        if not found:
            return self._finding(name, wanted, "one", Outcome.PASSED)
        longest = max(found, key=lambda overlap: overlap.length.low_ns)
        between = format_between(longest.length.low_ns, longest.length.high_ns)
        text = f"{' and '.join(longest.holders)} for {between}"
        return self._finding(name, wanted, text, Outcome.FAILED)

    def _predicted(self) -> Iterator[Finding]:
        if not self._result.window.frozen:
            return
        for each in self._forecast:
            if each.happens is None:
                continue
            wanted = f"{each.what} {'happens' if each.happens else 'does not happen'}"
            if each.happened is None:
                why = "it could not be seen"
                yield self._finding("as predicted", wanted, "unknown", Outcome.INCONCLUSIVE, why)
                continue
            measured = "it happened" if each.happened else "it did not happen"
            verdict = Outcome.PASSED if each.agrees else Outcome.FAILED
            yield self._finding("as predicted", wanted, measured, verdict, "" if each.agrees else each.text)
