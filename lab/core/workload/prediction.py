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

    what: one of outage (no success for longer than the pause and 1 s), lost, twice, refused (something that
    was dated is refused at the host's time), a name of the state (its value changes), "two NAME" (two guests
    hold it at the same time), or an event, which is any other name.
    pause: None: at no pause; with EVER_NS as its upper end: from its lower end on it may happen, or not.
    because: the setting and its value. source: where that is documented. ends: the pause from which on it
    happens no more; None: there is none.
    """

    what: str
    pause: Interval | None
    because: str
    source: str = ""
    ends: Interval | None = None


@dataclass(frozen=True)
class CatchUp:
    """What waits during a pause is done afterwards, faster than more of it comes.

    speed: low and high, of what is done beside what comes in the same time. allowed_ns: what is done so much
    later than it is due is in time. because, source: as of a threshold.
    """

    speed: tuple[float, float]
    allowed_ns: int
    because: str
    source: str = ""

    def back(self, pause: Interval) -> Interval | None:
        """From the resume until something is done in time; None: never; up to EVER_NS: perhaps never. A
        backlog of P is as long as it may be after (P - allowed) / (speed - 1)."""
        slow, fast = self.speed
        if fast <= 1:
            return None
        least, most = (max(0, ns - self.allowed_ns) for ns in (pause.low_ns, pause.high_ns))
        low = round(least / (fast - 1))
        if slow <= 1:
            return Interval(low, max(low, EVER_NS))
        return Interval(low, round(most / (slow - 1)) + OUTAGE_SLACK_NS)


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
    if result.problems or result.is_empty:
        return None
    if what == "outage":
        return _outage(result)
    if what in ("lost", "twice"):
        book = result.ledger
        if book is None or (what == "lost" and not book.lost and book.undecided):
            return None
        return bool(getattr(book, what))
    if what == "refused":
        return any(kind.refused for kind in result.stamped) if result.stamps else None
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


def predictions(
    rules: Sequence[Threshold | CatchUp], result: WorkloadResult
) -> tuple[WorkloadPrediction, ...]:
    """The predictions for a cycle, each beside what happened. rules: those that hold in the cycle's regime.
    What has several thresholds happens from the shortest of them on. () where the pause is not known, or
    nobody was frozen."""
    pause = result.window.pause
    if pause is None or not result.window.frozen:
        return ()
    thresholds = [one for one in rules if isinstance(one, Threshold)]
    found = []
    for what in dict.fromkeys(one.what for one in thresholds):
        own = [(_happens(one, pause), one) for one in thresholds if one.what == what]
        happens, decides = min(own, key=lambda each: _ORDER.index(each[0]))
        if happens is not True:
            decides = min((one for _, one in own), key=_from)
        found.append(WorkloadPrediction(what, happens, happened(what, result), _text(decides)))
    return (*found, *(_caught_up(one, pause, result) for one in rules if isinstance(one, CatchUp)))


def _caught_up(rule: CatchUp, pause: Interval, result: WorkloadResult) -> WorkloadPrediction:
    at, back = rule.back(pause), result.recovery_ns
    is_known = not result.problems and (back is not None or result.unended)
    if at is None:
        text = f"back: not at all; {rule.because}"
        return WorkloadPrediction("back", False, back is not None if is_known else None, text)
    low, high = (format_duration(round(ns, -8)) for ns in (at.low_ns, at.high_ns))
    when = f"{low} to {high} after the resume"
    if at.high_ns >= EVER_NS:
        when, is_known = f"{low} after the resume or later, if at all", is_known and back is not None
    happened_so = back is not None and back in at if is_known else None
    return WorkloadPrediction("back", True, happened_so, f"back: {when}; {rule.because}")


_ORDER = (True, None, False)


def _from(threshold: Threshold) -> tuple[bool, int]:
    """For sorting: the shortest first, and last those at no pause."""
    return threshold.pause is None, threshold.pause.low_ns if threshold.pause is not None else 0


def _happens(threshold: Threshold, pause: Interval) -> bool | None:
    at, ends = threshold.pause, threshold.ends
    if at is None or pause.high_ns < at.low_ns or (ends is not None and pause.low_ns > ends.high_ns):
        return False
    if ends is not None and pause.high_ns >= ends.low_ns:
        return None
    return True if pause.low_ns > at.high_ns else None


def _text(threshold: Threshold) -> str:
    at = threshold.pause
    if at is None:
        return f"{threshold.what}: at no pause; {threshold.because}"
    low, high = (format_duration(round(ns, -6)) for ns in (at.low_ns, at.high_ns))
    until = "" if threshold.ends is None else f" up to {format_duration(round(threshold.ends.low_ns, -6))}"
    if at.high_ns >= EVER_NS:
        return (
            f"{threshold.what}: possible from a pause of {low} {until.strip() or 'on'}; {threshold.because}"
        )
    when = low if low == high else f"{low} to {high}"
    return f"{threshold.what}: from a pause of {when}{until}; {threshold.because}"
