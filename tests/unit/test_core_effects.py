"""Effects of a pause besides the clock, from the observation to the finding."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.core.clock import Interval
from lab.core.effects import Backward, Effects, RtcLook, Timers, backward, rtc_around, rtc_moved, rtc_set
from lab.core.findings import findings
from lab.core.judge import CycleResult, measure
from lab.core.plan import CycleSpec, Expectations, FreezeMethod, HoldPatch, ResyncMechanism
from lab.core.verdict import Finding, Outcome
from tests.unit.simulation import MS, Network, Repair, S, Scenario, simulate

SCENARIO = Scenario(seed=3, pause_ns=5 * S, watch_ns=6 * S, repair=Repair.NONE, network=Network.FAST)
SPEC = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(5 * S), effects=True)
SOUND = Effects(
    (Timers("timerfd monotonic", 8, 100, ((MS, 98), (2 * MS, 2)), 1_500_000, 3),),
    (Backward("monotonic", 0, 0, 400, 0), Backward("monotonic raw", 0, 1, 100, 0)),
    (),
    120,
)


def judged(effects: Effects | None, scenario: Scenario = SCENARIO) -> tuple[CycleResult, dict[str, Finding]]:
    obs, _ = simulate(scenario)
    result = measure(replace(obs, effects=effects), ResyncMechanism.NONE, Expectations(), None, SPEC)
    return result, {f.metric: f for f in findings(result, Expectations())}


def test_harmless_effects_pass() -> None:
    _, found = judged(SOUND)
    assert found["monotonic"].outcome is Outcome.PASSED
    assert found["monotonic"].measured == "500 checks"
    assert found["timers"].outcome is Outcome.PASSED
    assert "at most 1.5 ms late" in found["timers"].measured
    assert found["boottime"].measured == "+0.000 ms compared with MONOTONIC"
    assert "rtc" not in found


def test_a_monotonic_clock_that_went_backward_fails_with_its_evidence() -> None:
    bad = replace(SOUND, backward=(*SOUND.backward, Backward("monotonic", 1, 0, 50, 2, 300_000)))
    finding = judged(bad)[1]["monotonic"]
    assert finding.outcome is Outcome.FAILED
    assert finding.measured == "2 of 550 checks"
    assert finding.why == "CLOCK_MONOTONIC went back by 0.3 ms from vCPU 1 to 0"


def test_realtime_may_go_back() -> None:
    stepped = (*SOUND.backward, Backward("realtime", 0, 0, 50, 1, 300_000))
    assert backward(stepped) == []
    assert judged(replace(SOUND, backward=stepped))[1]["monotonic"].outcome is Outcome.PASSED


def test_effects_that_were_not_observed_are_inconclusive() -> None:
    assert judged(replace(SOUND, backward=()))[1]["monotonic"].outcome is Outcome.INCONCLUSIVE
    assert judged(None)[1]["monotonic"].outcome is Outcome.INCONCLUSIVE


def test_timers_that_fire_early_are_told_and_do_not_fail() -> None:
    early = replace(SOUND, timers=(replace(SOUND.timers[0], early=2),))
    finding = judged(early)[1]["timers"]
    assert finding.outcome is Outcome.PASSED
    assert finding.why == "2 timers fired before they were due"


@pytest.mark.parametrize(
    ("stands", "words"), [(False, "ran on during the pause"), (True, "stood still during the pause")]
)
def test_an_rtc_is_told_from_one_that_stands_still(stands: bool, words: str) -> None:
    """The guest is 5 s behind afterwards. An RTC that went on is then ahead of its REALTIME by as much."""
    result, _ = judged(SOUND)
    resumed = result.resumed_guest
    assert resumed is not None
    phase, bound = -300 * MS, 3 * MS
    ahead = phase if stands else phase + 5 * S
    looks = (
        RtcLook(resumed.low_ns - 900 * MS, phase, bound),
        RtcLook(resumed.high_ns + 100 * MS, ahead, bound),
    )
    assert words in judged(replace(SOUND, rtc=looks))[1]["rtc"].measured


def test_rtc_readings_are_split_at_the_resume() -> None:
    looks = tuple(RtcLook(raw, 0, MS) for raw in (100 * MS, 199 * MS, 202 * MS, 300 * MS))
    resume = Interval(199_500_000, 200_500_000)
    assert rtc_around(looks, resume) == (looks[1], looks[3])  # the third may have begun before
    assert rtc_around(looks, None) == (None, None)
    assert rtc_around((), resume) == (None, None)


def test_bounds_add_up() -> None:
    one, two = RtcLook(0, -300 * MS, 2 * MS), RtcLook(S, 4700 * MS, 3 * MS)
    moved = rtc_moved(one, two, Interval(-MS, MS), Interval(-5 * S - MS, -5 * S + MS))
    assert moved == Interval(-7 * MS, 7 * MS)


# -- an RTC that somebody set ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before_s", "after_s", "real_before_s", "real_after_s", "stood_s", "moved_s"),
    [
        (-0.4, -0.6, 0, 0, None, None),
        (-0.4, 4.6, 0, -5, None, None),  # the clock fell behind by the pause, the RTC did not
        (-0.4, 4499.6, 0, 0, None, 4500),
        (7199.6, -0.4, 0, 0, None, -7200),  # an RTC in local time, put right by the agent's hwclock -w
        (-0.4, -0.4, 7200, 7200, None, None),
        (-0.4, -0.4, 7200, 0, None, -7200),
        (-0.4, -0.4, 0, -5, 5, None),  # it stood still with the guest
        (-0.4, -0.4, 0, -5, None, -5),
    ],
)
def test_an_rtc_that_a_repair_moved_by_hours_is_told(
    before_s: float, after_s: float, real_before_s: float, real_after_s: float, stood_s: float | None,
    moved_s: float | None,
) -> None:  # fmt: skip
    def at(seconds: float) -> Interval:
        return Interval(int(seconds * S), int(seconds * S)).widened(MS)

    found = rtc_set(
        int(before_s * S), int(after_s * S), at(real_before_s), at(real_after_s),
        None if stood_s is None else at(stood_s),
    )  # fmt: skip
    assert (found is None) is (moved_s is None)
    if found is not None and moved_s is not None:
        assert int(moved_s * S) in found
