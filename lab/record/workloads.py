"""Judges the workloads of a history, and makes their entries in run.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.core.clock import Interval
from lab.core.history import ToleranceTried, WorkloadSampled, WorkloadStarted
from lab.core.method import Regime
from lab.core.plan import Cell, WorkloadSpec
from lab.core.result import CycleResult
from lab.core.verdict import Finding, Outcome, worst
from lab.core.workload.findings import workload_findings
from lab.core.workload.judge import WorkloadResult, WorkloadWindow, measure_workload
from lab.core.workload.prediction import WorkloadPrediction, predictions
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.states import Overlap
from lab.core.workload.tolerance import ToleranceResult, ToleranceSearch, ToleranceTry
from lab.record.cycle import measure_of
from lab.record.journal import History
from lab.record.model_clock import Measure
from lab.record.model_workload import (
    OverlapRecord,
    StateChangeRecord,
    ToleranceRecord,
    TryRecord,
    WorkloadCycleRecord,
    WorkloadPredicted,
    WorkloadRecord,
)
from lab.record.workload_windows import window_in


@dataclass(frozen=True)
class JudgedWorkload:
    """A workload of a cell with its findings, and the search if there was one."""

    record: WorkloadRecord
    findings: tuple[Finding, ...]
    tolerance: ToleranceRecord | None

    @property
    def was_started(self) -> bool:
        """Whether its client ran, or an earlier run had made tries."""
        return bool(self.record.program or (self.tolerance is not None and self.tolerance.tries))

    @property
    def is_known(self) -> bool:
        """Whether earlier runs have ended the search, so this one has nothing to do."""
        return _is_known(self.tolerance)


def _is_known(search: ToleranceRecord | None) -> bool:
    return search is not None and search.complete and all(one.of_run for one in search.tries)


def workloads_of(history: History, cell: Cell, results: Sequence[CycleResult]) -> list[JudgedWorkload]:
    """The workloads of a cell. results: the judged cycles of its guests."""
    return [_Judging(history, cell, spec, results).judged() for spec in cell.workloads]


class _Judging:
    def __init__(
        self, history: History, cell: Cell, spec: WorkloadSpec, results: Sequence[CycleResult]
    ) -> None:
        self._cell, self._spec, self._results = cell, spec, results
        mine = (spec.name, cell.id)
        self._sampled = [one for one in history.of(WorkloadSampled) if (one.workload, one.cell) == mine]
        self._started = next(
            (one for one in history.of(WorkloadStarted) if (one.workload, one.cell) == mine), None
        )
        self._tried = [one for one in history.of(ToleranceTried) if (one.workload, one.cell) == mine]

    def judged(self) -> JudgedWorkload:
        peers = frozenset(guest.name for guest in self._cell.guests if guest.is_peer)
        windows = [replace(window_in(one, self._of_cycle(one.cycle)), peers=peers) for one in self._sampled]
        measured = measure_workload(windows, self._spec, self._cell.expectations.tolerance_ns)
        found: list[Finding] = []
        cycles: list[WorkloadCycleRecord] = []
        outcomes: dict[int, Outcome] = {}
        for sampled, result in zip(self._sampled, measured, strict=True):
            forecast = self._forecast(result)
            own = workload_findings(self._spec, result, forecast, self._cell.id)
            if sampled.problems:
                own = [finding.undecided("its client had problems") for finding in own]
                own.append(self._of_problems(sampled))
            outcomes[sampled.cycle] = worst(finding.outcome for finding in own)
            cycles.append(_cycle(result, forecast, outcomes[sampled.cycle], sampled))
            # A try of a search is there to fail: it is no finding of the run.
            found += [] if self._cell.tolerance is not None and result.window.frozen else own
        tolerance = self._tolerance(outcomes)
        if tolerance is not None:
            found.append(self._of_search(tolerance))
        if not _is_known(tolerance) and (self._started is None or not self._sampled):
            found.append(self._finding("client", "it runs", "it was not started", Outcome.INCONCLUSIVE))
        verdict = worst(finding.outcome for finding in found)
        return JudgedWorkload(self._record(verdict, cycles), tuple(found), tolerance)

    def _of_cycle(self, cycle: int) -> list[CycleResult]:
        return [one for one in self._results if one.observation.cycle == cycle]

    def _forecast(self, result: WorkloadResult) -> tuple[WorkloadPrediction, ...]:
        spec, started = self._spec, self._started
        if spec.shipped not in SHIPPED or started is None or result.window.pause is None:
            return ()
        regimes = {
            one.pause.regime for one in self._of_cycle(result.window.cycle) if one.pause is not None
        } - {None}
        if len(regimes) != 1:
            return ()
        (regime,) = regimes
        thresholds = SHIPPED[spec.shipped].predict(started.config, dict(spec.options), Regime(str(regime)))
        return predictions(thresholds, result)

    def _of_problems(self, sampled: WorkloadSampled) -> Finding:
        number, why = len(sampled.problems), sampled.problems[0]
        text = f"{number} problem{'s' if number > 1 else ''}"
        return self._finding(
            "samples", "without problems", text, Outcome.INCONCLUSIVE, why, cycle=sampled.cycle
        )

    def _finding(
        self, metric: str, wanted: str, text: str, outcome: Outcome, why: str = "", *, cycle: int = -1
    ) -> Finding:
        name = f"workload {self._spec.name}"
        return Finding(name, cycle, metric, wanted, text, outcome, why, self._cell.id)

    def _tolerance(self, outcomes: dict[int, Outcome]) -> ToleranceRecord | None:
        if self._cell.tolerance is None:
            return None
        tries = [(one, ToleranceTry(one.pause_ns, self._outcome(one, outcomes))) for one in self._tried]
        spent = self._tried[-1].spent_ns if self._tried else 0
        result = ToleranceSearch(self._cell.tolerance).result([one for _, one in tries], spent)
        regimes = {
            str(one.pause.regime)
            for one in self._results
            if one.observation.frozen and one.pause is not None and one.pause.regime
        }
        return ToleranceRecord(
            self._spec.name,
            self._cell.id,
            str(self._cell.cycle.method),
            regimes.pop() if len(regimes) == 1 else "",
            result.longest_passed_ns,
            result.shortest_failed_ns,
            tuple(TryRecord(event.cycle, event.pause_ns, one.outcome, event.of_run) for event, one in tries),
            result.complete,
            self._why(result),
            spent,
        )

    def _outcome(self, one: ToleranceTried, outcomes: dict[int, Outcome]) -> Outcome:
        return one.outcome if one.of_run else outcomes.get(one.cycle, Outcome.INCONCLUSIVE)

    def _why(self, result: ToleranceResult) -> str:
        """What ended the search early, as it saw it; judged again, its tries may have come out otherwise."""
        seen = self._tried[-1].ended if self._tried else ""
        return "" if result.complete else seen if seen not in ("", "complete") else result.why

    def _of_search(self, record: ToleranceRecord) -> Finding:
        """A search has passed when it has ended by itself."""
        text = f"{len(record.tries)} tries"
        outcome = Outcome.PASSED if record.complete else Outcome.INCONCLUSIVE
        return self._finding("tolerance", "the search ends", text, outcome, record.why)

    def _record(self, outcome: Outcome, cycles: Sequence[WorkloadCycleRecord]) -> WorkloadRecord:
        started = self._started
        noise = [one.outage.high_ns for one in cycles if one.control and one.outage is not None]
        return WorkloadRecord(
            self._spec.name,
            self._spec.shipped,
            self._cell.id,
            started.program if started is not None else "",
            dict(started.config) if started is not None else {},
            outcome,
            max(noise, default=None),
            tuple(cycles),
        )


def _event_phases(window: WorkloadWindow) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for event in window.events:
        if event.at_ns >= window.began_ns and (phase := window.phase(Interval(event.at_ns, event.at_ns))):
            counts = found.setdefault(event.name, {})
            counts[phase] = counts.get(phase, 0) + 1
    return found


def _overlap(one: Overlap, zero: int) -> OverlapRecord:
    return OverlapRecord(one.name, one.holders, Measure.of(one.length), one.from_ns - zero)


def _cycle(
    result: WorkloadResult,
    forecast: Sequence[WorkloadPrediction],
    outcome: Outcome,
    sampled: WorkloadSampled,
) -> WorkloadCycleRecord:
    window = result.window
    zero = window.paused.low_ns if window.paused is not None else window.began_ns
    stale_window = None
    if window.paused is not None and window.in_time_ns is not None:
        stale_window = max(0, window.in_time_ns - window.paused.high_ns)
    return WorkloadCycleRecord(
        cycle=window.cycle,
        control=not window.frozen,
        outcome=outcome,
        requests=result.requests,
        ok=result.ok,
        failed=result.failed,
        errors=dict(result.errors),
        outage=measure_of(result.outage),
        beyond_pause=measure_of(result.beyond_pause) if window.frozen else None,
        recovery_ns=result.recovery_ns,
        latencies=result.latencies,
        ledger=result.ledger,
        changes=tuple(
            StateChangeRecord(
                one.name, one.before, one.after,
                Measure.of(one.at.shifted(-zero)),
                window.phase(one.at),
            )
            for one in result.changed
        ),
        overlaps=tuple(_overlap(one, zero) for one in result.overlaps),
        events=dict(result.events),
        stale=result.stale,
        stale_window_ns=stale_window,
        predictions=tuple(
            WorkloadPredicted(one.what, one.text, one.happens, one.happened, one.agrees) for one in forecast
        ),
        problems=(*sampled.problems, *result.problems),
        unended=result.unended,
        possible_overlaps=tuple(_overlap(one, zero) for one in result.possible_overlaps),
        steps_ns=tuple(step - zero for step in window.stepped_ns),
        event_phases=_event_phases(window),
        clock_bound_ns=sampled.clock_bound_ns,
        gauges=result.gauges,
        stamps=result.stamps,
    )  # fmt: skip
