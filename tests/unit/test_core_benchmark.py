"""Slopes and ratios: cases whose answer is known, and that the intervals cover."""

from __future__ import annotations

import random

import pytest

from lab.core.benchmark import ratio, slope
from lab.core.stats import bounded_quantile, quantile


def test_a_slopes_ranks_by_hand() -> None:
    """6 points without ties: 18 Var S = 6 * 5 * 17, C = 1.96 * 5.32 = 10.4; of 15 slopes the ranks are
    (15 - 10.4) / 2 = 2.3 and (15 + 10.4) / 2 + 1 = 13.7, outward 2 and 14."""
    points = [(0.0, 8.98), (12.0, 8.14), (29.5, 6.67), (43.0, 6.08), (53.0, 5.90), (62.5, 5.83)]
    seen = slope(points)
    assert seen is not None
    slopes = sorted((yj - yi) / (xj - xi) for j, (xj, yj) in enumerate(points) for xi, yi in points[:j])
    assert seen.value == slopes[7]
    assert (seen.low, seen.high) == (slopes[1], slopes[13])


def test_the_slope_of_a_line_is_exact_and_an_outlier_moves_it_little() -> None:
    line = [(float(x), 3.0 * x + 1) for x in range(12)]
    seen = slope(line)
    assert seen is not None
    assert seen.value == seen.low == seen.high == 3.0
    spoilt = slope([*line[:-1], (11.0, 1000.0)])
    assert spoilt is not None
    assert spoilt.value == pytest.approx(3.0)


def test_no_slope_without_two_sizes_and_no_interval_with_too_few_points() -> None:
    assert slope([]) is None
    assert slope([(1.0, 2.0), (1.0, 3.0)]) is None
    few = slope([(1.0, 2.0), (2.0, 3.0), (4.0, 9.0)])
    assert few is not None
    assert few.low is few.high is None


@pytest.mark.parametrize("true", [0.0, 4.0])
def test_the_slopes_interval_covers(true: float) -> None:
    """Skewed noise, groups of equal x as a benchmark's: at least 95 of 100 intervals contain the slope."""
    r, hits, rounds = random.Random(3), 0, 300
    for _ in range(rounds):
        points = [
            (size, true * size + r.expovariate(0.3)) for size in (0.25, 0.5, 1, 2, 4, 8) for _ in range(6)
        ]
        seen = slope(points)
        assert seen is not None
        assert seen.low is not None
        assert seen.high is not None
        hits += seen.low <= true <= seen.high
    assert hits / rounds > 0.93


def bounded(values: list[float], side: float) -> list[tuple[float, float, float]]:
    return [(v - side, v, v + side) for v in values]


def test_bounds_widen_a_quantiles_limits() -> None:
    values = [float(i) for i in range(1, 21)]
    plain, wide = quantile(values, 0.5), bounded_quantile(bounded(values, 0.25), 0.5)
    assert plain.low is not None
    assert plain.high is not None
    assert (wide.value, wide.low, wide.high) == (plain.value, plain.low - 0.25, plain.high + 0.25)
    with pytest.raises(ValueError, match="nothing"):
        bounded_quantile([], 0.5)


def test_a_ratio_and_its_interval() -> None:
    over, under = bounded([1000.0] * 10, 50.0), bounded([20.0] * 10, 1.0)
    seen = ratio(over, under)
    assert seen is not None
    assert seen.value == 50
    assert seen.low == pytest.approx(950 / 21)
    assert seen.high == pytest.approx(1050 / 19)
    assert ratio(over, []) is None
    few = ratio(over[:2], under)
    assert few is not None
    assert few.low is few.high is None
    hopeless = ratio(over, bounded([0.5] * 10, 1.0))  # it may be nothing at all: no upper limit
    assert hopeless is not None
    assert hopeless.high is None


def test_the_ratios_interval_covers() -> None:
    r, hits, rounds = random.Random(9), 0, 400
    for _ in range(rounds):
        over = bounded([r.lognormvariate(5, 0.6) for _ in range(10)], 0.0)
        under = bounded([r.lognormvariate(1, 0.4) for _ in range(10)], 0.0)
        seen = ratio(over, under)
        assert seen is not None
        assert seen.low is not None
        assert seen.high is not None
        hits += seen.low <= 54.598 <= seen.high  # e ** 4
    assert hits / rounds > 0.95
