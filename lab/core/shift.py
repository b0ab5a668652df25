"""The shift between two samples of bounded values, and whether it is more than noise.

A rank test, because repeated pauses have outliers and no known distribution, and because there are few of
them. Its statistic is the number of pairs (one value of each sample) in which the second is larger: under the
null hypothesis that both samples are of one distribution it has the distribution of Mann and Whitney (Ann.
Math. Stat. 18 (1947), 50-60), which is exact for any continuous one. Two things are added:

- Bounds. A value is only known to lie in [low, high]. A shift upward is tested with the highs of the first
  sample and the lows of the second, downward the other way round. No true values inside the bounds have fewer
  such pairs, so the probability of a false alarm keeps its level. Values that are equal count against a
  shift, which is the same argument: some order of them has that many pairs or more.
- Strata. Cells of a matrix are alike only within themselves. Pairs are made within a cell, and the numbers of
  pairs of all cells are added (E. H. van Elteren, Bull. Inst. Internat. Statist. 37 (1960), 351-361, with
  equal weights).

The size of the shift is the median of all pairs' differences (Hodges and Lehmann, Ann. Math. Stat. 34 (1963),
598-611). Its interval is the set of shifts that the test does not reject: from one order statistic of the
differences to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import accumulate
from math import comb, erfc, inf, sqrt

from lab.core.benchmark import Bounded

ALPHA = 0.05
"""The tolerated probability of a false alarm, over all tests of one comparison together."""

Stratum = tuple[Sequence[Bounded], Sequence[Bounded]]
"""The values of the first and of the second sample that may be compared with each other."""

EXACT_PAIRS = 3000
"""Up to so many pairs the distribution is computed; above, it is a normal one with the same mean and variance
and a correction for continuity. At this size that is a tenth too large at a probability of 0.001, and a
quarter at 0.0001: it errs towards noise."""


@dataclass(frozen=True)
class Shift:
    """By how much the second sample is larger. value: the median of all pairs' differences, or ratios; low,
    high: its 95 % interval, which includes the values' own bounds; None: too few values for a limit. p_up,
    p_down: the probability of at least as many larger (smaller) pairs by chance, at the least favourable true
    values; p_value: two-sided, of the values without their bounds. least_p: the smallest two-sided
    probability that these numbers of values can have."""

    value: float
    low: float | None
    high: float | None
    p_up: float
    p_down: float
    p_value: float
    least_p: float

    @property
    def p(self) -> float:
        """Two-sided, bounds included."""
        return min(1.0, 2 * min(self.p_up, self.p_down))


def shift(strata: Sequence[Stratum], *, ratio: bool = False) -> Shift | None:
    """The shift from the first to the second sample. ratio: as a factor; the values are then magnitudes, none
    negative. Values may be infinite ("never"). None when there is no pair."""
    given = [(first, second) for first, second in strata if first and second]
    if not given:
        return None
    sizes = tuple(sorted((len(first), len(second)) for first, second in given))
    apart = _ratio if ratio else _difference
    pairs = [(a, b) for first, second in given for a in first for b in second]
    lows = sorted(apart(b[0], a[2]) for a, b in pairs)
    values = sorted(apart(b[1], a[1]) for a, b in pairs)
    highs = sorted(apart(b[2], a[0]) for a, b in pairs)
    null = 1.0 if ratio else 0.0
    # The largest rank k with P(W <= k - 1) <= 2.5 %: so many of the smallest pairs are cut off at each end.
    cut = _rank(sizes, ALPHA / 2)
    plain = min(_tail(sizes, sum(v > null for v in values)), _tail(sizes, sum(v < null for v in values)))
    return Shift(
        _median(values),
        lows[cut - 1] if cut else None,
        highs[-cut] if cut else None,
        _tail(sizes, sum(low > null for low in lows)),
        _tail(sizes, sum(high < null for high in highs)),
        min(1.0, 2 * plain),
        least_p(sizes),
    )


def least_p(sizes: Sequence[tuple[int, int]]) -> float:
    """The smallest two-sided probability that a test of strata with these numbers of values can have."""
    return min(1.0, 2 / reduce(lambda orders, each: orders * comb(sum(each), each[0]), sizes, 1))


def enough(level: float) -> int:
    """The number of values of each sample from which on a test can reach the level."""
    return next(n for n in range(1, 1000) if least_p(((n, n),)) <= level)


def can_reject(least: Sequence[float]) -> tuple[list[bool], float]:
    """Which of several tests can reject at all, and the level that the first of them has to reach, from the
    smallest probability that each can have (R. E. Tarone, Biometrics 46 (1990), 515-522). What cannot be
    significant costs the others nothing."""
    for many in range(1, len(least) + 1):
        chosen = [p <= ALPHA / many for p in least]
        if sum(chosen) <= many:
            return chosen, ALPHA / max(1, sum(chosen))
    return [False] * len(least), ALPHA


def holm(given: Sequence[float]) -> list[float]:
    """The probabilities, corrected for their number: those at most ALPHA are significant, and the probability
    of any false one among them is at most ALPHA, however the tests depend on each other (S. Holm, Scand. J.
    Statist. 6 (1979), 65-70)."""
    order = sorted(range(len(given)), key=lambda at: given[at])
    stepped = [min(1.0, given[at] * (len(given) - rank)) for rank, at in enumerate(order)]
    corrected = [0.0] * len(given)
    for at, p in zip(order, accumulate(stepped, max), strict=True):
        corrected[at] = p
    return corrected


def _difference(b: float, a: float) -> float:
    return 0.0 if a == b else b - a


def _ratio(b: float, a: float) -> float:
    if a == b:
        return 1.0
    return inf if a == 0 else b / a


def _median(ordered: Sequence[float]) -> float:
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else (low + high) / 2 if inf not in (-low, high) else high


def _tail(sizes: tuple[tuple[int, int], ...], wins: int) -> float:
    """P(W >= wins) under the null hypothesis. sizes: of each stratum."""
    pairs = sum(m * n for m, n in sizes)
    if pairs <= EXACT_PAIRS:
        return _tails(sizes)[wins]
    deviation = sqrt(sum(m * n * (m + n + 1) for m, n in sizes) / 12)
    return erfc((wins - 0.5 - pairs / 2) / deviation / sqrt(2)) / 2


def _rank(sizes: tuple[tuple[int, int], ...], level: float) -> int:
    """The largest k with P(W >= pairs + 1 - k) <= level; 0 without one."""
    pairs, low, high = sum(m * n for m, n in sizes), 0, sum(m * n for m, n in sizes)
    while low < high:
        middle = (low + high + 1) // 2
        if _tail(sizes, pairs + 1 - middle) <= level:
            low = middle
        else:
            high = middle - 1
    return low


@cache
def _tails(sizes: tuple[tuple[int, int], ...]) -> tuple[float, ...]:
    """P(W >= w) for w = 0, 1 .. pairs."""
    orders = reduce(lambda so_far, each: so_far * comb(sum(each), each[0]), sizes, 1)
    width = orders.bit_length() // 8 + 1
    # Polynomials in W, each as one integer with a field of `width` bytes for each coefficient.
    product = reduce(lambda so_far, each: so_far * _packed(_counts(*each), width), sizes, 1)
    length = sum(m * n for m, n in sizes) + 1
    data = product.to_bytes(length * width, "little")
    counts = [int.from_bytes(data[at : at + width], "little") for at in range(0, length * width, width)]
    return tuple(count / orders for count in accumulate(reversed(counts)))[::-1]


def _packed(counts: Sequence[int], width: int) -> int:
    return int.from_bytes(b"".join(count.to_bytes(width, "little") for count in counts), "little")


@cache
def _counts(m: int, n: int) -> tuple[int, ...]:
    """In how many orders of m and n values W is 0, 1 .. mn: the coefficients of the Gaussian binomial
    coefficient, the product of (1 - q^(m+i)) / (1 - q^i) for i = 1 .. n."""
    length = m * n + 1
    counts = [1] + [0] * (length - 1)
    for i in range(1, n + 1):
        for at in range(length - 1, m + i - 1, -1):
            counts[at] -= counts[at - m - i]
        for at in range(i, length):
            counts[at] += counts[at - i]
    return tuple(counts)
