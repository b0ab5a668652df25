"""The brown-out of a live migration: how much slower a guest works while it is being moved.

A program in the guest counts short loops, all alike, and the CPU time that the guest's kernel gave it for
them. Where QEMU keeps a vCPU from running (auto-converge), where the host's CPUs are needed to send memory,
and where each first write to a page has to be noted, the loops take longer. What the guest's own programs
take is not counted: they take CPU time from it, but do not slow its loops down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from lab.core.migration import MigrationReport
from lab.core.pause import Pause
from lab.core.timeline import Observation
from lab.core.units import NS_PER_S
from lab.core.work import QUIET_NS, WorkCounts

PAGE = 4096
BLOCK = 10
"""Windows of a block: 0.2 s, so that a late tick of the host's scheduler does not decide."""

LEAST_BLOCKS = 3
"""With fewer blocks before the migration, how much the guest's speed varies by itself is not known."""


@dataclass(frozen=True)
class Speed:
    """A guest's speed in a phase, as a share of the median of blocks of 0.2 s before; 1: as fast. low, high:
    as shares of the fastest and of the slowest of those blocks. worst: that of the phase's slowest block."""

    value: float
    low: float
    high: float
    worst: float


@dataclass(frozen=True)
class BrownOut:
    """pre_copy: until the stop. post_copy: from the resume until all memory had come; None without one.
    dirtied_before, dirtied: bytes that the program wrote to in a second, before and in pre-copy."""

    pre_copy: Speed | None
    post_copy: Speed | None
    dirtied_before: int
    dirtied: int


def _between(counts: WorkCounts, low_ns: int, high_ns: int) -> list[int]:
    """The indices of the windows that lie in this time of the guest's MONOTONIC_RAW."""
    ends = counts.ended
    return [i for i in range(1, len(ends)) if ends[i - 1] >= low_ns and ends[i] <= high_ns]


def _speed(counts: WorkCounts, windows: Sequence[int]) -> float:
    """Units in a nanosecond of CPU time."""
    spent = sum(counts.cpu[i] for i in windows)
    return sum(counts.units[i] for i in windows) / spent if spent > 0 else 0.0


def _blocks(counts: WorkCounts, windows: Sequence[int]) -> list[float]:
    starts = range(0, len(windows) - BLOCK + 1, BLOCK)
    return [speed for at in starts if (speed := _speed(counts, windows[at : at + BLOCK])) > 0]


def _compared(counts: WorkCounts, before: Sequence[int], during: Sequence[int]) -> Speed | None:
    usual, found = _blocks(counts, before), _blocks(counts, during) or [_speed(counts, during)]
    if len(usual) < LEAST_BLOCKS or not during or not found[0]:
        return None
    base, now = median(usual), _speed(counts, during)
    return Speed(now / base, now / max(usual), now / min(usual), min(found) / base)


def _dirtied(counts: WorkCounts, windows: Sequence[int]) -> int:
    if not windows:
        return 0
    lasted = counts.ended[windows[-1]] - counts.ended[windows[0] - 1]
    return sum(counts.pages[i] for i in windows) * PAGE * NS_PER_S // max(1, lasted)


def brown_out(obs: Observation, pause: Pause | None) -> BrownOut | None:
    """The brown-out of a cycle; None without a live migration, its counts, or the guest's clock at the
    stop."""
    report, counts, stop, resume = obs.migration, obs.work, obs.stop, obs.resume
    if report is None or counts is None or stop is None or resume is None or pause is None:
        return None
    stopped, resumed = pause.edges.stop, pause.edges.resume
    if stopped is None:
        return None
    ordered = report.began_raw_ns
    least = stopped.low_ns - (stop.returned.raw_ns - ordered)
    most = stopped.high_ns - (stop.called.raw_ns - ordered)
    before = _between(counts, least - QUIET_NS, least)
    during = _between(counts, most, stopped.low_ns)
    late = None
    if resumed is not None and (rest := _rest_ns(report, resume.returned.raw_ns)) > 0:
        late = _compared(counts, before, _between(counts, resumed.high_ns, resumed.low_ns + rest))
    return BrownOut(
        _compared(counts, before, during), late, _dirtied(counts, before), _dirtied(counts, during)
    )


def _rest_ns(report: MigrationReport, resumed_raw_ns: int) -> int:
    """How long the migration went on after the resume: in post-copy; else next to nothing."""
    if report.settings.post_copy_ns is None:
        return 0
    return report.began_raw_ns + report.took_ns - resumed_raw_ns
