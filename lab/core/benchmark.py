"""Comparisons over repeated measurements: a slope, and a ratio, each with a 95 % interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt

from lab.core.stats import bounded_quantile

Z = 1.959964
"""The normal distribution's 97.5 % point."""

EACH = 0.975
"""The confidence of each of two medians for a ratio at 95 % (Bonferroni)."""


@dataclass(frozen=True)
class Estimate:
    """An estimated value. low, high: its 95 % interval; None where the sample is too small for one."""

    value: float
    low: float | None
    high: float | None
    count: int


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _ties(values: Sequence[float]) -> list[int]:
    return [count for count in Counter(values).values() if count > 1]


def slope(points: Sequence[tuple[float, float]]) -> Estimate | None:
    """The Theil-Sen slope of (x, y): the median of the slopes of all pairs with different x; its interval
    from the order statistics of these slopes (P. K. Sen, J. Am. Stat. Assoc. 63 (1968), 1379-1389): with N
    slopes and C = Z sqrt(Var S), from rank (N - C) / 2 to rank (N + C) / 2 + 1, where Kendall's S has

        18 Var S = n (n-1) (2n+5) - sum u (u-1) (2u+5) - sum v (v-1) (2v+5)
          + [sum u (u-1) (u-2)] [sum v (v-1) (v-2)] 2 / (n (n-1) (n-2))
          + [sum u (u-1)] [sum v (v-1)] 9 / (n (n-1))

    for groups of u equal x and v equal y (M. G. Kendall, Rank Correlation Methods, section 4). Outliers
    up to some 29 % of the points do not move it far. None without two different x.
    """
    ordered = sorted(
        (yj - yi) / (xj - xi) for j, (xj, yj) in enumerate(points) for xi, yi in points[:j] if xj != xi
    )
    if not ordered:
        return None
    n, many = len(points), len(ordered)
    us, vs = _ties([x for x, _ in points]), _ties([y for _, y in points])
    variance = (
        n * (n - 1) * (2 * n + 5)
        - sum(t * (t - 1) * (2 * t + 5) for t in us)
        - sum(t * (t - 1) * (2 * t + 5) for t in vs)
    ) / 18
    if n > 2:
        variance += (
            sum(t * (t - 1) * (t - 2) for t in us)
            * sum(t * (t - 1) * (t - 2) for t in vs)
            / (9 * n * (n - 1) * (n - 2))
        )
    variance += sum(t * (t - 1) for t in us) * sum(t * (t - 1) for t in vs) / (2 * n * (n - 1))
    spread = Z * sqrt(variance)
    below, above = floor((many - spread) / 2), ceil((many + spread) / 2) + 1
    return Estimate(
        _median(ordered),
        ordered[below - 1] if below >= 1 else None,
        ordered[above - 1] if above <= many else None,
        n,
    )


Bounded = tuple[float, float, float]
"""The lower bound, value and upper bound of one measurement."""


def ratio(over: Sequence[Bounded], under: Sequence[Bounded]) -> Estimate | None:
    """The ratio of two medians of positive values. The interval holds at 95 % for any distributions, and
    includes the bounds of every measurement. None without measurements on either side."""
    if not over or not under:
        return None
    top, bottom = bounded_quantile(over, 0.5, EACH), bounded_quantile(under, 0.5, EACH)
    if bottom.value <= 0:
        return None
    low = None if top.low is None or not bottom.high or bottom.high <= 0 else top.low / bottom.high
    high = None if top.high is None or not bottom.low or bottom.low <= 0 else top.high / bottom.low
    return Estimate(top.value / bottom.value, low, high, len(over) + len(under))
