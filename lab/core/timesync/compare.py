"""Compares a forecast with the measurement. Where the bounds do not decide, there is no verdict.

A forecast makes four claims: that the offset is corrected (or stays), by when, by what kind of correction,
and to where. The offset is corrected when it stays in the forecast's residual for HOLD_NS. If the forecast's
time is not over when the watch ends, the verdict is "not yet, as predicted", which is no confirmation. There
is nothing more to wait for when the mechanism's action is complete, or when the clock moved to where the
mechanism does not take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.core.clock import Interval
from lab.core.clock_disturbance import NO_DELAY, Delay
from lab.core.drift import Drift
from lab.core.quantities import format_about, format_interval
from lab.core.resync import (
    UNDISCIPLINED_PPM,
    Correction,
    CurvePoint,
    ResyncResult,
    SyncOutcome,
    gone_on,
    running_off,
    runs_wild,
    settled,
)
from lab.core.timesync.forecast import Forecast
from lab.core.units import NS_PER_S

RESYNC, RESYNC_BY, CORRECTION, RESIDUAL = "resync", "resync by", "correction", "residual"
CLAIMS = (RESYNC, RESYNC_BY, CORRECTION, RESIDUAL)

AS_PREDICTED = "as predicted"
NOT_YET = "not yet, as predicted"

SETTLED_FOR_NS = NS_PER_S // 2
"""How long the offset has to stay in the residual. An overshoot of chronyd lasts for a poll."""

ASTRAY = 2
"""A clock whose offset is this many times that before the freeze or at the resume is not being corrected.
chronyd overshoots by a third, plus what its frequency adds until its next poll (core.timesync.chrony)."""


@dataclass(frozen=True)
class Claimed:
    """The verdict on one claim of a forecast. agrees: None where the bounds do not decide; words: the verdict
    in words."""

    claim: str
    predicted: str
    measured: str
    agrees: bool | None
    words: str


@dataclass(frozen=True)
class Compared:
    """The verdict on a forecast. agrees: False when a claim certainly contradicts the measurement, True when
    all claims agree, else None."""

    agrees: bool | None
    verdict: str
    claims: tuple[Claimed, ...] = ()


@dataclass(frozen=True)
class MeasuredResync:
    """The measurement. before: the offset at the stop, widened by its possible move since the last reading.
    edge_ns: by how much the resume may have been earlier than the curve's zero (the call's return).
    finished_ns: when after that zero the mechanism's action was complete; None when it was not, or continues
    by itself. drift: the clock's drift before the freeze. delay_ns: by how much a busy host may have delayed
    the correction (clock_disturbance.delay_ns)."""

    resync: ResyncResult
    before: Interval | None
    at_resume: Interval | None
    final: Interval | None
    edge_ns: int = 0
    finished_ns: int | None = None
    drift: Drift | None = None
    delay: Delay = NO_DELAY

    @property
    def curve(self) -> Sequence[CurvePoint]:
        return self.resync.curve

    @property
    def lasted_ns(self) -> int:
        """How long after the resume the clock was certainly watched."""
        return self.curve[-1].from_ns if self.curve else 0


def compare(forecast: Forecast, observed: MeasuredResync) -> Compared:
    if forecast.repaired is None:
        return Compared(None, f"undecided: {forecast.text}")
    if not observed.curve or observed.final is None:
        return Compared(None, "undecided: no readings after the resume")
    if runs_wild(observed.drift):
        return Compared(None, "undecided: the guest's kernel has its clock's frequency wrong")
    forecast = _with_latency_measured(forecast, observed)
    target = _target(forecast, observed)
    if target is None:
        return Compared(None, "undecided: the offset before the freeze was not measured")
    compared = _judged(forecast, observed, observed.final, target)
    delay_ns = observed.delay.longest_ns
    if compared.agrees is False and forecast.repaired and delay_ns:
        # A forecast knows of no busy host. What only one explains is not told apart from it.
        within = forecast.within
        if within is not None:
            within = Interval(within.low_ns, within.high_ns + delay_ns)
        slower, wider = replace(forecast, within=within), target + observed.delay.off(observed.at_resume)
        if _judged(slower, observed, observed.final, wider).agrees is not False:
            words = f"undecided: the busy host delayed the correction by up to {format_about(delay_ns)}"
            return Compared(None, words, compared.claims)
    return compared


def _judged(forecast: Forecast, observed: MeasuredResync, final: Interval, target: Interval) -> Compared:
    judged = _repaired if forecast.repaired else _left
    claims = tuple(judged(forecast, observed, final, target))
    for wanted in (False, None):
        for one in claims:
            if one.agrees is wanted:
                return Compared(wanted, one.words, claims)
    return Compared(True, AS_PREDICTED, claims)


def _with_latency_measured(forecast: Forecast, observed: MeasuredResync) -> Forecast:
    """The forecast, corrected when the host's time took longer to the guest than estimated: the host read its
    clock after the resume, so the clock that was set to it is no further behind than the time from the resume
    to the step. It is not corrected if the clock was no further behind before the step."""
    until, residual = observed.resync.settled_step_until_ns, forecast.residual
    if not forecast.latency_ns or residual is None or until is None or until <= forecast.latency_ns:
        return forecast
    late = Interval(residual.low_ns + forecast.latency_ns - until, residual.high_ns)
    start = observed.at_resume
    return forecast if start is None or start.meets(late) else replace(forecast, residual=late)


def _target(forecast: Forecast, observed: MeasuredResync) -> Interval | None:
    """Where the offset has to be: a part that is not corrected stays where it was before, and may drift."""
    if forecast.residual is None:
        return None
    span = observed.curve[-1].at_ns + observed.edge_ns
    drift = int(span * UNDISCIPLINED_PPM / 1e6) + 1
    if forecast.repaired and forecast.correction is not Correction.NONE:
        return forecast.residual.widened(drift)
    if observed.before is None:
        return None
    start = observed.before
    if forecast.repaired and forecast.residual.low_ns < forecast.residual.high_ns:
        # Somebody keeps it in time: it may have come nearer.
        start = Interval(min(start.low_ns, 0), max(start.high_ns, 0))
    if (off := running_off(observed.drift)) is not None:
        on = gone_on(off, span)  # or somebody has stopped it
        start = start + Interval(min(0, on.low_ns), max(0, on.high_ns))
    return (start + forecast.residual).widened(drift)


def _range(where: Interval) -> str:
    low, high = format_about(abs(where.low_ns)), format_about(abs(where.high_ns))
    if where.low_ns == -where.high_ns:
        return f"± {high}"
    return f"{'-' if where.low_ns < 0 else '+'}{low} to {'-' if where.high_ns < 0 else '+'}{high}"


def _left(forecast: Forecast, observed: MeasuredResync, final: Interval, target: Interval) -> list[Claimed]:
    """The claims of a forecast that nothing corrects the clock: at the end of the watch the offset is where
    the pause put it."""
    measured = f"{format_interval(final, signed=True)} at the end"
    agrees: bool | None = None
    words = "undecided: the bounds do not tell whether it stayed"
    if target.low_ns <= final.low_ns and final.high_ns <= target.high_ns:
        agrees, words = True, AS_PREDICTED
    elif not final.meets(target):
        agrees, words = False, "moved, although not predicted"
        if final.largest_ns < target.smallest_ns:
            words = "repaired, although not predicted"
    found = [Claimed(RESYNC, forecast.text, measured, agrees, words)]
    if forecast.correction is Correction.NONE:
        found.append(_correction(forecast.correction, observed))
    return found


def _repaired(
    forecast: Forecast, observed: MeasuredResync, final: Interval, target: Interval
) -> list[Claimed]:
    outcome, why, time = settled(observed.curve, target, SETTLED_FOR_NS)
    back = Claimed(RESYNC, forecast.text, "came back", True, AS_PREDICTED)
    if time is None:
        return [_not_back(forecast, observed, final, target, outcome, why)]
    found = [back]
    if forecast.correction is not None and forecast.correction is not Correction.NONE:
        found.append(_correction(forecast.correction, observed))
    if forecast.within is not None:
        found.append(_by(forecast.within, time, observed.edge_ns))
    found.append(_residual(forecast, observed, final, target))
    return found


def _not_back(
    forecast: Forecast,
    observed: MeasuredResync,
    final: Interval,
    target: Interval,
    outcome: SyncOutcome,
    why: str,
) -> Claimed:
    after = format_about(observed.curve[-1].at_ns)
    measured = f"{format_interval(final, signed=True)} after {after}"
    within = forecast.within
    out = not observed.curve[-1].offset.meets(target)
    if out and within is not None and observed.lasted_ns <= within.high_ns:
        over = _over(forecast, observed, target)
        if over is None:
            return Claimed(RESYNC, forecast.text, measured, None, NOT_YET)
        left = _range(forecast.residual or target)
        words = f"left at {format_interval(final, signed=True)}, {left} predicted{over}"
        return Claimed(RESYNC, forecast.text, measured, False, words)
    # After the latest time it is out whatever it was before, when nobody looked.
    if not out or (within is None and outcome is not SyncOutcome.NOT_SYNCED):
        return Claimed(RESYNC, forecast.text, measured, None, f"undecided: {why}")
    words = f"not back after {after}" if within is not None else "moved, although not predicted"
    return Claimed(RESYNC, forecast.text, measured, False, words)


def _over(forecast: Forecast, observed: MeasuredResync, target: Interval) -> str | None:
    """Why a clock outside of `target` at the last reading needs no longer watch, in words ("" where the
    offset is reason enough); None when it may still be corrected."""
    if observed.finished_ns is not None and observed.finished_ns < observed.lasted_ns:
        return f"; all was done after {format_about(max(0, observed.finished_ns))}"
    last, step, start = observed.curve[-1].offset, observed.resync.settled_step_ns, observed.at_resume
    if forecast.once and step is not None and abs(step) > target.largest_ns:
        return ""
    if start is None or observed.before is None:
        return None
    most = max(start.largest_ns, observed.before.largest_ns)
    return "" if last.smallest_ns > max(ASTRAY * most, target.largest_ns) else None


def _by(within: Interval, time: Interval, edge_ns: int) -> Claimed:
    predicted = f"{format_about(within.low_ns)} to {format_about(within.high_ns)}"
    measured = f"{format_about(time.low_ns)} to {format_about(time.high_ns)}"
    agrees: bool | None = None
    words = "undecided: the bounds of the time do not tell"
    if time.low_ns > within.high_ns:
        agrees, words = False, "later than predicted"
    elif time.high_ns + edge_ns < within.low_ns:
        agrees, words = False, "sooner than predicted"
    elif within.low_ns <= time.low_ns and time.high_ns + edge_ns <= within.high_ns:
        agrees, words = True, AS_PREDICTED
    elif time.low_ns <= within.low_ns <= within.high_ns <= time.high_ns:
        words = "undecided: seldom read"
    return Claimed(RESYNC_BY, predicted, measured, agrees, words)


def _correction(predicted: Correction, observed: MeasuredResync) -> Claimed:
    """The verdict on the kind of correction; both are those of the larger part. If little was lost, no
    visible move is no contradiction."""
    measured = observed.resync.correction
    if measured is None:
        words = "undecided: not told whether it was stepped or slewed"
        return Claimed(CORRECTION, predicted, "not told", None, words)
    if measured is predicted:
        return Claimed(CORRECTION, predicted, measured, True, AS_PREDICTED)
    kinds = {Correction.STEP: "stepped", Correction.SLEW: "slewed", Correction.BOTH: "stepped and slewed"}
    if predicted is not Correction.NONE and measured in (Correction.BOTH, Correction.NONE):
        words = f"undecided: {kinds.get(measured, 'not moved')}, {predicted} predicted"
        return Claimed(CORRECTION, predicted, measured, None, words)
    if predicted is Correction.NONE:
        words = f"{kinds[measured]}, although not predicted"
        return Claimed(CORRECTION, predicted, measured, False, words)
    return Claimed(CORRECTION, predicted, measured, False, f"{kinds[measured]}, {predicted} predicted")


def _residual(forecast: Forecast, observed: MeasuredResync, final: Interval, target: Interval) -> Claimed:
    predicted = _range(forecast.residual or target)
    agrees: bool | None = None
    words = f"undecided: {format_interval(final, signed=True)}, {predicted} predicted"
    if target.low_ns <= final.low_ns and final.high_ns <= target.high_ns:
        agrees, words = True, AS_PREDICTED
    elif not final.meets(target):
        over: str | None = ""
        if forecast.within is not None and observed.lasted_ns <= forecast.within.high_ns:
            over = _over(forecast, observed, target)
        agrees, words = False, f"left at {format_interval(final, signed=True)}, {predicted} predicted{over}"
        if over is None:
            agrees, words = None, NOT_YET
    return Claimed(RESIDUAL, predicted, format_interval(final, signed=True), agrees, words)
