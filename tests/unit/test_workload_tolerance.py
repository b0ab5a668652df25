"""The search for the shortest pause that a workload fails at, against workloads with known thresholds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.core.workload.tolerance import (
    MOST_INCONCLUSIVE,
    ToleranceResult,
    ToleranceSearch,
    ToleranceSpec,
    ToleranceTry,
    most_tries,
)
from tests.unit.strategies import cases

S = NS_PER_S
OVERHEAD_NS = 6 * S
"""What a try takes besides its pause: as measured, from one freeze to the next."""

Workload = Callable[[int], Outcome]

specs = st.builds(
    lambda shortest, span, tries, precision: ToleranceSpec(
        shortest, shortest + span, tries, precision, budget_ns=10**18
    ),
    st.sampled_from([10 * NS_PER_MS, 73 * NS_PER_MS, 200 * NS_PER_MS, S, 3 * S]),
    st.integers(0, 120 * S),
    st.integers(1, 5),
    st.sampled_from([0.05, 0.15, 0.5]),
)


def fails_from(threshold_ns: int, window_ns: int = 0, chance: float = 0.5, seed: int = 0) -> Workload:
    """Fails at the threshold and above, and by `chance` within the window below it: the timer's phase."""
    luck = random.Random(seed)

    def endure(pause_ns: int) -> Outcome:
        near = threshold_ns - window_ns <= pause_ns < threshold_ns
        failed = pause_ns >= threshold_ns or (near and luck.random() < chance)
        return Outcome.FAILED if failed else Outcome.PASSED

    return endure


def searched(spec: ToleranceSpec, workload: Workload) -> tuple[ToleranceResult, int]:
    """The result of a whole search, and how long it took."""
    search, tries, spent = ToleranceSearch(spec), list[ToleranceTry](), 0
    while (pause := search.next(tries, spent)) is not None:
        tries.append(ToleranceTry(pause, workload(pause)))
        spent += pause + OVERHEAD_NS
        assert len(tries) <= most_tries(spec)
    return search.result(tries, spent), spent


def check_by_definition(result: ToleranceResult) -> None:
    """Its two pauses are what their names say, counted again from the tries."""
    failed = {one.pause_ns for one in result.tries if one.outcome is Outcome.FAILED}
    passed = {one.pause_ns for one in result.tries if one.outcome is Outcome.PASSED}
    below = {pause for pause in passed - failed if not failed or pause < min(failed)}
    assert result.shortest_failed_ns == (min(failed) if failed else None)
    assert result.longest_passed_ns == (max(below) if below else None)


@given(specs, st.integers(0, 150 * S), st.integers(0, 40 * S), st.floats(0, 1), st.integers(0, 2**32))
@cases(1000)
def test_a_search_ends_with_what_it_is_defined_to_find(
    spec: ToleranceSpec, threshold: int, window: int, chance: float, seed: int
) -> None:
    result, _ = searched(spec, fails_from(threshold, window, chance, seed))
    check_by_definition(result)
    assert result.complete
    passed, failed = result.longest_passed_ns, result.shortest_failed_ns
    if failed is None:
        assert passed == spec.longest_ns
        assert threshold > spec.longest_ns
    else:
        assert failed >= threshold - window, "a pause below all that can fail"
    if passed is None:
        assert failed == spec.shortest_ns
    else:
        assert passed < threshold
        assert result.passes >= spec.tries
    if passed is not None and failed is not None:
        near = failed - passed <= spec.precision * passed
        assert near or round(sqrt(passed * failed) / 1e7) * 10_000_000 in (passed, failed)


@given(specs, st.lists(st.sampled_from(list(Outcome)), max_size=400))
@cases(1000)
def test_a_search_ends_whatever_the_workload_does_within_the_tries_that_are_its_bound(
    spec: ToleranceSpec, outcomes: list[Outcome]
) -> None:
    """A workload that fails at no rule at all: at 4 s, but not at 8 s, and the next time the other way."""
    left = iter(outcomes)
    result, _ = searched(spec, lambda _: next(left, Outcome.FAILED))
    check_by_definition(result)
    if not result.complete:
        assert "inconclusive" in result.why
        assert all(one.outcome is Outcome.INCONCLUSIVE for one in result.tries[-MOST_INCONCLUSIVE:])


@given(specs, st.integers(2, 5), st.randoms(use_true_random=False))
@cases(300)
def test_the_bound_holds_where_each_end_fails_in_its_last_try(
    spec: ToleranceSpec, every: int, luck: random.Random
) -> None:
    """The worst workload: what passed fails when it is tried again, and much is inconclusive besides."""
    times: dict[int, int] = {}

    def endure(pause_ns: int) -> Outcome:
        if luck.random() < 1 / every:
            return Outcome.INCONCLUSIVE
        times[pause_ns] = times.get(pause_ns, 0) + 1
        return Outcome.FAILED if times[pause_ns] >= spec.tries > 1 else Outcome.PASSED

    result, _ = searched(spec, endure)
    check_by_definition(result)


@given(specs, st.lists(st.sampled_from(list(Outcome)), max_size=60))
@cases(500)
def test_a_search_goes_on_from_any_of_its_tries_as_if_it_had_not_stopped(
    spec: ToleranceSpec, outcomes: list[Outcome]
) -> None:
    left = iter(outcomes)
    result, _ = searched(spec, lambda _: next(left, Outcome.PASSED))
    for count, one in enumerate(result.tries):
        assert ToleranceSearch(spec).next(result.tries[:count]) == one.pause_ns
    assert ToleranceSearch(spec).next(result.tries) is None


@pytest.mark.parametrize("seconds", [1, 3.6, 5, 15, 30, 60, 90])
@pytest.mark.parametrize("window", [0.0, 0.2])
def test_one_workload_takes_ten_minutes_at_most(seconds: float, window: float) -> None:
    """As the aim has it: pauses of 1 to 60 s, three tries, 6 s besides. With a phase of a fifth of the
    threshold, in which half of the tries fail, 95 of 100 searches do, and the others have a result all the
    same."""
    threshold = round(seconds * S)
    found = [
        searched(ToleranceSpec(), fails_from(threshold, round(window * threshold), 0.5, seed))
        for seed in range(100 if window else 1)
    ]
    complete = [spent for result, spent in found if result.complete]
    assert len(complete) >= 0.95 * len(found)
    assert max(complete) <= 600 * S + 66 * S, "a try that has begun is finished"
    for result, spent in found:
        check_by_definition(result)
        assert spent <= 666 * S
        if seconds > 1 + window:
            assert result.longest_passed_ns is not None


def test_a_table_of_twelve_workloads_in_two_regimes_takes_two_hours_at_most() -> None:
    """The thresholds of ../shared/WORKLOADS.md, some of them at no pause up to 30 s."""
    seconds = [5, 3.2, 1.5, 30, 6, 9, 6, 0.2, 99, 5, 1, 12]
    spec = ToleranceSpec(longest_ns=30 * S)
    suspended = [searched(spec, fails_from(round(each * S)))[1] for each in seconds]
    jumped = [searched(spec, fails_from(99 * S))[1] for _ in seconds]
    assert sum(suspended) + sum(jumped) <= 7200 * S


def test_an_exact_threshold_is_found_in_few_tries() -> None:
    result, _ = searched(ToleranceSpec(), fails_from(5 * S))
    # 1, 2, 4 pass, 8 fails; 5.66 fails, 4.76 passes, 5.19 fails (9 % above), twice more 4.76.
    pauses = [one.pause_ns // (10 * NS_PER_MS) for one in result.tries]
    assert pauses == [100, 200, 400, 800, 566, 476, 519, 476, 476]
    assert (result.longest_passed_ns, result.shortest_failed_ns) == (4_760_000_000, 5_190_000_000)
    assert result.passes == 3


def test_a_workload_that_fails_at_every_pause_takes_one_try() -> None:
    result, _ = searched(ToleranceSpec(), lambda _: Outcome.FAILED)
    assert (result.longest_passed_ns, result.shortest_failed_ns, len(result.tries)) == (None, S, 1)
    assert result.complete


def test_a_workload_that_fails_at_no_pause_is_tried_at_the_longest_as_often_as_the_plan_has_it() -> None:
    result, _ = searched(ToleranceSpec(), lambda _: Outcome.PASSED)
    assert (result.longest_passed_ns, result.shortest_failed_ns) == (60 * S, None)
    assert [one.pause_ns // S for one in result.tries] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_end_that_fails_when_it_is_tried_again_is_no_longer_the_one_that_passed() -> None:
    # 1 and 2 pass, 4 fails; 2.83 and 3.36 pass; 3.67 fails; then 3.36, which passed, fails.
    fails = {4 * S, 3_670_000_000}
    times: dict[int, int] = {}

    def endure(pause_ns: int) -> Outcome:
        times[pause_ns] = times.get(pause_ns, 0) + 1
        again = pause_ns == 3_360_000_000 and times[pause_ns] == 2
        return Outcome.FAILED if pause_ns in fails or again else Outcome.PASSED

    result, _ = searched(ToleranceSpec(), endure)
    assert result.shortest_failed_ns == 3_360_000_000
    assert result.longest_passed_ns is not None
    assert 2_830_000_000 <= result.longest_passed_ns < 3_360_000_000
    assert result.complete


def test_a_search_whose_time_is_over_says_so_and_has_what_it_knows() -> None:
    search = ToleranceSearch(ToleranceSpec(budget_ns=30 * S))
    tries = [ToleranceTry(S, Outcome.PASSED), ToleranceTry(2 * S, Outcome.PASSED)]
    assert search.next(tries, 29 * S) == 4 * S
    assert search.next(tries, 30 * S) is None
    result = search.result(tries, 30 * S)
    assert (result.longest_passed_ns, result.complete, result.why) == (2 * S, False, "its time is over")


def test_inconclusive_tries_are_repeated_and_end_the_search_when_they_do_not_stop() -> None:
    search = ToleranceSearch(ToleranceSpec())
    tries: list[ToleranceTry] = []
    for outcome in (Outcome.PASSED, Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE):
        tries.append(ToleranceTry(search.next(tries) or 0, outcome))
    assert [one.pause_ns // S for one in tries] == [1, 2, 2]
    assert search.next([*tries, ToleranceTry(2 * S, Outcome.PASSED)]) == 4 * S
    tries.append(ToleranceTry(2 * S, Outcome.INCONCLUSIVE))
    assert search.next(tries) is None
    assert "3 inconclusive" in search.result(tries).why
    assert search.result(tries).longest_passed_ns == S


def test_pauses_go_up_until_one_fails() -> None:
    def pauses(tries: Sequence[ToleranceTry]) -> list[int]:
        return [one.pause_ns for one in tries]

    result, _ = searched(ToleranceSpec(), fails_from(20 * S))
    first = next(place for place, one in enumerate(result.tries) if one.outcome is Outcome.FAILED)
    assert all(before < after for before, after in pairwise(pauses(result.tries[: first + 1])))
