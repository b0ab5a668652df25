"""run.json's members about clocks. lab.record.model has the rest, and the rules."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.resync import Reached


@dataclass(frozen=True)
class Measure:
    value_ns: int
    low_ns: int
    high_ns: int

    @classmethod
    def of(cls, interval: Interval) -> Measure:
        """The interval, with its middle as the value."""
        return cls(interval.mid_ns, interval.low_ns, interval.high_ns)


@dataclass(frozen=True)
class Offsets:
    before: Measure | None = None
    at_resume: Measure | None = None
    final: Measure | None = None


@dataclass(frozen=True)
class PointRecord:
    at_ns: int
    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class ForecastRecord:
    """The mechanism's forecast for this pause, made from its state before the pause. within: from the resume
    to the correction. residual: the offset afterwards, or where it stays. agrees: null where the measurement
    does not decide; verdict: the comparison in words."""

    repaired: bool | None
    correction: str | None
    within: Interval | None
    residual: Interval | None
    text: str
    sources: tuple[str, ...] = ()
    agrees: bool | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Moved:
    """A step of the guest's REALTIME. at_ns: time after the resume; by_ns: its size, positive is forward."""

    at_ns: int
    by_ns: int


@dataclass(frozen=True)
class ResyncRecord:
    """time_low_ns to time_ns bound the time to sync; time_ns is the first instant seen in time. program,
    config: the set-up found in the guest. tolerance_ns: the tolerance of "in time". steps: all steps that the
    sampler in the guest recorded; null when it did not run."""

    mechanism: str
    predicted: str
    outcome: str
    time_ns: int | None
    time_low_ns: int | None
    step_ns: int | None
    correction: str | None
    backward_steps: int
    overshoot_ns: int
    area_ns_s: float
    said: str
    curve: tuple[PointRecord, ...] = ()
    forecast: ForecastRecord | None = None
    reached: tuple[Reached, ...] = ()
    slew_ppm: float | None = None
    program: str = ""
    config: str = ""
    tolerance_ns: int | None = None
    steps: tuple[Moved, ...] | None = None


@dataclass(frozen=True)
class Drifts:
    before: Drift | None = None
    after: Drift | None = None


@dataclass(frozen=True)
class Clocksource:
    before: str
    after: str


@dataclass(frozen=True)
class AuditRecord:
    """The claims of one of the guest's programs, compared with the truth. claims: their number; judged: those
    whose true offset is known; wrong: those whose bound was certainly exceeded, for wrong_low_ns to
    wrong_high_ns, by at most worst_ns. unsynced_ns: upper bound of the time for which it reported that it was
    not synchronised."""

    source: str
    claims: int
    judged: int
    wrong: int
    wrong_low_ns: int
    wrong_high_ns: int
    worst_ns: int
    unsynced_ns: int
    example: str = ""
