"""The measurement against synthetic guests: every interval contains the truth, no verdict is wrong.

The number of cases is fixed and so is what is drawn (derandomize). FREEZELAB_HYPOTHESIS=20000 runs that many
random ones instead, over this module's tests and test_core_disturbed.py's in the proportion of their usual
numbers, and prints how to repeat a failure; pytest's --hypothesis-seed=N fixes what is drawn.
FREEZELAB_SHRINK=1 makes a failure small, slowly.

Mutations of lab/core that were tried, each seen to fail here or in test_core_pointed.py: a rate taken
from the wrong end in `smoothed`; the sign of the host's apartness in `real_sample`; no allowance for
slew and stamps in `host_apart`; no drift over the time that the lag leaves (`lag_witness`); readings
called "before" up to the resume; events carried by the stamp at the call alone; no LATE_NS; a hole in
guest time taken as host time; a regime by meeting intervals only; a generous stretch not counted; an
out-sample dated by its end; steps ignored at the resume; the host's slew left out of what is carried
over the pause; a straddling sample left in a stretch; the nearer distance for the farther in `drift`.
Not seen to fail: no slew in `apart`, where a contradiction falls back to the wider, sound bracket.

The code before these tests failed in about one case of five. RESUMED, 36 ms, slow heartbeats (seed
2482097045): pause [43.1, 45.4] ms, truth 39.6: silence narrowed it. SIGSTOP for 30 s, guest +241 ppm
(seed 3013875424): pause from 29 996.2 ms, truth 29 992.8: a hole in guest time. RESUMED, stamp
interrupted (seed 2444085108): hypervisor from 28.0 ms, truth 26.2. MIXED, 17.3 of 23.6 ms standing (seed
4046248206): called resumed, [14.9, 19.9] ms.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lab.core.clock import GuestClock, Interval
from lab.core.findings import findings
from lab.core.judge import CycleResult, measure
from lab.core.offsets import Rate, samples, smoothed
from lab.core.pause import UNSEEN_FLOORS
from lab.core.plan import Expectations, FreezeMethod, Regime, ResyncMechanism
from lab.core.predictions import held
from lab.core.resync import Correction, SyncOutcome
from lab.core.steps import PACKET
from lab.core.timeline import Observation
from lab.core.verdict import Outcome
from lab.core.witnesses import LATE_NS, Witness, before_and_after
from tests.unit.simulation import (
    FLOOR,
    MS,
    STEP_FLOOR,
    STEP_SHARE,
    US,
    Network,
    Repair,
    S,
    Scenario,
    Truth,
    simulate,
)

HEAVY = int(os.environ.get("FREEZELAB_HYPOTHESIS", "0"))
SHRINK = "FREEZELAB_SHRINK" in os.environ  # a failing case is simulated hundreds of times for that


USUAL = 2750
"""The sum of the counts of `cases` in these two modules."""


def cases(count: int) -> settings:
    return settings(
        max_examples=-(-HEAVY * count // USUAL) or count,
        derandomize=not HEAVY,
        deadline=None,
        print_blob=True,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink] if SHRINK else [Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _either(*several: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return st.one_of(*several)


scenarios = st.builds(
    Scenario,
    seed=st.integers(0, 1 << 32),
    regime=st.sampled_from(list(Regime)),
    kvm=st.booleans(),
    events=st.booleans(),
    before_ns=st.integers(50 * MS, 2500 * MS),
    pause_ns=_either(st.integers(0, 60 * MS), st.integers(60 * MS, 2 * S), st.integers(2 * S, 30 * S)),
    watch_ns=st.integers(100 * MS, 4 * S),
    standing=st.integers(1, 99),
    raw_ppb=st.integers(-500_000, 500_000),
    real_ppb=st.integers(-500_000, 500_000),
    host_ppb=st.integers(-500_000, 500_000),
    start_offset_ns=_either(st.just(0), st.integers(-200 * MS, 200 * MS)),
    network=st.sampled_from(list(Network)),
    rtt_ns=st.integers(1 * MS, 8 * MS),
    loss=st.sampled_from([0, 0, 10, 60]),
    straddle=st.booleans(),
    preempted=st.booleans(),
    late_ns=st.sampled_from([1 * MS, 10 * MS, 40 * MS]),
    stall_ns=st.sampled_from([0, 100 * US, 5 * MS, 50 * MS]),
    call_ns=st.integers(100 * US, 20 * MS),
    repair=st.sampled_from(list(Repair)),
    repair_after_ns=_either(st.integers(0, 20 * MS), st.integers(20 * MS, 2 * S)),
    residual_ns=_either(st.integers(-2 * MS, 2 * MS), st.integers(-150 * MS, 150 * MS)),
    slew_ppb=st.sampled_from([500_000, 10_000_000, 83_333_000]),
    boot_counts=st.booleans(),
)
slewed_before = st.builds(
    lambda s, slew, step: replace(s, slew_before_ppb=slew, step_before_ns=step),
    scenarios,
    st.sampled_from([0, 500_000, -10_000_000, 83_333_000]),
    st.sampled_from([0, 3 * MS, -40 * MS, S]),
)
host_moved = st.builds(
    lambda s, step, at: replace(s, host_step_ns=step, host_step_at=at),
    scenarios,
    st.sampled_from([300 * US, -3 * MS, 40 * MS, -2 * S]),
    st.integers(0, 10 * S),
)
short = st.builds(
    lambda s, pause, call, late, blind, lost, mute: replace(
        s,
        pause_ns=pause,
        call_ns=call,
        return_ns=late,
        blind_ns=blind,
        amnesia=lost and blind > 0,
        mute_ns=mute,
    ),
    scenarios,
    st.integers(10 * MS, 60 * MS),
    st.integers(200 * US, 4 * MS),
    st.sampled_from([0, 3 * MS, 20 * MS]),
    st.sampled_from([0, 0, 700 * MS, 2 * S]),
    st.booleans(),
    st.sampled_from([0, 60 * MS, 500 * MS]),
)
expectations = st.builds(
    Expectations,
    regime=st.sampled_from([None, *Regime]),
    pause_at_least_ns=st.integers(0, 10 * S),
    pause_at_most_ns=st.integers(0, 10 * S),
    in_time_within_ns=_either(st.integers(1, 100 * MS), st.integers(100 * MS, 6 * S)),
    tolerance_ns=_either(st.integers(1 * MS, 12 * MS), st.integers(12 * MS, 300 * MS)),
    hold_ns=st.sampled_from([0, 100 * MS, 500 * MS, 2 * S]),
    final_offset_ns=_either(st.integers(0, 12 * MS), st.integers(12 * MS, 300 * MS)),
    drift_ppm=st.floats(1, 2000),
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


def check_offsets(truth: Truth, obs: Observation, result: CycleResult) -> None:
    assert obs.stop is not None
    assert obs.resume is not None
    early, late = before_and_after(obs.readings, obs.stop, obs.resume)
    for part in (early, late):
        wide = smoothed(samples(part, GuestClock.RAW), Rate.within(501))
        for one in wide or ():
            assert truth.raw_offset(one.from_raw_ns) in one.offset
            assert truth.raw_offset(one.to_raw_ns) in one.offset
    if early:
        assert result.before is not None
        assert truth.offset(truth.looks[early[-1].t1.raw_ns]) in result.before
    if late:
        assert result.final is not None
        assert truth.offset(truth.looks[late[-1].t1.raw_ns]) in result.final
        first = truth.looks[late[0].t1.raw_ns]
        if result.at_resume is not None:
            read, kept = truth.offset(first), truth.offset(truth.clocks_started)
            stepped = any(at <= first for at in truth.steps_after) and _visible(truth, obs)
            assert kept in result.at_resume or (read in result.at_resume and not stepped)
    if result.resync is not None:
        assert len(result.resync.curve) == len(late)
        for reading, point in zip(late, result.resync.curve, strict=True):
            assert truth.offset(truth.looks[reading.t1.raw_ns]) in point.offset


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
    right = {claim.claim: claim.agrees for claim in held(result)}
    if s.host_step_ns or s.hidden_ns or s.step_before_ns or s.slew_before_ppb or s.regime is Regime.MIXED:
        return
    assert right["regime"] is not False
    assert right["wall clock"] is not False
    other = {
        Regime.RESUMED: FreezeMethod.SIGSTOP, Regime.JUMPED: FreezeMethod.SUSPEND,
    }  # fmt: skip
    if s.regime in other:
        swapped = replace(result, observation=replace(obs, method=other[s.regime]))
        wrong = {claim.claim: claim.agrees for claim in held(swapped)}
        assert wrong["regime"] is not True
        assert wrong["wall clock"] is not True
        counted = s.boot_counts and s.regime is Regime.RESUMED
        assert right["boottime"] is not counted
        asleep = replace(result, observation=replace(obs, method=FreezeMethod.GUEST_SLEEP))
        assert {claim.claim: claim.agrees for claim in held(asleep)}["boottime"] is not (not counted)


def check(s: Scenario, expect: Expectations) -> CycleResult:
    obs, truth = simulate(s)
    result = measure(obs, ResyncMechanism.AGENT, expect)
    check_pause(truth, obs, result)
    check_offsets(truth, obs, result)
    check_drift(truth, obs, result)
    check_sync(truth, obs, result, expect)
    check_curve(truth, obs, result, expect)
    check_course(truth, obs, result)
    check_correction(truth, obs, result)
    check_findings(truth, obs, result, expect)
    check_steps(truth, obs, result)
    check_predictions(truth, obs, result)
    return result


@given(scenarios, expectations)
@cases(500)
def test_every_interval_contains_the_truth_and_no_verdict_is_wrong(s: Scenario, expect: Expectations) -> None:
    check(s, expect)


@given(slewed_before, expectations)
@cases(250)
def test_a_clock_that_is_moved_before_the_freeze(s: Scenario, expect: Expectations) -> None:
    check(s, expect)


@given(host_moved, expectations)
@cases(150)
def test_a_host_whose_clock_is_stepped(s: Scenario, expect: Expectations) -> None:
    check(s, expect)


@given(short, expectations)
@cases(250)
def test_a_short_pause_with_cut_connections_and_a_late_return(s: Scenario, expect: Expectations) -> None:
    check(s, expect)


@given(scenarios, st.integers(300 * MS, 3 * S))
@cases(150)
def test_time_lost_by_the_guests_clock_never_closes(s: Scenario, hidden: int) -> None:
    regime = s.regime if s.regime in (Regime.RESUMED, Regime.RUNNING) else Regime.RESUMED
    s = replace(
        s, regime=regime, hidden_ns=hidden, late_ns=10 * MS, network=Network.STEADY, repair=Repair.NONE
    )
    obs, truth = simulate(s)
    result = measure(obs, ResyncMechanism.NONE, Expectations())
    check_pause(truth, obs, result)
    check_findings(truth, obs, result, Expectations())
    assert result.pause is not None
    assert not result.pause.closes


@given(scenarios, st.integers(300 * MS, 3 * S))
@cases(150)
def test_a_guest_that_stands_longer_than_it_was_held_never_closes(s: Scenario, stall: int) -> None:
    regime = s.regime if s.regime is not Regime.RUNNING else Regime.JUMPED
    s = replace(s, regime=regime, stall_ns=stall, late_ns=10 * MS, network=Network.STEADY, repair=Repair.NONE)
    obs, truth = simulate(s)
    result = measure(obs, ResyncMechanism.NONE, Expectations())
    assert result.pause is not None
    lag = result.pause.witnesses.get(Witness.LAG)
    # A single reading that was under way while it stood bounds the lag to no better than that.
    assert not result.pause.closes or (lag is not None and lag.half_width_ns > stall // 4)
    if result.pause.at_rest is not None:
        assert truth.rest in result.pause.at_rest


@pytest.mark.parametrize("regime", [Regime.RESUMED, Regime.JUMPED, Regime.MIXED, Regime.RUNNING])
@pytest.mark.parametrize("seed", range(4))
def test_an_ordinary_cycle_is_decided_and_narrow(regime: Regime, seed: int) -> None:
    """Not only never wrong: at 2 to 3 ms of round trip everything is decided, to a millisecond."""
    s = Scenario(seed=seed, regime=regime, raw_ppb=120_000, before_ns=3 * S, pause_ns=3 * S, watch_ns=4 * S)
    s = replace(s, rtt_ns=2 * MS, call_ns=MS if regime is Regime.JUMPED else 2 * MS)
    result = check(s, Expectations(in_time_within_ns=S, final_offset_ns=20 * MS))
    assert result.pause is not None
    assert result.pause.regime is regime
    assert result.pause.closes
    assert result.pause.disagreeing == ()
    if regime is not Regime.RUNNING:
        assert result.pause.pause.half_width_ns < 1_500_000
    for offset in (result.before, result.at_resume, result.final):
        assert isinstance(offset, Interval)
        assert offset.half_width_ns < 900_000
    assert result.resync is not None
    assert result.resync.outcome is SyncOutcome.SYNCED


@pytest.mark.parametrize("pause_ms", [14, 20, 40])
@pytest.mark.parametrize("late_ms", [0, 20])
def test_a_pause_of_milliseconds_is_decided_with_a_late_return(pause_ms: int, late_ms: int) -> None:
    """As in an exchange: the guest runs up to 20 ms before the resume call returns. Undecided at times,
    when readings or the sampler are unlucky, but mostly not; and it always closes."""
    decided = 0
    for seed in range(6):
        s = Scenario(seed=seed, raw_ppb=40_000, pause_ns=pause_ms * MS, call_ns=MS, return_ns=late_ms * MS)
        result = check(replace(s, rtt_ns=2 * MS, before_ns=2 * S, watch_ns=2 * S, late_ns=MS), Expectations())
        assert result.pause is not None
        assert result.pause.closes
        decided += result.pause.regime is Regime.RESUMED
        if result.pause.regime is not None:
            assert result.pause.pause.half_width_ns < 2 * MS
    assert decided >= 5


def test_a_short_pause_after_cut_connections_is_measured_all_the_same() -> None:
    """The first reading comes two seconds later; with and without the sampler of before."""
    for amnesia in (False, True):
        s = Scenario(
            seed=3, pause_ns=20 * MS, call_ns=MS, return_ns=10 * MS, rtt_ns=2 * MS, before_ns=3 * S,
            watch_ns=3 * S, blind_ns=2 * S, amnesia=amnesia, repair=Repair.NONE, late_ns=MS,
        )  # fmt: skip
        result = check(s, Expectations())
        assert result.pause is not None
        assert result.pause.closes
        assert result.pause.disagreeing == ()
        assert result.problems == ()
        assert all(f.outcome is not Outcome.FAILED for f in findings(result, Expectations()))
