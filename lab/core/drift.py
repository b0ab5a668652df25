"""Drift: the slope of the offset over time, with an interval that contains it.

No noise model and no least squares: every sample is an interval that contains the offset, so the
slopes of all straight lines through all intervals are the drifts that the samples allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.offsets import Sample, thinned

_MOST = 80  # pairs are compared, so cost grows with the square


@dataclass(frozen=True)
class Drift:
    """Drift in ppm; positive: the guest's clock gains. window_ns: the time it was seen over."""

    ppm: float
    low: float
    high: float
    window_ns: int

    @property
    def largest_ppm(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def bound_ppm(self) -> float:
        return (self.high - self.low) / 2

    def window_for_ns(self, ppm: float) -> int:
        """The window that would have bounded the drift to ± `ppm`, were the readings as good: the
        bound is the readings' width over the window, so it falls as the window grows."""
        return round(self.window_ns * self.bound_ppm / ppm)


def drift(given: Sequence[Sample]) -> Drift | None:
    """The slopes of all lines that pass through every sample.

    With offset = a + b t and low_i <= a + b t_i <= high_i, eliminating a (Fourier-Motzkin) leaves
    (low_j - high_i) / (t_j - t_i) <= b <= (high_j - low_i) / (t_j - t_i) for all pairs i < j:
    exact, nothing lost. None when fewer than two samples are apart in time, or when no line
    passes (a step, or a rate that changed).
    """
    used = thinned(given, _MOST)
    low, high = float("-inf"), float("inf")
    for j, later in enumerate(used):
        for earlier in used[:j]:
            # The instant of a sample lies anywhere in its exchange, so the distance is an interval.
            near, far = later.from_raw_ns - earlier.to_raw_ns, later.to_raw_ns - earlier.from_raw_ns
            if near <= 0:
                continue
            rise_high = later.offset.high_ns - earlier.offset.low_ns
            rise_low = later.offset.low_ns - earlier.offset.high_ns
            high = min(high, rise_high / (near if rise_high >= 0 else far))
            low = max(low, rise_low / (far if rise_low >= 0 else near))
    if low == float("-inf") or high == float("inf") or low > high:
        return None
    window = used[-1].to_raw_ns - used[0].from_raw_ns
    return Drift((low + high) / 2 * 1e6, low * 1e6, high * 1e6, window)
