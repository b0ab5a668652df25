"""Compares the predictions of a freeze method (FreezeMethod.predicts) and of a resync mechanism
(core.timesync) with the measurements.

Predictions are the lab's, expectations are the user's. A prediction that fails is reported, but does not
change the verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.core import clocksource
from lab.core.clock import GuestClock, Interval, intersect
from lab.core.clock_disturbance import delay_of
from lab.core.method import Regime, WallClock
from lab.core.offsets import SLEW_PPM, ageing_ns
from lab.core.quantities import format_interval
from lab.core.rates import UNKNOWN_DRIFT_PPM
from lab.core.result import CycleResult
from lab.core.timeline import STEP_FLOOR_NS, Reading
from lab.core.timesync.compare import Compared, MeasuredResync, compare
from lab.core.units import NS_PER_S
from lab.core.witnesses import Witness, before_and_after

REGIME, WALL_CLOCK, BOOTTIME = "regime", "wall clock", "boottime"

NEARLY_NS = 2 * NS_PER_S
"""How far off a clock may be that Linux has set from the RTC after a sleep: the RTC has whole seconds, and is
read before and after the sleep (Linux, kernel/time/timekeeping.c, timekeeping_resume)."""

UNDECIDED = "undecided"


@dataclass(frozen=True)
class PredictionCheck:
    """One prediction and its measurement. agrees: None when the error bounds do not decide. words: how the
    two compare, where `agrees` does not say it all; else ""."""

    claim: str
    predicted: str
    measured: str
    agrees: bool | None
    words: str = ""


def _side(offset: Interval) -> str:
    """An offset as text, such as "5 006.3 ± 0.4 ms behind". Positive offsets are ahead."""
    size = offset if offset.mid_ns >= 0 else -offset
    side = "ahead" if offset.mid_ns > 0 else "behind"
    return f"{format_interval(size)} {side}"


def _regime(result: CycleResult, predicted: Regime) -> PredictionCheck:
    seen = result.pause.regime if result.pause is not None else None
    if seen is None:
        return PredictionCheck(REGIME, predicted, UNDECIDED, None)
    return PredictionCheck(REGIME, predicted, seen, seen is predicted)


def _wrapped(result: CycleResult, lost: Interval, slack_ns: int, unclear: bool) -> list[PredictionCheck]:
    """The predictions for clocks whose counter wraps around during the pause: they lose whole periods of
    it."""
    facts, before, at_resume = result.observation.facts_before, result.before, result.at_resume
    reason = clocksource.why(facts.clocksource) if facts is not None else ""
    found = [replace(_regime(result, Regime.MIXED), predicted=f"{Regime.MIXED}: {reason}")]
    if result.pause is None or result.pause.regime is not Regime.MIXED:
        found[0] = replace(found[0], agrees=None)  # nearly all or nearly nothing may be lost
    if facts is not None and result.pause is not None:
        unclear = unclear or clocksource.stands(facts.clocksource, result.pause.pause, facts.kernel)
    predicted = f"behind by {format_interval(lost)}"
    if before is None or at_resume is None or unclear:
        return [*found, PredictionCheck(WALL_CLOCK, predicted, UNDECIDED, None)]
    moved = at_resume - before
    agrees = (-moved).widened(slack_ns).meets(lost)
    return [*found, PredictionCheck(WALL_CLOCK, predicted, _side(moved), agrees)]


def _slack_ns(result: CycleResult, early: Sequence[Reading], late: Sequence[Reading]) -> int:
    """How far the guest's REALTIME may have moved unobserved between the two readings around the pause, in
    ns. While the guest ran it may have been slewed at any rate; while the guest was frozen it may have
    drifted as an undisciplined clock does. It may also have been stepped by less than the sampler detects
    across its gap."""
    stop, resume = result.observation.stop, result.observation.resume
    if stop is None or resume is None or not early or not late:
        return 0
    ran = stop.returned.raw_ns - early[-1].t1.raw_ns + late[0].t4.raw_ns - resume.called.raw_ns
    stood = resume.returned.raw_ns - stop.called.raw_ns
    gap = result.pause.witnesses.get(Witness.GAP) if result.pause is not None else None
    sampler = result.observation.sampler
    step = STEP_FLOOR_NS if sampler is None else sampler.unseen_step_ns(0 if gap is None else gap.high_ns)
    return (
        step + ageing_ns(max(0, ran), SLEW_PPM) + ageing_ns(max(0, stood), result.phi_ppm + UNKNOWN_DRIFT_PPM)
    )


def _stepped_before(result: CycleResult, early: Sequence[Reading]) -> bool:
    """Whether REALTIME may have been stepped between the last reading before the stop and the stop."""
    sampler, resumed = result.observation.sampler, result.resumed_guest
    if sampler is None or resumed is None or not early:
        return True
    last = early[-1].t2[GuestClock.RAW]
    return any(last < step.at_raw_ns <= resumed.high_ns for step in sampler.steps)


def _wall_clock(result: CycleResult, predicted: WallClock, slack_ns: int, unclear: bool) -> PredictionCheck:
    """Compare the predicted wall clock with what the clock lost between the last reading before the stop and
    the resume."""
    before, at_resume, pause, lag = result.before, result.at_resume, result.pause, result.lag
    if predicted is WallClock.BOOTED:
        same = result.boot_id_unchanged
        shown = "not read" if at_resume is None else _side(at_resume)
        return PredictionCheck(WALL_CLOCK, predicted, shown, None if same is None else not same)
    if before is None or at_resume is None or pause is None:
        return PredictionCheck(WALL_CLOCK, predicted, "not measured", None)
    if unclear and predicted is not WallClock.NEARLY:
        return PredictionCheck(WALL_CLOCK, predicted, f"{UNDECIDED}: stepped about the stop", None)
    if predicted is WallClock.NEARLY:
        agrees: bool | None = None
        if at_resume.smallest_ns > NEARLY_NS:
            agrees = False
        elif at_resume.largest_ns <= NEARLY_NS < pause.pause.low_ns:
            agrees = True
        return PredictionCheck(WALL_CLOCK, predicted, _side(at_resume), agrees)
    moved = at_resume - before
    lost = (-moved).widened(slack_ns)
    stood = lag if predicted is WallClock.BEHIND else pause.pause
    unchanged = 0 in lost
    behind = stood is None or lost.meets(stood)
    right, wrong = (behind, unchanged) if predicted is WallClock.BEHIND else (unchanged, behind)
    if predicted is WallClock.RIGHT and not result.observation.frozen:
        wrong = False  # without a pause both predictions are the same
    verdict = False if not right else None if wrong or stood is None else True
    return PredictionCheck(WALL_CLOCK, predicted, _side(moved), verdict)


def _sides(part: Sequence[Reading]) -> Interval | None:
    """BOOTTIME minus MONOTONIC. The guest reads MONOTONIC first when a query arrives, and BOOTTIME first
    before it answers, which gives both bounds. None without readings of both clocks, or when the bounds
    contradict each other."""
    known = []
    for r in part:
        if r.t2.keys() & r.t3.keys() >= {GuestClock.BOOT, GuestClock.MONO}:
            ends = [clocks[GuestClock.BOOT] - clocks[GuestClock.MONO] for clocks in (r.t2, r.t3)]
            known.append(Interval(min(ends), max(ends)).widened(2 * (r.resolution_ns - 1)))
    return intersect(known) if known else None


def _boottime(
    result: CycleResult, counts: bool, early: Sequence[Reading], late: Sequence[Reading]
) -> PredictionCheck:
    """Whether BOOTTIME counted the pause while MONOTONIC did not (clock_gettime(2))."""
    predicted = "goes on" if counts else "as MONOTONIC"
    one, two = _sides(early), _sides(late)
    if one is None or two is None or result.pause is None:
        return PredictionCheck(BOOTTIME, predicted, "not measured", None)
    gained, pause = two - one, result.pause.pause
    shown = format_interval(gained, signed=True)
    slack = NEARLY_NS if counts else ageing_ns(pause.high_ns, UNKNOWN_DRIFT_PPM)
    went_on = gained.meets(pause.widened(slack))
    stood = 0 in gained
    if stood and went_on:
        return PredictionCheck(BOOTTIME, predicted, shown, None)
    right = went_on if counts else stood
    return PredictionCheck(BOOTTIME, predicted, "as MONOTONIC" if stood else shown, right)


def _compared(result: CycleResult, early: Sequence[Reading], late: Sequence[Reading]) -> Compared | None:
    """The mechanism's forecast compared with the resync; None without a forecast."""
    forecast, resync, resume = result.forecast, result.resync, result.observation.resume
    if forecast is None or resync is None or resume is None:
        return None
    before = result.before
    if before is not None:
        unclear = _stepped_before(result, early)
        before = None if unclear else before.widened(_slack_ns(result, early, late))
    edge = resume.returned.raw_ns - resume.called.raw_ns
    finished = result.observation.resync_finished_raw_ns
    if finished is not None:
        finished -= resume.returned.raw_ns
    delay = delay_of(result.observation, resync.time)
    seen = MeasuredResync(
        resync, before, result.at_resume, result.final, edge, finished, result.drift_before, delay
    )
    return compare(forecast, seen)


def compared(result: CycleResult) -> tuple[bool | None, str]:
    """Whether the resync agrees with its forecast, and the comparison in words. (None, "") without a
    forecast."""
    obs = result.observation
    if obs.stop is None or obs.resume is None:
        return None, ""
    found = _compared(result, *before_and_after(obs.readings, obs.stop, obs.resume))
    return (None, "") if found is None else (found.agrees, found.verdict)


def _read_again(result: CycleResult, slack_ns: int, unclear: bool) -> list[PredictionCheck]:
    """The predictions for a clock that runs on for a part of a live migration's pause; [] for others."""
    obs, pause = result.observation, result.pause
    if not obs.method.traits.sends_rest_stopped or obs.facts_before is None or pause is None:
        return []
    source = obs.facts_before.clocksource
    lost = clocksource.lost_in_migration(source, pause.pause)
    if lost is None or not obs.frozen or obs.called_off:
        return []
    regime = replace(_regime(result, Regime.MIXED), predicted=f"{Regime.MIXED}: {source} is read again")
    if pause.regime is not Regime.MIXED:
        regime = replace(regime, agrees=None)  # the rest may be nearly all of the pause, or nearly nothing
    predicted = f"behind by at most {format_interval(pause.pause)}"
    if result.before is None or result.at_resume is None or unclear:
        return [regime, PredictionCheck(WALL_CLOCK, predicted, UNDECIDED, None)]
    moved = result.at_resume - result.before
    return [
        regime,
        PredictionCheck(WALL_CLOCK, predicted, _side(moved), (-moved).widened(slack_ns).meets(lost)),
    ]


def _lost(result: CycleResult) -> Interval | None:
    """What the guest's clocks lose because their counter wraps around during the pause; None: nothing."""
    obs = result.observation
    if obs.predicts.regime is not Regime.JUMPED or obs.facts_before is None or result.pause is None:
        return None
    facts = obs.facts_before
    lost = clocksource.lost(facts.clocksource, result.pause.pause, facts.kernel)
    return lost if lost.high_ns else None


def prediction_checks(result: CycleResult) -> tuple[PredictionCheck, ...]:
    """The checks of the method's predictions, then those of the resync; () when the cycle was not carried
    out."""
    obs = result.observation
    predicts = obs.predicts
    if obs.stop is None or obs.resume is None:
        return ()
    early, late = before_and_after(obs.readings, obs.stop, obs.resume)
    found = []
    slack, unclear = _slack_ns(result, early, late), _stepped_before(result, early)
    if lost := _lost(result):
        found += _wrapped(result, lost, slack, unclear)
    elif again := _read_again(result, slack, unclear):
        found += again
    else:
        if predicts.regime is not None:
            regime = _regime(result, predicts.regime)
            if regime.measured == Regime.MIXED and clocksource.ran_on(obs).high_ns:
                regime = replace(regime, agrees=None)  # of a short pause that may be more than a fifth
            found.append(regime)
        found.append(_wall_clock(result, predicts.wall_clock, slack, unclear))
    if obs.method.freezes:
        found.append(_boottime(result, predicts.boottime_counts, early, late))
    resync = _compared(result, early, late)
    if resync is not None:
        found += [
            PredictionCheck(one.claim, one.predicted, one.measured, one.agrees, one.words)
            for one in resync.claims
        ]
    return tuple(found)
