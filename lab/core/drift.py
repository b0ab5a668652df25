"""Drift: the slope of the offset over time, with an interval that contains it.

No noise model and no least squares: every sample is an interval that contains the offset, so the
slopes of all straight lines through all intervals are the drifts that the samples allow.

No line passes through the samples of a clock that was stepped. So a fit uses the segments between the steps,
with one common slope and an intercept for each. No line passes either where the rate itself changes. Then
there is the mean rate between two instants, which needs no line, and the wander: the least amount by which
all samples have to be widened for a line to pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lab.core.offsets import Rate, Sample, thinned

_MOST = 80  # pairs are compared, so cost grows with the square


@dataclass(frozen=True)
class Drift:
    """Drift in ppm; positive: the guest's clock gains. window_ns: the time that the samples span."""

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
    """The slopes of all lines that pass through every sample. None when all samples are of one instant, or
    when no line passes (after a step, or a change of the rate)."""
    return drift_over([given])


def drift_over(segments: Sequence[Sequence[Sample]]) -> Drift | None:
    """The slopes that lines through every sample can have which are parallel, one for each segment: the drift
    of a clock that was stepped between the segments. Its window is the longest segment's.

    With offset = a + b t and low_i <= a + b t_i <= high_i, eliminating a (Fourier-Motzkin) leaves (low_j -
    high_i) / (t_j - t_i) <= b <= (high_j - low_i) / (t_j - t_i) for all pairs i < j of a segment: this is
    exact. None as in `drift`.
    """
    total = sum(map(len, segments))
    low, high, window = float("-inf"), float("inf"), 0
    for segment in segments:
        used = thinned(segment, max(2, _MOST * len(segment) // max(1, total)))
        if used:
            window = max(window, used[-1].to_raw_ns - used[0].from_raw_ns)
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
    return Drift((low + high) / 2 * 1e6, low * 1e6, high * 1e6, window)


def segments(given: Sequence[Sample], rate: Rate) -> list[list[Sample]]:
    """The samples, divided wherever an offset that changes at `rate` cannot lead from one sample to the next:
    there the clock was stepped, or stood still."""
    cut: list[list[Sample]] = []
    for sample in given:
        if cut:
            last = cut[-1][-1]
            change = rate.change_ns(sample.from_raw_ns - last.to_raw_ns, sample.to_raw_ns - last.from_raw_ns)
            if (last.offset + change).meets(sample.offset):
                cut[-1].append(sample)
                continue
        cut.append([sample])
    return cut


def average_drift(given: Sequence[Sample]) -> Drift | None:
    """The mean rate from the first sample to the last, however it changed in between. None without two
    samples at different times."""
    return drift([given[0], given[-1]]) if len(given) > 1 else None


def wander_ns(given: Sequence[Sequence[Sample]]) -> int:
    """The least amount by which every sample of the segments has to be widened, on both sides, for parallel
    lines to pass (`drift_over`): how far the offset certainly deviates from a straight line. 0 when lines
    pass, and when there are too few samples."""
    used = [segment for segment in given if any(b.from_raw_ns > a.to_raw_ns for a, b in pairwise(segment))]
    if not used or drift_over(used) is not None:
        return 0
    everything = [sample.offset for segment in used for sample in segment]
    too_little, enough = 0, max(o.high_ns for o in everything) - min(o.low_ns for o in everything) + 1
    while enough - too_little > 1:
        middle = (too_little + enough) // 2
        wider = [[replace(s, offset=s.offset.widened(middle)) for s in segment] for segment in used]
        if drift_over(wider) is None:
            too_little = middle
        else:
            enough = middle
    return enough
