"""Compares what a workload has to show with what it showed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.core.clock import Interval
from lab.core.units import format_duration
from lab.core.verdict import Finding, Outcome, at_most, worst
from lab.core.workload.judge import WorkloadResult
from lab.core.workload.prediction import WorkloadPrediction
from lab.core.workload.spec import WorkloadSpec

LATE_NS = 20_000_000
"""A client whose median lateness is above this has measured itself, not the guest."""


def workload_findings(
    spec: WorkloadSpec, result: WorkloadResult, forecast: Sequence[WorkloadPrediction] = (), cell: str = ""
) -> list[Finding]:
    """The findings of one workload's cycle. In a cycle without a freeze what is violated is inconclusive: the
    set-up is not stable by itself."""
    found = list(_Checks(spec, result, forecast, cell).all())
    if result.window.frozen:
        return found
    why = "it is unstable without a freeze"
    return [
        Finding(f.guest, f.cycle, f.metric, f.expectation, f.measured, Outcome.INCONCLUSIVE, why, f.cell)
        if f.outcome is Outcome.FAILED
        else f
        for f in found
    ]


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
        if not result.requests and not result.names and not result.events:
            return
        yield from self._at_most("outage", expect.outage_ns, result.outage)
        yield from self._at_most("outage beyond the pause", expect.beyond_pause_ns, result.beyond_pause)
        yield from self._counted("failed requests", expect.failed, result.failed)
        book = result.ledger
        yield from self._counted("lost", expect.lost, None if book is None else book.lost)
        yield from self._counted("delivered twice", expect.twice, None if book is None else book.twice)
        stale = result.stale
        yield from self._counted("wrong stamps", expect.wrong_stamps, None if stale is None else stale.wrong)
        for name in expect.unchanged:
            yield self._unchanged(name)
        for name in expect.one_holder:
            yield self._one_holder(name)
        counts = dict(result.events)
        for name in expect.never:
            yield from self._counted(name, 0, counts.get(name, 0))
        if expect.as_predicted:
            yield from self._predicted()

    def _finding(self, metric: str, wanted: str, measured: str, verdict: Outcome, why: str = "") -> Finding:
        name = f"workload {self._spec.name}"
        return Finding(name, self._result.window.cycle, metric, wanted, measured, verdict, why, self._cell)

    def _heard(self) -> Finding:
        """Without samples, or with a client that does not keep its own schedule, nothing is known."""
        result, late = self._result, self._result.latencies
        wanted, measured = "samples", f"{result.requests} requests, {len(result.window.looks)} looks"
        if not result.requests and not result.names and not result.events:
            why = "its client reported nothing"
            return self._finding("client", wanted, "none", Outcome.INCONCLUSIVE, why)
        if result.requests and not result.ok:
            why = "not one request succeeded"
            frozen = self._result.window.frozen
            return self._finding(
                "client", wanted, measured, Outcome.FAILED if frozen else Outcome.INCONCLUSIVE, why
            )
        if late is not None and late.late_p50_ns is not None and late.late_p50_ns > LATE_NS:
            why = f"the client itself is late by {format_duration(late.late_p50_ns)} at the median"
            return self._finding("client", wanted, measured, Outcome.INCONCLUSIVE, why)
        return self._finding("client", wanted, measured, Outcome.PASSED)

    def _at_most(self, metric: str, limit: int | None, measured: Interval | None) -> Iterator[Finding]:
        if limit is None:
            return
        wanted = f"at most {format_duration(limit)}"
        if measured is None:
            why = "there were no two successes"
            yield self._finding(metric, wanted, "unknown", Outcome.INCONCLUSIVE, why)
            return
        text = format_duration(measured.mid_ns)
        yield self._finding(metric, wanted, text, at_most(limit, measured.low_ns, measured.high_ns))

    def _counted(self, metric: str, limit: int | None, count: int | None) -> Iterator[Finding]:
        if limit is None:
            return
        wanted = f"at most {limit}" if limit else "none"
        if count is None:
            yield self._finding(metric, wanted, "unknown", Outcome.INCONCLUSIVE, "it was not reported")
            return
        verdict = Outcome.PASSED if count <= limit else Outcome.FAILED
        yield self._finding(metric, wanted, str(count) if count else "none", verdict)

    def _unchanged(self, name: str) -> Finding:
        result = self._result
        if name not in result.names:
            why = "nobody reported it"
            return self._finding(name, "unchanged", "unknown", Outcome.INCONCLUSIVE, why)
        moves = [change for change in result.changed if change.name == name]
        if not moves:
            return self._finding(name, "unchanged", "unchanged", Outcome.PASSED)
        values = [str(moves[0].before), *(str(change.after) for change in moves)]
        return self._finding(name, "unchanged", " → ".join(values[:6]), Outcome.FAILED)

    def _one_holder(self, name: str) -> Finding:
        result, wanted = self._result, "one holder at a time"
        if name not in result.names:
            return self._finding(name, wanted, "unknown", Outcome.INCONCLUSIVE, "nobody reported it")
        found = [overlap for overlap in result.overlaps if overlap.name == name]
        if not found:
            return self._finding(name, wanted, "one", Outcome.PASSED)
        longest = max(found, key=lambda overlap: overlap.length.low_ns)
        low, high = (format_duration(ns) for ns in (longest.length.low_ns, longest.length.high_ns))
        text = f"{' and '.join(longest.holders)} for {low} to {high}"
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
