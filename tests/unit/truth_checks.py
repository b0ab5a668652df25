"""What is measured of a synthetic guest, checked against the truth that simulation.py knows of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from lab.core.clock import GuestClock, Interval
from lab.core.findings import findings
from lab.core.judge import CycleResult, measure
from lab.core.offsets import ALONE_NS, Rate, samples, smoothed
from lab.core.pause import UNSEEN_FLOORS
from lab.core.plan import Expectations, FreezeMethod, Regime, ResyncMechanism
from lab.core.predictions import prediction_checks
from lab.core.resync import Correction, SyncOutcome
from lab.core.steps import PACKET
from lab.core.timeline import Observation, Reading
from lab.core.verdict import Outcome
from lab.core.witnesses import LATE_NS, Witness, before_and_after
from tests.unit.simulation import (
    FLOOR,
    MS,
    STEP_FLOOR,
    STEP_SHARE,
    Network,
    S,
    Scenario,
    Truth,
    simulate,
)


def _sampled_sync(truth: Truth, obs: Observation, limit_ns: int, hold_ns: int) -> int | None:
    """The time to sync as the readings can know it: the first instant of a reading of which all readings
    within the hold time are in tolerance, where there are readings for so long."""
    assert obs.stop is not None
    assert obs.resume is not None
    late = before_and_after(obs.readings, obs.stop, obs.resume)[1]
    looks = [truth.looks[r.t1.raw_ns] for r in late]
    inside = [abs(truth.offset(at)) <= limit_ns for at in looks]
    for i, at in enumerate(looks):
        ends = at + hold_ns
        if looks[-1] >= ends and all(ok for ok, t in zip(inside[i:], looks[i:], strict=True) if t <= ends):
            return at - obs.resume.returned.raw_ns
    return None


def _visible(truth: Truth, obs: Observation) -> bool:
    """Whether the sampler saw every step that was made after the resume."""
    assert obs.sampler is not None
    seen = [s for s in obs.sampler.steps if s.at_raw_ns >= truth.guest_raw(truth.clocks_started)]
    return len(seen) == len(truth.steps_after)


def check_pause(truth: Truth, obs: Observation, result: CycleResult) -> None:
    s, pause = truth.scenario, result.pause
    assert pause is not None
    frozen = s.regime is not Regime.RUNNING
    lost = truth.still + s.hidden_ns
    host = pause.witnesses[Witness.HYPERVISOR]
    if frozen:
        assert truth.held in host
        assert s.regime is not Regime.RESUMED or truth.still in host
    if (lag := pause.witnesses.get(Witness.LAG)) is not None:
        assert lost in lag.widened(s.hidden_ns // 1900)  # more than a clock can lose by its rate
    gap = pause.witnesses.get(Witness.GAP)
    if gap is not None:
        hole = truth.hole / (1 + s.raw_ppb / 1e9)
        assert hole <= gap.high_ns + 1
        assert gap.low_ns <= max(0, hole) + s.stall_ns or s.busy_ns
    if (silence := pause.witnesses.get(Witness.SILENCE)) is not None and frozen and not s.hidden_ns:
        assert truth.held <= silence.high_ns
        assert not s.blind_ns or Witness.SILENCE not in pause.disagreeing
        silent = s.blind_ns or s.mute_ns or s.busy_ns
        if (
            not silent
            and s.network in (Network.STEADY, Network.FAST)
            and s.rtt_ns <= 3 * MS
            and s.stall_ns <= 5 * MS
        ):
            assert silence.low_ns <= truth.held

    if pause.regime is Regime.RESUMED:
        unseen = truth.held - lost <= UNSEEN_FLOORS * FLOOR + MS and 2 * lost >= truth.held
        assert 5 * lost >= 4 * truth.held or unseen
    elif pause.regime is Regime.JUMPED:
        assert 5 * lost <= truth.held
    elif pause.regime is Regime.MIXED:
        assert 0 < lost < truth.held
    elif pause.regime is Regime.RUNNING:
        assert not frozen
    if frozen and pause.regime is Regime.RESUMED and s.regime is not Regime.RESUMED:
        # A part that ran, too small to be told: the pause is between what stood still and what was held.
        assert pause.pause.meets(Interval(min(truth.still, truth.held), max(truth.still, truth.held)))
    elif frozen and pause.regime is Regime.RESUMED:
        assert truth.still in pause.pause
    elif frozen:
        assert truth.held in pause.pause
        assert s.regime is not Regime.RESUMED or truth.still in pause.pause
    if pause.at_rest is not None and not s.hidden_ns:
        assert truth.rest in pause.at_rest
    # Without a sampler only lag explains a pause; what a busy host takes belongs to nothing.
    explained = (not s.amnesia or s.regime is Regime.RESUMED) and not s.busy_ns
    if pause.closure is not None and not s.hidden_ns and s.stall_ns + s.late_ns <= LATE_NS and explained:
        assert pause.closes
    if pause.closure is None:
        assert not pause.closes


def check_held(truth: Truth, obs: Observation, result: CycleResult) -> None:
    """The pause holds the truth: the time for which the clocks stood still in regime RESUMED, otherwise the
    time for which the guest was held; where a part ran that is too small to be told, what is between."""
    pause = result.pause
    assert pause is not None
    assert obs.frozen
    if truth.scenario.regime is Regime.RESUMED or truth.still >= truth.held:  # resumed before its clocks ran
        assert truth.still in pause.pause
    elif pause.regime is Regime.RESUMED:
        assert pause.pause.meets(Interval(min(truth.still, truth.held), max(truth.still, truth.held)))
    else:
        assert truth.held in pause.pause


def _under_way(truth: Truth, reading: Reading) -> bool:
    """Whether somebody else stopped the guest's clocks for less than ALONE_NS while the reading was under
    way. Its bounds are those of the readings beside it, which have seen nothing of that."""
    began, ended = truth.aside
    met = began <= reading.t4.raw_ns and reading.t1.raw_ns <= ended
    return met and reading.round_trip_ns < ALONE_NS


def check_offsets(truth: Truth, obs: Observation, result: CycleResult) -> None:
    assert obs.stop is not None
    assert obs.resume is not None
    early, late = before_and_after(obs.readings, obs.stop, obs.resume)
    for part in (early, late) if not truth.scenario.aside_stands else ():
        wide = smoothed(samples(part, GuestClock.RAW), Rate.within(501))
        for one in wide or ():
            assert truth.raw_offset(one.from_raw_ns) in one.offset
            assert truth.raw_offset(one.to_raw_ns) in one.offset
    if early:
        assert result.before is not None
        where = truth.offset(truth.looks[early[-1].t1.raw_ns])
        assert where in result.before or _under_way(truth, early[-1])
    if late:
        assert result.final is not None
        where = truth.offset(truth.looks[late[-1].t1.raw_ns])
        assert where in result.final or _under_way(truth, late[-1])
        first = truth.looks[late[0].t1.raw_ns]
        if result.at_resume is not None:
            read, kept = truth.offset(first), truth.offset(truth.clocks_started)
            stepped = any(at <= first for at in truth.steps_after) and _visible(truth, obs)
            good = kept in result.at_resume or (read in result.at_resume and not stepped)
            assert good or _under_way(truth, late[0])
    if result.resync is not None:
        assert len(result.resync.curve) == len(late)
        for reading, point in zip(late, result.resync.curve, strict=True):
            where = truth.offset(truth.looks[reading.t1.raw_ns])
            assert where in point.offset or _under_way(truth, reading)


def check_drift(truth: Truth, obs: Observation, result: CycleResult) -> None:
    s, quiet = truth.scenario, truth.real_ppm_quiet
    if s.host_step_ns:
        return
    if result.drift_before is not None and not s.slew_before_ppb and not s.step_before_ns:
        assert result.drift_before.low - 0.01 <= quiet <= result.drift_before.high + 0.01
    if result.drift_after is not None and not s.slews and _visible(truth, obs):
        assert result.drift_after.low - 0.01 <= quiet <= result.drift_after.high + 0.01


def check_sync(truth: Truth, obs: Observation, result: CycleResult, expect: Expectations) -> None:
    resync = result.resync
    assert resync is not None
    when = _sampled_sync(truth, obs, expect.tolerance_ns, expect.hold_ns)
    if resync.outcome is SyncOutcome.SYNCED:
        assert resync.time is not None
        assert when is not None
        assert when in resync.time
    else:
        assert resync.time is None
    if resync.outcome is SyncOutcome.NOT_SYNCED:
        assert when is None


def check_curve(truth: Truth, obs: Observation, result: CycleResult, expect: Expectations) -> None:
    s, resync = truth.scenario, result.resync
    assert resync is not None
    assert [reached.limit_ns for reached in resync.reached] == [S, 100 * MS, 10 * MS, MS]
    for reached in resync.reached:
        if reached.time is not None:
            when = _sampled_sync(truth, obs, reached.limit_ns, expect.hold_ns)
            assert when is not None
            assert when in reached.time
    if resync.slew_ppm is not None and _visible(truth, obs) and not s.host_step_ns:
        # A step that the sampler took for a slew may lie in the window.
        unseen = (STEP_FLOOR + FLOOR // STEP_SHARE) / (S // 2) * 1e6 if truth.steps_after else 0
        assert abs(resync.slew_ppm) <= s.fastest_ppm * 1.001 + abs(truth.real_ppm_quiet) + unseen


def check_course(truth: Truth, obs: Observation, result: CycleResult) -> None:
    """How far past zero the clock went, and how often it was set backward."""
    resync, at_resume = result.resync, result.at_resume
    assert resync is not None
    assert obs.stop is not None
    assert obs.resume is not None
    late = before_and_after(obs.readings, obs.stop, obs.resume)[1]
    if resync.overshoot_ns:
        assert at_resume is not None
        side = 1 if at_resume.high_ns < 0 else -1
        assert resync.overshoot_ns <= max(side * truth.offset(truth.looks[r.t1.raw_ns]) for r in late)
    if _visible(truth, obs) and obs.sampler is not None and not truth.scenario.host_step_ns:
        backward = sum(truth.offset(at) < truth.offset(at - 1) for at in truth.steps_after)
        known = resync.correction is not None
        assert resync.backward_steps == backward or not known


def check_correction(truth: Truth, obs: Observation, result: CycleResult) -> None:
    """Step, slew, both: of four fifths of the way that the guest's REALTIME really went."""
    s, resync = truth.scenario, result.resync
    assert resync is not None
    known = (Correction.STEP, Correction.SLEW)
    late = before_and_after(obs.readings, obs.stop, obs.resume)[1] if obs.stop and obs.resume else ()
    if resync.correction not in known or not late or s.host_step_ns or s.hidden_ns:
        return
    until = truth.looks[late[-1].t1.raw_ns]
    stepped = truth.stepped(until)
    assert stepped if resync.correction is Correction.STEP else s.slews or abs(truth.real_ppm_quiet) > 500


def check_findings(truth: Truth, obs: Observation, result: CycleResult, expect: Expectations) -> None:
    s, pause = truth.scenario, result.pause
    assert obs.stop is not None
    assert obs.resume is not None
    assert pause is not None
    held = {truth.held}
    if s.regime is Regime.RESUMED or pause.regime is Regime.RESUMED:
        held = {truth.still}
    late = before_and_after(obs.readings, obs.stop, obs.resume)[1]
    final = truth.offset(truth.looks[late[-1].t1.raw_ns]) if late else None
    sync = _sampled_sync(truth, obs, expect.tolerance_ns, expect.hold_ns)
    for finding in findings(result, expect):
        if finding.outcome is Outcome.INCONCLUSIVE:
            continue
        passed, true = finding.outcome is Outcome.PASSED, None
        if finding.metric == "pause" and finding.expectation.startswith("at least"):
            true = all(h >= (expect.pause_at_least_ns or 0) for h in held)
        elif finding.metric == "pause":
            true = all(h <= (expect.pause_at_most_ns or 0) for h in held)
        elif finding.metric == "in time":
            true = sync is not None and sync <= (expect.in_time_within_ns or 0)
        elif finding.metric == "final offset":
            assert final is not None
            true = abs(final) <= (expect.final_offset_ns or 0)
        elif finding.metric == "drift" and not s.slews and _visible(truth, obs):
            true = abs(truth.real_ppm_quiet) <= (expect.drift_ppm or 0) if not s.host_step_ns else None
        elif finding.metric == "closure":
            assert passed
            assert not s.hidden_ns
        if true is not None:
            assert passed == true, finding


def check_steps(truth: Truth, obs: Observation, result: CycleResult) -> None:
    """They add up, and the sending of the first sign of life lies in its bounds."""
    s, seen = truth.scenario, result.steps
    assert obs.stop is not None
    assert obs.resume is not None
    if s.regime is Regime.RUNNING:
        assert seen == ()
        return
    assert seen[0].from_ns == 0
    for earlier, later in pairwise(seen):
        assert later.from_ns == earlier.to_ns
    assert all(part.length_ns >= 0 for part in seen)
    if seen[-1].name != PACKET:
        assert obs.stop.called.raw_ns + seen[-1].to_ns <= obs.resume.returned.raw_ns
        return
    heartbeat, packet = seen[-2:]
    arrived = obs.stop.called.raw_ns + packet.to_ns
    sent = truth.sends[arrived]
    assert sent >= truth.clocks_started
    assert heartbeat.bounds is not None
    assert packet.bounds is not None
    if not s.hidden_ns:
        assert max(0, sent - obs.stop.called.raw_ns - heartbeat.from_ns) in heartbeat.bounds
        assert arrived - sent in packet.bounds


def check_predictions(truth: Truth, obs: Observation, result: CycleResult) -> None:
    """Never wrong: neither a surprise where the guest did as the method's rules say, nor none where not."""
    s = truth.scenario
    right = {claim.claim: claim.agrees for claim in prediction_checks(result)}
    if s.host_step_ns or s.hidden_ns or s.step_before_ns or s.slew_before_ppb or s.regime is Regime.MIXED:
        return
    assert right["regime"] is not False
    assert right["wall clock"] is not False
    other = {
        Regime.RESUMED: FreezeMethod.SIGSTOP, Regime.JUMPED: FreezeMethod.SUSPEND,
    }  # fmt: skip
    if s.regime in other:
        swapped = replace(result, observation=replace(obs, method=other[s.regime]))
        wrong = {claim.claim: claim.agrees for claim in prediction_checks(swapped)}
        assert wrong["regime"] is not True
        assert wrong["wall clock"] is not True
        counted = s.boot_counts and s.regime is Regime.RESUMED
        assert right["boottime"] is not counted
        asleep = replace(result, observation=replace(obs, method=FreezeMethod.GUEST_SLEEP))
        assert {claim.claim: claim.agrees for claim in prediction_checks(asleep)}["boottime"] is not (
            not counted
        )


def check_clock(truth: Truth, obs: Observation, result: CycleResult, expect: Expectations) -> None:
    """What is said of the guest's clock around and after the pause, its drift aside."""
    check_offsets(truth, obs, result)
    check_sync(truth, obs, result, expect)
    check_curve(truth, obs, result, expect)
    check_course(truth, obs, result)


def check(s: Scenario, expect: Expectations) -> CycleResult:
    obs, truth = simulate(s)
    result = measure(obs, ResyncMechanism.AGENT, expect)
    check_pause(truth, obs, result)
    check_clock(truth, obs, result, expect)
    check_drift(truth, obs, result)
    check_correction(truth, obs, result)
    check_findings(truth, obs, result, expect)
    check_steps(truth, obs, result)
    check_predictions(truth, obs, result)
    return result


def true_sync(truth: Truth, obs: Observation, limit_ns: int, hold_ns: int) -> int | None:
    """The time to sync as it was, whoever looked: the first instant since the resume from which the offset
    stays within the limit for the hold time, until the last reading. To some milliseconds."""
    assert obs.stop is not None
    assert obs.resume is not None
    late = before_and_after(obs.readings, obs.stop, obs.resume)[1]
    if not late:
        return None
    begin, end = obs.resume.returned.raw_ns, truth.looks[late[-1].t1.raw_ns]
    since: int | None = None
    for at in range(begin, end + 1, 4 * MS):
        if abs(truth.offset(at)) > limit_ns:
            since = None
        elif since is None:
            since = at
        if since is not None and at - since >= hold_ns:
            return since - begin
    return None


def check_true_sync(truth: Truth, obs: Observation, result: CycleResult, expect: Expectations) -> None:
    """What is certainly out of tolerance is told, and nothing that was in it, whether somebody looked or
    not."""
    resync = result.resync
    assert resync is not None
    when = true_sync(truth, obs, expect.tolerance_ns, expect.hold_ns + 8 * MS)
    if resync.outcome is SyncOutcome.NOT_SYNCED:
        assert when is None
    elif resync.time is not None and when is not None:
        assert resync.time.low_ns <= when + 4 * MS
    for finding in findings(result, expect):
        if finding.metric == "in time" and finding.outcome is Outcome.FAILED:
            assert when is None or when + 4 * MS > (expect.in_time_within_ns or 0)
