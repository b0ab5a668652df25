"""Order statistics of repeated cycles. No means, no assumed distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, exp, lgamma, log


@dataclass(frozen=True)
class Quantile:
    """A sample quantile with its confidence limits.

    low, high: None where the sample is too small for a limit on that side.
    """

    value: float
    low: float | None
    high: float | None


def _at_most(n: int, q: float) -> list[float]:
    """P(Binomial(n, q) <= k) for k = 0 .. n, computed with logarithms because n may be thousands."""
    terms = (
        exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(q) + (n - k) * log(1 - q))
        for k in range(n + 1)
    )
    return list(accumulate(terms))


def quantile(values: Sequence[float], q: float, confidence: float = 0.95) -> Quantile:
    """The q-quantile (nearest rank) of `values` and distribution-free confidence limits: order
    statistics l and u with P(B < l) <= alpha/2 and P(B >= u) <= alpha/2, B ~ Binomial(n, q)
    (Conover, Practical Nonparametric Statistics, section 3.2). ValueError on no values."""
    if not values:
        raise ValueError("a quantile of nothing")
    ordered, n, tail = sorted(values), len(values), (1 - confidence) / 2
    at_most = _at_most(n, q)
    low = max((rank for rank in range(1, n + 1) if at_most[rank - 1] <= tail), default=None)
    high = min((rank for rank in range(1, n + 1) if 1 - at_most[rank - 1] <= tail), default=None)
    return Quantile(
        ordered[min(n, max(1, ceil(q * n))) - 1],
        None if low is None else ordered[low - 1],
        None if high is None else ordered[high - 1],
    )


def bounded_quantile(
    values: Sequence[tuple[float, float, float]], q: float, confidence: float = 0.95
) -> Quantile:
    """The q-quantile of measurements that are only known to lie in [low, high], given as (low, value, high).
    The lower limit of the lows and the upper limit of the highs are limits of the true values' quantile,
    because order statistics are monotonic in the values. ValueError on no values."""
    lows, mids, highs = zip(*values, strict=True) if values else ((), (), ())
    return Quantile(
        quantile(mids, q, confidence).value,
        quantile(lows, q, confidence).low,
        quantile(highs, q, confidence).high,
    )


@dataclass(frozen=True)
class Summary:
    """Repeated measurements of one quantity, in its own unit."""

    count: int
    median: Quantile
    p95: Quantile
    largest: float


def summary(values: Sequence[float]) -> Summary:
    """ValueError on no values."""
    return Summary(len(values), quantile(values, 0.5), quantile(values, 0.95), max(values))
