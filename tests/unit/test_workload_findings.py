"""Expectations and predictions against what a workload's cycle shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.verdict import Outcome
from lab.core.workload.findings import outcome, workload_findings
from lab.core.workload.judge import WorkloadResult, WorkloadWindow, measure_workload
from lab.core.workload.prediction import Threshold, happened, predictions
from lab.core.workload.sample import StateLook, WorkloadEvent, WorkloadRequest
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec
from tests.unit.simulated_workloads import MS, START, S
from tests.unit.strategies import cases

STOP, WAKE, ENDED = START + 5 * S, START + 9 * S, START + 20 * S


def request(seq: int, at: int, *, took: int = MS, ok: bool = True, late: int = 0) -> WorkloadRequest:
    return WorkloadRequest(seq, at, at + late, at + late + took, ok)


def steady(*, but: Sequence[int] = (), late: int = 0) -> list[WorkloadRequest]:
    """One request each 100 ms, none during the pause; the numbers in `but` fail."""
    times = [at for at in range(START, ENDED, 100 * MS) if not STOP <= at < WAKE]
    numbered = [((at - START) // (100 * MS), at) for at in times]
    return [request(seq, at, ok=seq not in but, late=late) for seq, at in numbered]


def measured(
    requests: Sequence[WorkloadRequest] = (),
    *,
    frozen: bool = True,
    pause: Interval | None = Interval(4 * S, 4 * S),  # noqa: B008
    looks: Sequence[StateLook] = (),
    events: Sequence[WorkloadEvent] = (),
    expect: WorkloadExpect | None = None,
    delivers: bool = False,
) -> tuple[WorkloadSpec, WorkloadResult]:
    spec = WorkloadSpec("it", expect=expect or WorkloadExpect(), delivers=delivers)
    paused = Interval(STOP, WAKE) if frozen else None
    window = WorkloadWindow(
        0, START, ENDED, requests, (), looks, events, frozen, paused, pause if frozen else None
    )
    (result,) = measure_workload([window], spec, MS)
    return spec, result


def verdict(spec: WorkloadSpec, result: WorkloadResult) -> Outcome:
    return outcome(spec, result)


def looks(*values: tuple[int, str | bool], by: str = "a", name: str = "leader") -> list[StateLook]:
    return [StateLook(at, at + MS, {name: value}, by) for at, value in values]


def test_a_client_that_reports_nothing_or_no_success_is_not_passed() -> None:
    assert verdict(*measured()) is Outcome.INCONCLUSIVE
    dead = [request(seq, START + seq * 100 * MS, ok=False) for seq in range(150)]
    assert verdict(*measured(dead)) is Outcome.INCONCLUSIVE, "it was dead before the freeze"
    after = [one for one in dead if one.due_ns > WAKE]
    assert verdict(*measured(after)) is Outcome.FAILED
    assert verdict(*measured(dead, frozen=False)) is Outcome.INCONCLUSIVE
    assert verdict(*measured(steady())) is Outcome.PASSED


@pytest.mark.parametrize("expect", [WorkloadExpect(failed=0), WorkloadExpect(failed=1)])
def test_failed_requests_are_counted_and_without_a_freeze_they_are_inconclusive(
    expect: WorkloadExpect,
) -> None:
    requests = steady(but=(93, 95))
    assert verdict(*measured(requests, expect=expect)) is Outcome.FAILED
    assert verdict(*measured(requests, expect=expect, frozen=False)) is Outcome.INCONCLUSIVE
    assert verdict(*measured(requests, expect=WorkloadExpect(failed=2))) is Outcome.PASSED


def test_what_failed_before_the_stop_is_no_effect_of_the_freeze() -> None:
    requests = steady(but=(3, 95))
    assert verdict(*measured(requests, expect=WorkloadExpect(failed=0))) is Outcome.INCONCLUSIVE
    assert verdict(*measured(requests, expect=WorkloadExpect(failed=1))) is Outcome.FAILED
    gone = WorkloadExpect(never=("gone",))
    early, late = WorkloadEvent("gone", STOP - S, ""), WorkloadEvent("gone", WAKE + S, "")
    assert verdict(*measured(steady(), events=[early, late], expect=gone)) is Outcome.INCONCLUSIVE
    assert verdict(*measured(steady(), events=[late], expect=gone)) is Outcome.FAILED
    same = WorkloadExpect(unchanged=("leader",))
    before = looks((START + S, "a"), (START + 2 * S, "b"), (WAKE + S, "b"))
    after = looks((START + S, "a"), (START + 2 * S, "a"), (WAKE + S, "b"))
    assert verdict(*measured(steady(), looks=before, expect=same)) is Outcome.INCONCLUSIVE
    assert verdict(*measured(steady(), looks=after, expect=same)) is Outcome.FAILED


def test_an_outage_that_was_over_before_the_stop_is_not_the_freezes() -> None:
    short = WorkloadExpect(outage_ns=2 * S)
    quiet = [one for one in steady() if not START + S <= one.due_ns < STOP - S]
    going_on = [request((at - START) // (100 * MS), at) for at in range(STOP, WAKE, 100 * MS)]
    assert verdict(*measured([*quiet, *going_on], expect=short)) is Outcome.INCONCLUSIVE
    assert verdict(*measured(steady(), expect=short)) is Outcome.INCONCLUSIVE, "not asked in the pause"
    asked = [replace(one, ok=False) for one in going_on]
    assert verdict(*measured([*steady(), *asked], expect=short)) is Outcome.FAILED


def test_samples_of_long_ago_are_told() -> None:
    old = [request(seq, seq * MS) for seq in range(50)]
    spec, result = measured(old)
    (finding,) = workload_findings(spec, result)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "over before the cycle began" in finding.why


def test_nothing_passes_by_not_being_reported() -> None:
    seen = looks((START, "a"), (WAKE, "a"))
    for expect in (
        WorkloadExpect(failed=0),
        WorkloadExpect(lost=0),
        WorkloadExpect(twice=0),
        WorkloadExpect(wrong_stamps=0),
        WorkloadExpect(outage_ns=S),
        WorkloadExpect(unchanged=("term",)),
        WorkloadExpect(one_holder=("master",)),
    ):
        assert verdict(*measured(looks=seen, expect=expect)) is Outcome.INCONCLUSIVE, expect


def test_a_pause_that_is_not_known_leaves_what_is_beyond_it_open() -> None:
    expect = WorkloadExpect(beyond_pause_ns=S)
    requests = [*steady(), request(50, STOP, took=4 * S)]
    assert verdict(*measured(requests, expect=expect)) is Outcome.PASSED
    assert verdict(*measured(requests, expect=expect, pause=None)) is Outcome.INCONCLUSIVE
    spec, result = measured(requests, expect=expect, pause=Interval(S, S))
    assert verdict(spec, result) is Outcome.FAILED


def test_a_service_that_never_comes_back_has_not_passed_because_the_cycle_was_short() -> None:
    requests = [one for one in steady() if one.due_ns < STOP]
    (one,) = (
        f
        for f in workload_findings(*measured(requests, expect=WorkloadExpect(outage_ns=60 * S)))
        if f.metric == "outage"
    )
    assert one.outcome is Outcome.INCONCLUSIVE
    assert "when the cycle ended" in one.why


def test_a_client_that_is_late_itself_fails_nobody() -> None:
    expect = WorkloadExpect(outage_ns=S)
    blocked = [*steady(late=30 * MS), request(50, STOP, took=4 * S)]
    assert verdict(*measured(blocked, expect=expect)) is Outcome.INCONCLUSIVE
    assert verdict(*measured([*steady(), request(50, STOP, took=4 * S)], expect=expect)) is Outcome.FAILED


def test_events_that_must_not_happen() -> None:
    expect = WorkloadExpect(never=("fenced",))
    assert verdict(*measured(steady(), expect=expect)) is Outcome.PASSED
    event = WorkloadEvent("fenced", WAKE)
    assert verdict(*measured(steady(), events=[event], expect=expect)) is Outcome.FAILED


# Predictions


@given(
    st.integers(0, 60 * S),
    st.integers(0, 3 * S),
    st.integers(0, 60 * S),
    st.integers(0, 3 * S),
    st.integers(0, 4),
)
@cases(1000)
def test_a_prediction_from_bounds_is_never_wrong(
    at: int, around: int, pause: int, width: int, place: int
) -> None:
    """The true threshold and the true pause lie anywhere in their intervals."""
    threshold, true_at = Interval(at, at + around), at + around * place // 4
    bounds, true_pause = Interval(pause, pause + width), pause + width * (4 - place) // 4
    _, result = measured(steady(), pause=bounds)
    (found,) = predictions([Threshold("fenced", threshold, "timer 3 s")], result)
    if found.happens is not None:
        assert found.happens == (true_pause > true_at) or true_pause == true_at
    decided = bounds.high_ns < threshold.low_ns or bounds.low_ns > threshold.high_ns
    assert (found.happens is not None) == decided
    assert found.happened is False
    assert found.agrees is (None if found.happens is None else not found.happens)


def test_what_has_several_thresholds_happens_from_the_shortest_on() -> None:
    """Two timers of the same: the longer one's silence is no forecast that it does not happen."""
    several = [
        Threshold("gone", Interval(10 * S, 10 * S), "slow"),
        Threshold("gone", Interval(2 * S, 3 * S), "fast"),
    ]
    event = WorkloadEvent("gone", WAKE)
    _, result = measured(steady(), events=[event])
    (found,) = predictions(several, result)
    assert (found.happens, found.happened, found.agrees) == (True, True, True)
    assert "fast" in found.text
    _, short = measured(steady(), pause=Interval(S, S))
    (found,) = predictions([*several, Threshold("gone", None, "never by this one")], short)
    assert (found.happens, found.happened) == (False, False)
    assert "fast" in found.text


def test_no_pause_no_prediction() -> None:
    never = [Threshold("lost", None, "it is idle")]
    assert predictions(never, measured(steady(), frozen=False)[1]) == ()
    assert predictions(never, measured(steady(), pause=None)[1]) == ()
    (found,) = predictions(never, measured(steady())[1])
    assert (found.happens, found.happened) == (False, None)
    assert "at no pause" in found.text


def test_what_was_not_looked_at_has_neither_happened_nor_not() -> None:
    before = looks((START, "a"), (START + S, "a"))
    _, blind = measured(steady(), looks=before)
    assert happened("leader", blind) is None
    _, seen = measured(steady(), looks=[*before, *looks((WAKE + S, "a"))])
    assert happened("leader", seen) is False
    _, moved = measured(steady(), looks=[*before, *looks((WAKE + S, "b"))])
    assert happened("leader", moved) is True
    assert happened("two master", seen) is None
    assert happened("lost", seen) is None
    unknown = [StateLook(at, at + MS, {"term": None}) for at in (START, WAKE)]
    assert happened("term", measured(steady(), looks=unknown)[1]) is None
    assert happened("leader", measured()[1]) is None


def test_an_outage_is_one_when_it_is_certainly_longer_than_the_pause_and_a_second() -> None:
    def out(took: int) -> bool | None:
        kept = [one for one in steady() if not STOP <= one.due_ns < STOP + took]
        return happened("outage", measured([*kept, request(50, STOP, took=took)])[1])

    assert out(4 * S + 10 * MS) is False
    assert out(5 * S - 20 * MS) is None
    assert out(5 * S + 10 * MS) is True


def test_two_holders_are_predicted_and_seen() -> None:
    held = looks((START, True), (WAKE + S, True), by="a", name="vip")
    other = looks((START, False), (START + S, True), (WAKE + S, True), by="b", name="vip")
    expect = WorkloadExpect(one_holder=("vip",), as_predicted=True)
    spec, result = measured(steady(), looks=[*held, *other], expect=expect)
    forecast = predictions([Threshold("two vip", Interval(S, S), "no fencing")], result)
    assert [one.agrees for one in forecast] == [True]
    found = {one.metric: one.outcome for one in workload_findings(spec, result, forecast)}
    assert (found["vip"], found["as predicted"]) == (Outcome.FAILED, Outcome.PASSED)
    wrong = predictions([Threshold("two vip", None, "fenced")], result)
    (contradicted,) = (one for one in workload_findings(spec, result, wrong) if one.metric == "as predicted")
    assert contradicted.outcome is Outcome.FAILED
