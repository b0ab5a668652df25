"""The shift between two samples: against scipy, and against simulated samples whose shift is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import comb, inf, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab.core import shift as module
from lab.core.benchmark import Bounded
from lab.core.shift import ALPHA, Shift, can_reject, enough, holm, least_p, shift
from tests.unit.strategies import cases

values = st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=9, unique=True)


def exact(given_values: Sequence[float], side: float = 0.0) -> list[Bounded]:
    return [(value - side, value, value + side) for value in given_values]


def shifted(first: Sequence[Bounded], second: Sequence[Bounded]) -> Shift:
    found = shift([(first, second)])
    assert found is not None
    return found


@cases(300)
@given(values, values)
def test_without_bounds_it_is_the_exact_mann_whitney_test(first: list[float], second: list[float]) -> None:
    if len({*first, *second}) < len(first) + len(second):
        return  # scipy's exact test has no ties
    found = shifted(exact(first), exact(second))
    for side, p in (("greater", found.p_up), ("less", found.p_down), ("two-sided", found.p)):
        assert p == pytest.approx(stats.mannwhitneyu(second, first, alternative=side, method="exact").pvalue)
    assert found.p_value == found.p


def test_strata_are_added_as_a_permutation_within_them_says() -> None:
    """All orders within each of three small strata, one by one."""
    r = random.Random(5)
    strata = [
        ([r.random() for _ in range(m)], [r.random() for _ in range(n)]) for m, n in ((2, 2), (1, 3), (3, 1))
    ]

    def wins(first: Sequence[float], second: Sequence[float]) -> int:
        return sum(b > a for a in first for b in second)

    import itertools

    def all_wins(first: Sequence[float], second: Sequence[float]) -> list[int]:
        both = [*first, *second]
        return [
            wins([v for v in both if v not in chosen], chosen)
            for chosen in itertools.combinations(both, len(second))
        ]

    sums = [sum(one) for one in itertools.product(*(all_wins(*stratum) for stratum in strata))]
    found = shift([(exact(first), exact(second)) for first, second in strata])
    observed = sum(wins(*stratum) for stratum in strata)
    assert found is not None
    assert found.p_up == pytest.approx(sum(one >= observed for one in sums) / len(sums))
    assert found.p_down == pytest.approx(sum(one <= observed for one in sums) / len(sums))
    assert found.least_p == pytest.approx(2 / len(sums))


@pytest.mark.parametrize("size", [56, 80])
def test_large_samples_have_a_normal_distribution_that_errs_towards_noise(size: int) -> None:
    assert size * size > module.EXACT_PAIRS
    r = random.Random(size)
    first = [r.gauss(0, 1) for _ in range(size)]
    for by in (0.0, 0.3, 0.6, 0.9):
        second = [r.gauss(by, 1) for _ in range(size)]
        p = shifted(exact(first), exact(second)).p
        truth = stats.mannwhitneyu(second, first, method="exact").pvalue
        assert p > truth * 0.98
        assert p < truth * 1.5 or truth < 1e-5


@cases(200)
@given(values, values, st.floats(0, 1e6), st.data())
def test_no_true_values_inside_the_bounds_are_less_probable(
    first: list[float], second: list[float], side: float, data: st.DataObject
) -> None:
    inside = st.floats(-1.0, 1.0)
    true = [[value + side * data.draw(inside) for value in sample] for sample in (first, second)]
    found = shifted(exact(first, side), exact(second, side))
    truth = shifted(exact(true[0]), exact(true[1]))
    assert found.p >= truth.p - 1e-12
    assert found.low is None or truth.low is None or found.low <= truth.low
    assert found.high is None or truth.high is None or found.high >= truth.high


@cases(200)
@given(values, values)
def test_the_interval_excludes_no_shift_where_the_test_rejects(
    first: list[float], second: list[float]
) -> None:
    found = shifted(exact(first), exact(second))
    assert (found.low is not None and found.low > 0) == (found.p_up <= ALPHA / 2)
    assert (found.high is not None and found.high < 0) == (found.p_down <= ALPHA / 2)
    assert (found.low is None) == (found.least_p > ALPHA)


@pytest.mark.parametrize("true", [0.0, 2.5])
@pytest.mark.parametrize("side", [0.0, 0.5])
def test_the_interval_covers_the_shift(true: float, side: float) -> None:
    """Skewed samples of unequal sizes, measured with errors of up to `side`."""
    r, hits, rounds = random.Random(11), 0, 1000
    for _ in range(rounds):
        first = [r.expovariate(1) + r.uniform(-side, side) for _ in range(6)]
        second = [true + r.expovariate(1) + r.uniform(-side, side) for _ in range(9)]
        found = shifted(exact(first, side), exact(second, side))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= true <= found.high
    assert hits / rounds >= 0.95 - 3 * sqrt(0.05 * 0.95 / rounds)


def test_ratios() -> None:
    cells = [
        (exact([s, s * 1.01, s * 0.99]), exact([s * 2, s * 2.02, s * 1.98])) for s in (1.0, 1e3, 1e6, 1e9)
    ]
    found = shift(cells, ratio=True)
    assert found is not None
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.low is not None
    assert 1.9 < found.low <= 2 <= (found.high or 0) < 2.1
    assert found.p < 0.001


def test_the_interval_covers_a_factor_that_all_cells_have() -> None:
    r, hits, rounds = random.Random(13), 0, 500
    for _ in range(rounds):
        cells = [
            (exact([size * (1 + r.expovariate(5))]), exact([1.3 * size * (1 + r.expovariate(5))]))
            for size in (1.0, 1e3, 1e6) * 8
        ]
        found = shift(cells, ratio=True)
        assert found is not None
        assert found.low is not None
        hits += found.low <= 1.3 <= (found.high or 0)
    assert hits / rounds >= 0.95 - 3 * sqrt(0.05 * 0.95 / rounds)


def test_ratios_of_nothing() -> None:
    found = shift([(exact([0.0] * 5), exact([1.0] * 5))], ratio=True)
    assert found is not None
    assert found.value == inf
    same = shift([(exact([0.0] * 5), exact([0.0] * 5))], ratio=True)
    assert same is not None
    assert (same.value, same.p) == (1.0, 1.0)


def test_never_is_later_than_all_and_like_itself() -> None:
    never = (5.0, inf, inf)
    found = shifted([never] * 6, [never] * 6)
    assert (found.value, found.p, found.p_value) == (0.0, 1.0, 1.0)
    assert (found.low, found.high) == (-inf, inf)
    later = shifted(exact([1.0, 2.0, 3.0, 4.0]), [never] * 4)
    assert later.value == inf
    assert later.low == 1.0
    assert later.p == pytest.approx(2 / comb(8, 4))


def test_equal_values_are_no_shift() -> None:
    found = shifted(exact([3.0] * 8), exact([3.0] * 8))
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_nothing_to_compare() -> None:
    assert shift([]) is None
    assert shift([((), exact([1.0]))]) is None


def test_how_few_are_too_few() -> None:
    assert least_p(((3, 3),)) == pytest.approx(0.1)
    assert least_p(((4, 4),)) == pytest.approx(2 / 70)
    assert enough(ALPHA) == 4
    assert least_p(((1, 1),) * 6) == pytest.approx(2 / 64)
    assert least_p(((500, 700),)) >= 0


@cases(200)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction(ps: list[float]) -> None:
    corrected = holm(ps)
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    # Holm's own words: reject while the k-th smallest is at most ALPHA / (K + 1 - k), and stop there.
    rejected = set[int]()
    for k, at in enumerate(order):
        if ps[at] > ALPHA / (len(ps) - k):
            break
        rejected.add(at)
    close = [abs(p - ALPHA) < 1e-12 for p in corrected]
    assert {at for at, p in enumerate(corrected) if p <= ALPHA and not close[at]} <= rejected
    assert rejected <= {at for at, p in enumerate(corrected) if p <= ALPHA or close[at]}
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))


def test_what_cannot_reject_costs_the_others_nothing() -> None:
    chosen, level = can_reject([least_p(((1, 1),))] * 400 + [least_p(((6, 6),))] * 3)
    assert chosen == [False] * 400 + [True] * 3
    assert level == pytest.approx(ALPHA / 3)
    assert can_reject([0.1] * 5) == ([False] * 5, ALPHA)
    assert can_reject([]) == ([], ALPHA)
