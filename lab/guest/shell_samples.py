"""The sampler's record of a guest that is looked into by a shell: the host keeps what the shell sends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low

from lab.core.depth import ProbeLimits
from lab.core.timeline import MOST_RECORDS, STEP_FLOOR_NS, STEP_SHARE, ClockStep, Hole, SamplerReport
from lab.core.units import NS_PER_MS

PERIOD_NS = 100 * NS_PER_MS
"""How long inside/shell_probe.sh sleeps between two samples, at least; a second where its sleep has no
fractions."""

FLOOR_PERIODS = 2
WIDE_NS = PERIOD_NS
"""A sample whose two readings of the steady clock are further apart says nothing of REALTIME between them."""


class ShellSamples:
    """Samples since start(). Each has REALTIME, and the guest's steadiest clock before and after it.

    limits: the guest's pause between two of them, and the resolution of the clocks."""

    def __init__(self, limits: ProbeLimits | None = None) -> None:
        self._limits = limits or ProbeLimits(period_ns=PERIOD_NS)
        self._samples: list[tuple[int, int, int]] = []

    def start(self) -> None:
        """Forget all samples."""
        self._samples = []

    def add(self, words: Sequence[bytes]) -> None:
        """One sample: first, REALTIME, last, in ns; nothing is kept without a steady clock."""
        if len(words) == 3 and b"-" not in words:
            first, real, last = (int(word) for word in words)
            self._samples.append((first, real, last))

    def report(self) -> SamplerReport | None:
        """The record; None without samples. REALTIME is known against the steady clock to the time that a
        sample took and to the resolution, so a step is told only where it exceeds that of two samples, and
        the largest of those is the floor."""
        taken, limits = self._samples, self._limits
        hole_floor, coarse = FLOOR_PERIODS * limits.period_ns, 4 * (limits.resolution_ns - 1)
        if not taken:
            return None
        looks = [look for first, _, last in taken for look in (first, last)]
        holes = [Hole(one, two) for one, two in pairwise(looks) if two - one > hole_floor]
        narrow = [sample for sample in taken if sample[2] - sample[0] <= WIDE_NS]
        steps, floor = list[ClockStep](), STEP_FLOOR_NS
        for one, two in pairwise(narrow):
            unsure = two[2] - two[0] + one[2] - one[0] + coarse
            floor = max(floor, unsure)
            moved = two[1] - (two[0] + two[2]) // 2 - one[1] + (one[0] + one[2]) // 2
            if abs(moved) > STEP_FLOOR_NS + unsure:
                steps.append(ClockStep(two[2], moved))
        return SamplerReport(
            period_ns=limits.period_ns,
            count=len(looks),
            first_raw_ns=looks[0],
            last_raw_ns=looks[-1],
            usual_ns=median_low([two[0] - one[0] for one, two in pairwise(taken)] or [limits.period_ns]),
            floor_ns=hole_floor,
            holes=tuple(holes[:MOST_RECORDS]),
            steps=tuple(steps[:MOST_RECORDS]),
            step_floor_ns=STEP_FLOOR_NS + floor,
            step_share=STEP_SHARE,
            most_kept=MOST_RECORDS,
        )
