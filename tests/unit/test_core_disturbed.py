"""The judge of cycles that did not go their way, against synthetic guests with a known truth: a host that is
busy for seconds, repairs into the wrong place, a guest that somebody else or the dead-man resumes, that
reboots by itself, a run that is cut off. The truth lies in every interval and no verdict is wrong; how many
may be left undecided is asserted as well, so that nothing hides there.

FREEZELAB_HYPOTHESIS as in strategies.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.core.clock import Stamp
from lab.core.findings import CERTAIN, findings
from lab.core.judge import CycleResult, measure
from lab.core.plan import Expectations, Regime, ResyncMechanism
from lab.core.predictions import compared
from lab.core.rescue import BY_DEADMAN, BY_OTHERS
from lab.core.resync import Correction
from lab.core.timeline import Call, Observation, Rescue
from lab.core.verdict import Outcome
from lab.core.witnesses import before_and_after
from lab.record.cycle import cycle_of
from tests.unit.reboots import rebooting
from tests.unit.simulation import MS, Repair, S, Scenario, Truth, simulate
from tests.unit.strategies import busy, cases, expectations, scenarios, short_holds
from tests.unit.truth_checks import (
    check_clock,
    check_drift,
    check_findings,
    check_held,
    check_offsets,
    check_pause,
    check_true_sync,
)

HOUR = 3600 * S
MECHANISM = ResyncMechanism.AGENT


@given(busy, short_holds)
@cases(300)
def test_a_busy_host_wrong_repairs_and_readings_with_holes(s: Scenario, expect: Expectations) -> None:
    obs, truth = simulate(s)
    result = measure(obs, MECHANISM, expect)
    check_pause(truth, obs, result)
    check_clock(truth, obs, result, expect)
    check_drift(truth, obs, result)
    check_findings(truth, obs, result, expect)
    check_true_sync(truth, obs, result, expect)


@pytest.mark.parametrize("hold_ms", [1, 50, 500, 2000])
@pytest.mark.parametrize("hole_ms", [0, 900, 3000])
def test_a_clock_that_nobody_repairs_is_not_in_time(hold_ms: int, hole_ms: int) -> None:
    """V2: whatever the hold time, and however seldom it is read: no step was seen in the guest."""
    for seed in range(4):
        s = Scenario(seed=seed, pause_ns=3 * S, hole_ns=hole_ms * MS, busy_ns=300 * MS if seed % 2 else 0)
        obs, _ = simulate(replace(s, repair=Repair.NONE, watch_ns=6 * S))
        expect = Expectations(in_time_within_ns=2 * S, hold_ns=hold_ms * MS)
        result = measure(obs, ResyncMechanism.NONE, expect)
        found = {finding.metric: finding.outcome for finding in findings(result, expect)}
        assert found["in time"] is Outcome.FAILED


# -- somebody else resumes it --------------------------------------------------------------------------

LEAST = 150 * MS
"""Shorter than this a guest that was let run by somebody else is not told from one that was a little late."""

others = st.builds(
    lambda s, regime, pause, early, again: replace(
        s,
        regime=regime,
        pause_ns=pause,
        early_ns=early * (pause - LEAST) // 100 + 1,
        again_ns=0 if not again else LEAST + again * (pause - LEAST) * (100 - early) // 10_000,
    ),
    scenarios,
    st.sampled_from([Regime.RESUMED, Regime.JUMPED, Regime.MIXED]),
    st.integers(400 * MS, 6 * S),
    st.integers(5, 95),
    st.sampled_from([0, 0, 1, 50, 95]),
)


def check_others(truth: Truth, obs: Observation, result: CycleResult, expect: Expectations) -> None:
    """Nothing that rests on the guest having stood still between the calls excludes the truth."""
    s, pause = truth.scenario, result.pause
    assert pause is not None
    check_held(truth, obs, result)
    assert pause.regime is None or s.regime is not Regime.JUMPED
    check_offsets(truth, obs, result)
    failed = [f for f in findings(result, expect) if f.outcome is Outcome.FAILED]
    if pause.ran:
        assert result.resumed_by == BY_OTHERS
        assert {f.metric for f in failed} <= CERTAIN
    for finding in findings(result, expect):
        if finding.metric == "budget" and finding.outcome is not Outcome.INCONCLUSIVE:
            assert (truth.held <= obs.budget_ns) is (finding.outcome is Outcome.PASSED)
    assert any(f.outcome is not Outcome.PASSED for f in findings(result, expect))


@given(others, expectations, st.integers(100 * MS, 8 * S))
@cases(300)
def test_a_guest_that_somebody_else_resumes(s: Scenario, expect: Expectations, budget: int) -> None:
    obs, truth = simulate(s)
    obs = replace(obs, budget_ns=budget)
    result = measure(obs, MECHANISM, expect)
    assert obs.stop is not None
    check_others(truth, obs, result, expect)


@pytest.mark.parametrize(("hold_s", "after_s"), [(4, 1), (8, 3)])
@pytest.mark.parametrize("regime", [Regime.JUMPED, Regime.RESUMED])
def test_a_guest_continued_early_is_inconclusive_and_its_pause_true(
    hold_s: int, after_s: int, regime: Regime
) -> None:
    """V8 and V11: stopped for 8 s and continued after 3 by somebody else; for 4 and after 1."""
    s = Scenario(seed=hold_s, regime=regime, pause_ns=hold_s * S, early_ns=after_s * S, call_ns=2 * MS)
    obs, truth = simulate(replace(s, repair=Repair.NONE, watch_ns=2 * S, rtt_ns=2 * MS))
    result = measure(obs, ResyncMechanism.NONE, Expectations(pause_at_least_ns=hold_s * S))
    assert result.pause is not None
    assert result.pause.ran
    assert truth.held in result.pause.pause
    assert result.pause.pause.high_ns < after_s * S + 30 * MS
    given = findings(result, Expectations(pause_at_least_ns=hold_s * S))
    assert [f.metric for f in given if f.outcome is Outcome.FAILED] == []
    assert any("somebody else resumed the guest" in f.why for f in given)


def test_heartbeats_from_between_the_calls_leave_no_lower_bound() -> None:
    """No reading before the stop; somebody else resumed the guest and stopped it again, and QEMU's RESUME is
    in the lab's own call."""
    s = Scenario(seed=3, pause_ns=S, early_ns=600 * MS, again_ns=200 * MS, before_ns=300 * MS, watch_ns=S)
    obs, truth = simulate(s)
    assert obs.stop is not None
    late = tuple(r for r in obs.readings if r.t1.raw_ns > obs.stop.returned.raw_ns)
    result = measure(replace(obs, readings=late), MECHANISM, Expectations())
    assert result.pause is not None
    assert result.pause.stamps is not None
    assert truth.still in result.pause.pause
    assert result.pause.pause.low_ns == 0


# -- the dead-man --------------------------------------------------------------------------------------


@given(others.filter(lambda s: not s.again_ns), expectations, st.integers(100 * MS, 8 * S), st.booleans())
@cases(200)
def test_a_guest_that_the_deadman_resumes(
    s: Scenario, expect: Expectations, budget: int, killed: bool
) -> None:
    """At a host stamp that is known. killed: the controller does not come back, and told nothing."""
    obs, truth = simulate(s)
    stop = obs.stop
    assert stop is not None
    went_on = truth.pauses[0][1]
    stamps = [Stamp(at, truth.host_real(at)) for at in (went_on - MS, went_on + MS)]
    acted = Rescue("resumed", "the controller was silent for 3.0 s", Call(stamps[0], stamps[1]))
    obs = replace(obs, budget_ns=budget, rescues=(acted,))
    if killed:
        early = tuple(r for r in obs.readings if r.t4.raw_ns <= stop.called.raw_ns)
        since = early[-1].t4 if early else stop.called
        obs = replace(
            obs, readings=early, sampler=None, beats=(), facts_after=None, resume=None, unfinished=True,
            stop=Call(since, stop.returned), stop_inferred=True, patch_ok=None,
        )  # fmt: skip
    result = measure(obs, MECHANISM, expect)
    pause = result.pause
    assert pause is not None
    assert result.resumed_by == BY_DEADMAN
    check_held(truth, obs, result)
    given = findings(result, expect)
    assert {f.metric for f in given if f.outcome is Outcome.FAILED} <= CERTAIN
    assert any(f.why.startswith("resumed by the dead-man: the controller was silent") for f in given)
    for finding in given:
        if finding.metric == "budget" and finding.outcome is not Outcome.INCONCLUSIVE:
            assert (truth.held <= budget) is (finding.outcome is Outcome.PASSED)


# -- another boot --------------------------------------------------------------------------------------


@given(
    scenarios,
    expectations,
    st.one_of(st.integers(0, 50 * MS), st.integers(50 * MS, 2 * S)),
    st.integers(1 * S, 20 * S),
    st.integers(2 * S, 100 * S),
    st.booleans(),
)
@cases(200)
def test_nothing_of_another_boot_is_believed(
    s: Scenario, expect: Expectations, after: int, boot: int, uptime: int, told: bool
) -> None:
    """told: the new boot's id was read."""
    s = replace(s, straddle=False, repair=Repair.NONE if s.seed % 2 else s.repair)
    obs, truth = rebooting(s, after, boot, uptime)
    if not told:
        obs = replace(obs, facts_after=None)
    assert obs.stop is not None
    assert obs.resume is not None
    at = truth.pauses[-1][1] + after if truth.pauses else truth.resumed + after
    old = [r for r in obs.readings if r.t4.raw_ns < at]
    assume(old)
    result = measure(obs, MECHANISM, expect)
    kept = result.observation.readings
    if told:
        assert result.another_boot
    else:
        assume(result.another_boot)  # a clock that seems to go on tells nothing
    assert result.boot_id_unchanged is False
    assert list(kept) == old
    assert result.pause is not None
    if s.regime is not Regime.RUNNING:
        assert truth.held in result.pause.pause or truth.still in result.pause.pause
    late = before_and_after(old, obs.stop, obs.resume)[1]
    assert result.resync is not None
    assert len(result.resync.curve) == len(late)
    for reading, point in zip(late, result.resync.curve, strict=True):
        assert truth.offset(truth.looks[reading.t1.raw_ns]) in point.offset
    assert result.resync.step_ns is None
    given = {f.metric: f.outcome for f in findings(result, expect)}
    assert given["boot id"] is Outcome.FAILED
    if late:
        shown = next(f for f in findings(result, expect) if f.metric == "boot id")
        assert "ran after the resume and then rebooted by itself" in shown.why


# -- cut off -------------------------------------------------------------------------------------------

STAGES = ("readings", "stop", "resume", "some readings", "all readings", "sampler", "beats", "facts")


@given(st.one_of(scenarios, others), expectations, st.sampled_from(STAGES))
@cases(300)
def test_a_run_that_is_cut_off_is_not_failed_by_what_was_not_done(
    s: Scenario, expect: Expectations, stage: str
) -> None:
    obs, truth = simulate(s)
    assert obs.stop is not None
    assert obs.resume is not None
    done = STAGES.index(stage)
    early, late = before_and_after(obs.readings, obs.stop, obs.resume)
    if done < STAGES.index("some readings"):
        late = []
    elif done == STAGES.index("some readings"):
        late = late[: len(late) // 2]
    obs = replace(
        obs,
        readings=(*early, *late),
        stop=obs.stop if done >= STAGES.index("stop") else None,
        resume=obs.resume if done >= STAGES.index("resume") else None,
        sampler=obs.sampler if done >= STAGES.index("sampler") else None,
        beats=obs.beats if done >= STAGES.index("beats") else (),
        facts_after=obs.facts_after if done >= STAGES.index("facts") else None,
        unfinished=True,
        problems=("the cycle was cut off",),
        budget_ns=60 * S,
    )
    result = measure(obs, MECHANISM, expect)
    given = findings(result, expect)
    assert [f for f in given if f.outcome is Outcome.FAILED] == []
    assert any(f.outcome is Outcome.INCONCLUSIVE for f in given)
    if result.pause is not None and obs.frozen:
        held = {truth.still} if result.pause.regime is Regime.RESUMED else {truth.held, truth.still}
        assert s.early_ns or any(value in result.pause.pause for value in held)
    unseen = s.again_ns and s.events and not late  # core.pause says so
    if result.pause is not None and obs.frozen and s.early_ns and not unseen:
        check_held(truth, obs, result)
    for value, at in ((result.before, early), (result.final, late)):
        if value is not None:
            assert truth.offset(truth.looks[at[-1].t1.raw_ns]) in value


CALM = {
    "holes": (Scenario(hole_ns=300 * MS), 0.05),
    "long holes": (Scenario(hole_ns=900 * MS), 0.1),
    "busy": (Scenario(hole_ns=300 * MS, busy_ns=300 * MS), 0.2),
}
"""What may go on, and the share of its findings that may be undecided."""


@pytest.mark.parametrize("regime", [Regime.RESUMED, Regime.JUMPED])
@pytest.mark.parametrize("name", CALM)
def test_how_many_are_left_undecided(name: str, regime: Regime) -> None:
    """Nothing hides in "undecided": on a host that is busy now and then most is decided, nothing fails."""
    undecided, of = Counter[str](), 0
    s, share = CALM[name]
    for seed in range(12):
        s = replace(
            s, seed=seed, regime=regime, pause_ns=3 * S, before_ns=3 * S, watch_ns=6 * S, rtt_ns=2 * MS,
            call_ns=MS, late_ns=10 * MS, repair=Repair.AGENT if regime is Regime.RESUMED else Repair.NONE,
        )  # fmt: skip
        obs, _ = simulate(s)
        expect = Expectations(
            regime=regime, in_time_within_ns=3 * S, final_offset_ns=20 * MS, hold_ns=100 * MS,
            pause_at_least_ns=2900 * MS, pause_at_most_ns=3100 * MS,
        )  # fmt: skip
        given = findings(measure(obs, MECHANISM, expect), expect)
        undecided.update(f.metric for f in given if f.outcome is Outcome.INCONCLUSIVE)
        of += len(given)
        assert all(f.outcome is not Outcome.FAILED for f in given)
    assert undecided.total() <= share * of, undecided


# -- a clock that somebody made fast -------------------------------------------------------------------


@pytest.mark.parametrize("ppb", [10_000_000, -10_000_000, 3_000_000])
def test_a_fast_clock_that_goes_on_is_not_repaired(ppb: int) -> None:
    """V14: a tick of 10 100 us (one percent fast), two seconds behind: it comes nearer, and nobody repairs
    it."""
    s = Scenario(seed=2, pause_ns=1870 * MS, real_ppb=ppb, before_ns=3 * S, watch_ns=8 * S, rtt_ns=2 * MS)
    obs, _ = simulate(replace(s, repair=Repair.NONE))
    result = measure(obs, ResyncMechanism.NONE, Expectations(as_predicted=True))
    assert result.resync is not None
    assert result.resync.correction is Correction.NONE
    agrees, words = compared(result)
    assert agrees is True, words
    given = {f.metric: f for f in findings(result, Expectations(as_predicted=True))}
    assert given["resync"].outcome is Outcome.PASSED


def test_a_fast_clock_that_is_set_is_repaired_all_the_same() -> None:
    s = Scenario(seed=2, pause_ns=1870 * MS, real_ppb=10_000_000, before_ns=3 * S, rtt_ns=2 * MS)
    obs, _ = simulate(replace(s, repair=Repair.AGENT))
    result = measure(obs, ResyncMechanism.NONE, Expectations(as_predicted=True))
    assert result.resync is not None
    assert result.resync.correction is Correction.STEP
    assert compared(result) == (False, "repaired, although not predicted")


def test_a_guest_resumed_before_its_time_is_not_failed_by_that() -> None:
    """Its dead-man was lost: the pause is shorter than was to be, and the patch was ended."""
    obs, _ = simulate(Scenario(seed=1, pause_ns=S, rtt_ns=2 * MS, watch_ns=2 * S))
    expect = Expectations(pause_at_least_ns=3 * S)
    short = replace(obs, patch_ok=False, patch_why="ended")
    given = findings(measure(short, MECHANISM, expect), expect)
    assert {f.metric for f in given if f.outcome is Outcome.FAILED} == {"pause", "patch"}
    early = replace(short, problems=("resumed at once: the dead-man has ended",))
    given = findings(measure(early, MECHANISM, expect), expect)
    assert [f for f in given if f.outcome is Outcome.FAILED] == []
    assert any(f.why.startswith("resumed at once: the dead-man has ended; pause") for f in given)
    over = findings(measure(replace(early, budget_ns=S // 2), MECHANISM, expect), expect)
    assert [f.metric for f in over if f.outcome is Outcome.FAILED] == ["budget"]


@pytest.mark.parametrize(("stepped_ns", "rtc_ns", "moved"), [(-2 * HOUR, 0, False), (0, 2 * HOUR, True)])
def test_a_clock_that_is_put_right_before_the_freeze_does_not_move_the_rtc(
    stepped_ns: int, rtc_ns: int, moved: bool
) -> None:
    """F1: a clock that is two hours off from before the freeze until its mechanism puts it right. Its RTC was
    right all along; it was told as "moved ahead by 2 h"."""
    s = Scenario(seed=4, before_ns=3 * S, watch_ns=4 * S, rtt_ns=2 * MS, step_before_ns=stepped_ns)
    obs, _ = simulate(replace(s, repair=Repair.AGENT))
    assert obs.facts_before is not None and obs.facts_after is not None
    early = replace(obs.facts_before, rtc_minus_real_ns=-S // 2)
    late = replace(obs.facts_after, rtc_minus_real_ns=-S // 2 + rtc_ns)
    result = measure(replace(obs, facts_before=early, facts_after=late), MECHANISM, Expectations())
    found = cycle_of(result, [], Expectations()).rtc_moved
    assert (found is not None) is moved
    if found is not None:
        assert found.low_ns <= rtc_ns <= found.high_ns
