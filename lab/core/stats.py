"""Order statistics of repeated cycles. No means, no assumed distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb


@dataclass(frozen=True)
class Quantile:
    """A sample quantile with its confidence limits.

    low, high: None where the sample is too small for a limit on that side.
    """

    value: float
    low: float | None
    high: float | None


def _at_most(k: int, n: int, q: float) -> float:
    """P(Binomial(n, q) <= k)."""
    return sum(comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k + 1))


def quantile(values: Sequence[float], q: float, confidence: float = 0.95) -> Quantile:
    """The q-quantile (nearest rank) of `values` and distribution-free confidence limits: order
    statistics l and u with P(B < l) <= alpha/2 and P(B >= u) <= alpha/2, B ~ Binomial(n, q)
    (Conover, Practical Nonparametric Statistics, section 3.2). ValueError on no values."""
    if not values:
        raise ValueError("a quantile of nothing")
    ordered, n, tail = sorted(values), len(values), (1 - confidence) / 2
    low = high = None
    for rank in range(n, 0, -1):
        if _at_most(rank - 1, n, q) <= tail:
            low = ordered[rank - 1]
            break
    for rank in range(1, n + 1):
        if 1 - _at_most(rank - 1, n, q) <= tail:
            high = ordered[rank - 1]
            break
    return Quantile(ordered[min(n, max(1, ceil(q * n))) - 1], low, high)


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
