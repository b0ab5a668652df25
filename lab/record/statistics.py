"""Statistics over repeated cycles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lab.core import benchmark
from lab.core.stats import Quantile, bounded_quantile, summary
from lab.record.model import CycleRecord, Limits, Measure, Statistic


def _limits(quantile: Quantile) -> Limits:
    return Limits(quantile.value, quantile.low, quantile.high)


def _statistic(kind: str, metric: str, values: Sequence[float]) -> Statistic:
    s = summary(values)
    return Statistic(kind, metric, "ns", s.count, _limits(s.median), _limits(s.p95), s.largest)


def _stamps_apart(cycle: CycleRecord) -> int | None:
    """The difference of the lab's pause and QEMU's own stamps (a lower bound of it, up to their
    resolution)."""
    felt = cycle.felt or cycle.pause
    if cycle.stamps is None or felt is None:
        return None
    return felt.value_ns - (cycle.stamps.low_ns + cycle.stamps.high_ns) // 2


def _steps(cycles: Sequence[CycleRecord]) -> Iterator[Statistic]:
    """The statistics of each part of the pause, in the order of the cycle with the most parts."""
    longest = max(cycles, key=lambda cycle: len(cycle.steps), default=None)
    if longest is None:
        return
    order = dict.fromkeys(step.name for cycle in (longest, *cycles) for step in cycle.steps)
    for name in order:
        lengths = [
            sum(step.length_ns for step in cycle.steps if step.name == name)
            for cycle in cycles
            if any(step.name == name for step in cycle.steps)
        ]
        if len(lengths) > 1:
            yield _statistic("step", name, lengths)


def statistics(cycles: Sequence[CycleRecord]) -> tuple[Statistic, ...]:
    """Statistics over repeated cycles; none with fewer than two cycles of a kind."""
    found: list[Statistic] = []
    freezes = [c for c in cycles if not c.control]
    for kind, of_kind in (("freeze", freezes), ("control", [c for c in cycles if c.control])):
        paused = [c for c in of_kind if c.frozen]
        columns: dict[str, list[int | None]] = {
            "pause": [c.pause.value_ns if c.pause else None for c in paused],
            "pause bound": [(c.pause.high_ns - c.pause.low_ns) // 2 if c.pause else None for c in paused],
            "pause - stamps": [_stamps_apart(c) for c in paused],
            "outage": [c.outage_ns for c in of_kind],
            "|closure|": [abs(c.closure_ns) if c.closure_ns is not None else None for c in of_kind],
            "offset bound": [
                (c.offset.before.high_ns - c.offset.before.low_ns) // 2 if c.offset.before else None
                for c in of_kind
            ],
            "time to sync": [c.resync.time_ns if c.resync else None for c in of_kind],
            "|final offset|": [abs(c.offset.final.value_ns) if c.offset.final else None for c in of_kind],
        }
        if kind == "control":
            columns = {name: columns[name] for name in ("|closure|", "offset bound")}
        for metric, column in columns.items():
            values = [v for v in column if v is not None]
            if len(values) > 1:
                found.append(_statistic(kind, metric, values))
    return (*found, *_steps([c for c in freezes if c.steps]))


def bounded(cycles: Sequence[CycleRecord]) -> list[benchmark.Bounded]:
    """The pauses of the completed freezes: low, value, high."""
    return [
        (c.pause.low_ns, c.pause.value_ns, c.pause.high_ns)
        for c in cycles
        if c.frozen and not c.called_off and c.pause is not None
    ]


def median_pause(cycles: Sequence[CycleRecord]) -> Measure | None:
    """The median pause of the completed freezes, with the bounds that CellRecord documents."""
    known = bounded(cycles)
    if not known:
        return None
    middle = bounded_quantile(known, 0.5)
    low = min(v[0] for v in known) if middle.low is None else middle.low
    high = max(v[2] for v in known) if middle.high is None else middle.high
    return Measure(int(middle.value), int(low), int(high))


def spread_of_pauses(cycles: Sequence[CycleRecord]) -> Measure | None:
    """The median pause of the completed freezes, with the hull of all their bounds."""
    known = bounded(cycles)
    if not known:
        return None
    middle = bounded_quantile(known, 0.5)
    return Measure(int(middle.value), int(min(v[0] for v in known)), int(max(v[2] for v in known)))
