"""What a workload's own configuration lets one expect of a pause.

A threshold says from which pause on something happens. The pause lies in an interval, and so does the
threshold: a pause that is certainly shorter lets nothing happen, one that is certainly longer does, and what
is in between is not predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.units import format_duration
from lab.core.workload.judge import WorkloadResult


@dataclass(frozen=True)
class Threshold:
    """`what` happens from a pause of this length on, as the configuration has it.

    what: one of outage (no success for longer than the pause and 1 s), lost, twice, a name of the state (its
    value changes), "two NAME" (two guests hold it at the same time), or an event. pause: None: at no pause.
    because: the setting and its value. source: where that is documented.
    """

    what: str
    pause: Interval | None
    because: str
    source: str = ""


@dataclass(frozen=True)
class WorkloadPrediction:
    """A prediction for one cycle. happens: None: not predicted. happened: None: not measured. agrees: None
    where either is unknown."""

    what: str
    happens: bool | None
    happened: bool | None
    text: str

    @property
    def agrees(self) -> bool | None:
        if self.happens is None or self.happened is None:
            return None
        return self.happens == self.happened


OUTAGE_SLACK_NS = 1_000_000_000


def happened(what: str, result: WorkloadResult) -> bool | None:
    """Whether it happened in this cycle; None when it was not looked at, or the bounds do not decide."""
    if what == "outage":
        beyond = result.beyond_pause
        if beyond is None or OUTAGE_SLACK_NS in beyond:
            return None
        return beyond.low_ns > OUTAGE_SLACK_NS
    if what in ("lost", "twice"):
        if result.ledger is None:
            return None
        return bool(getattr(result.ledger, what))
    if what.startswith("two "):
        name = what.removeprefix("two ")
        return any(overlap.name == name for overlap in result.overlaps) if name in result.names else None
    if what in result.names:
        return any(change.name == what for change in result.changed)
    return any(name == what for name, _ in result.events)


def predictions(thresholds: Sequence[Threshold], result: WorkloadResult) -> tuple[WorkloadPrediction, ...]:
    """The predictions for a cycle, each beside what happened. () for a cycle without a freeze."""
    pause = result.window.pause
    if pause is None:
        return ()
    return tuple(
        WorkloadPrediction(one.what, _happens(one, pause), happened(one.what, result), _text(one))
        for one in thresholds
    )


def _happens(threshold: Threshold, pause: Interval) -> bool | None:
    at = threshold.pause
    if at is None or pause.high_ns < at.low_ns:
        return False
    return True if pause.low_ns > at.high_ns else None


def _text(threshold: Threshold) -> str:
    at = threshold.pause
    if at is None:
        return f"{threshold.what}: at no pause; {threshold.because}"
    low, high = format_duration(at.low_ns), format_duration(at.high_ns)
    when = low if low == high else f"{low} to {high}"
    return f"{threshold.what}: from a pause of {when}; {threshold.because}"
