"""What a workload's own configuration lets one expect of a pause.

A threshold says from which pause on something happens. The pause lies in an interval, and so does the
threshold: a pause that is certainly shorter lets nothing happen, one that is certainly longer does, and what
is in between is not predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.units import NS_PER_S, format_duration
from lab.core.workload.judge import WorkloadResult

EVER_NS = 24 * 3600 * NS_PER_S
"""A pause that is longer than any."""


@dataclass(frozen=True)
class Threshold:
    """`what` happens from a pause of this length on, as the configuration has it.

    what: one of outage (no success for longer than the pause and 1 s), lost, twice, a name of the state (its
    value changes), "two NAME" (two guests hold it at the same time), or an event, which is any other name.
    pause: None: at no pause; with EVER_NS as its upper end: from its lower end on it may happen, or not.
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
    if result.problems or not (result.requests or result.names or result.events):
        return None
    if what == "outage":
        return _outage(result)
    if what in ("lost", "twice"):
        book = result.ledger
        if book is None or (what == "lost" and not book.lost and book.undecided):
            return None
        return bool(getattr(book, what))
    if what.startswith("two "):
        return _two(what.removeprefix("two "), result)
    if what in result.names:
        moved = any(change.name == what for change in result.changed)
        return moved if moved or result.is_looked_at(what) else None
    if any(what in look.values for look in result.window.looks):
        return None
    return any(name == what for name, _ in result.events)


def _outage(result: WorkloadResult) -> bool | None:
    beyond = result.beyond_pause
    if beyond is None:
        return None
    if beyond.low_ns > OUTAGE_SLACK_NS:
        return True
    return None if result.unended or beyond.high_ns > OUTAGE_SLACK_NS else False


def _two(name: str, result: WorkloadResult) -> bool | None:
    if any(overlap.name == name for overlap in result.overlaps):
        return True
    maybe = any(overlap.name == name for overlap in result.possible_overlaps)
    return None if maybe or not result.is_looked_at(name) else False


def predictions(thresholds: Sequence[Threshold], result: WorkloadResult) -> tuple[WorkloadPrediction, ...]:
    """The predictions for a cycle, each beside what happened. thresholds: those that hold in the cycle's
    regime. What has several thresholds happens from the shortest of them on. () where the pause is not
    known, or nobody was frozen."""
    pause = result.window.pause
    if pause is None or not result.window.frozen:
        return ()
    found = []
    for what in dict.fromkeys(one.what for one in thresholds):
        own = [(_happens(one, pause), one) for one in thresholds if one.what == what]
        happens, decides = min(own, key=lambda each: _ORDER.index(each[0]))
        if happens is not True:
            decides = min((one for _, one in own), key=_from)
        found.append(WorkloadPrediction(what, happens, happened(what, result), _text(decides)))
    return tuple(found)


_ORDER = (True, None, False)


def _from(threshold: Threshold) -> tuple[bool, int]:
    """For sorting: the shortest first, and last those at no pause."""
    return threshold.pause is None, threshold.pause.low_ns if threshold.pause is not None else 0


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
    if at.high_ns >= EVER_NS:
        return f"{threshold.what}: possible from a pause of {low} on; {threshold.because}"
    when = low if low == high else f"{low} to {high}"
    return f"{threshold.what}: from a pause of {when}; {threshold.because}"
