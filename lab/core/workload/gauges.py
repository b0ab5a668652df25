"""Values that a workload's client measures, such as a throughput, around a pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from lab.core.clock import Interval
from lab.core.workload.sample import GaugeReading


@dataclass(frozen=True)
class GaugeSummary:
    """One value in one cycle, in the unit that its name ends with.

    before: median until the stop; None: it was not measured by then. lowest, highest: from the stop on. last:
    the last one. back_ns: from the resume to the first value that is again in the range that it had before
    the stop; None: there was none. In a cycle without a freeze all values count as before and as after.
    """

    name: str
    before: int | None
    lowest: int
    highest: int
    last: int
    back_ns: int | None = None


def summaries(readings: Sequence[GaugeReading], paused: Interval | None) -> tuple[GaugeSummary, ...]:
    """One for each name, in the order in which they came. paused: from the first stop to the last resume,
    host MONOTONIC_RAW; None: nobody was frozen. Where several guests report a name, it is "NAME of BY"."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for reading in sorted(readings, key=lambda reading: reading.at_ns):
        for name, value in reading.values.items():
            found.setdefault((name, reading.by), []).append((reading.at_ns, value))
    many = {name for name, by in found if sum(name == other for other, _ in found) > 1}
    made = (
        _summary(f"{name} of {by}" if name in many else name, values, paused)
        for (name, by), values in found.items()
    )
    return tuple(one for one in made if one is not None)


def _summary(name: str, values: Sequence[tuple[int, int]], paused: Interval | None) -> GaugeSummary | None:
    if paused is None:
        plain = [value for _, value in values]
        return GaugeSummary(name, median_low(plain), min(plain), max(plain), plain[-1])
    before = [value for at, value in values if at < paused.low_ns]
    after = [value for at, value in values if at >= paused.low_ns]
    if not after:
        return None
    back = None
    if before:
        again = (
            at - paused.high_ns
            for at, value in values
            if at >= paused.high_ns and min(before) <= value <= max(before)
        )
        back = next(again, None)
    return GaugeSummary(name, median_low(before) if before else None, min(after), max(after), after[-1], back)
