"""The judge of cycles with trouble at their edges, against synthetic guests with a known truth: a host that
is busy for seconds around the stop and the resume, and somebody else who stops the guest before the lab does
or after it was resumed.

FREEZELAB_HYPOTHESIS as in strategies.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.findings import findings
from lab.core.judge import CycleResult, measure
from lab.core.offsets import ALONE_NS
from lab.core.plan import Expectations, Regime, ResyncMechanism
from lab.core.timeline import Observation
from lab.core.verdict import Outcome
from tests.unit.simulation import MS, Repair, S, Scenario, Truth, simulate
from tests.unit.strategies import busy, cases, scenarios, short_holds
from tests.unit.truth_checks import check_clock, check_drift, check_findings, check_held

stretches = st.one_of(st.integers(1 * MS, 60 * MS), st.integers(60 * MS, 6 * S))
edges = st.builds(
    lambda s, before, after: replace(s, edge_ns=(before, after)),
    st.one_of(scenarios, busy),
    st.one_of(st.just(0), stretches),
    st.one_of(st.just(0), stretches),
)

# Shorter ones are not told from a guest that is a little late, nor from the time that a call takes. In regime
# MIXED what stood still aside is not told from what stood still in the pause. Nor is it in JUMPED, when it is
# as long: on a busy host the pause's hole may be the scheduler's, and then the data are those of RESUMED.
asides = (
    st.builds(
        lambda s, pause, length, at, stands: replace(
            s, pause_ns=pause, aside_ns=length, aside_at_ns=at, aside_stands=stands
        ),
        st.one_of(scenarios, busy),
        st.integers(300 * MS, 10 * S),
        st.integers(150 * MS, 6 * S),
        st.one_of(st.integers(-50 * MS, 50 * MS), st.integers(-3 * S, -1), st.integers(0, 3 * S)),
        st.booleans(),
    )
    .filter(lambda s: s.regime is not Regime.MIXED)
    .filter(
        lambda s: s.regime is Regime.RESUMED or not s.aside_stands or abs(s.aside_ns - s.pause_ns) > 100 * MS
    )
)


def check_all(s: Scenario, expect: Expectations) -> tuple[Observation, Truth, CycleResult]:
    obs, truth = simulate(s)
    result = measure(obs, ResyncMechanism.AGENT, expect)
    if obs.frozen:
        check_held(truth, obs, result)
    check_clock(truth, obs, result, expect)
    check_findings(truth, obs, result, expect)
    return obs, truth, result


@given(edges, short_holds)
@cases(150)
def test_a_host_that_is_busy_around_the_stop_and_the_resume(s: Scenario, expect: Expectations) -> None:
    obs, truth, result = check_all(s, expect)
    check_drift(truth, obs, result)


@given(asides, short_holds)
@cases(150)
def test_a_guest_that_somebody_else_stops_before_or_after(s: Scenario, expect: Expectations) -> None:
    check_all(s, expect)


@pytest.mark.parametrize("regime", [Regime.RESUMED, Regime.JUMPED])
def test_the_offset_at_the_resume_is_not_that_of_a_later_stop(regime: Regime) -> None:
    """Half a millisecond after the resume somebody else stops the guest for 1.8 s, its clocks too."""
    s = Scenario(seed=5, regime=regime, pause_ns=2 * S, aside_ns=1800 * MS, aside_at_ns=MS // 2)
    obs, truth = simulate(replace(s, aside_stands=True, repair=Repair.NONE, watch_ns=3 * S))
    result = measure(obs, ResyncMechanism.NONE, Expectations())
    assert result.at_resume is not None
    assert truth.offset(truth.clocks_started) in result.at_resume
    assert any(f.outcome is not Outcome.PASSED for f in findings(result, Expectations()))


def test_a_stop_under_the_last_reading_is_not_a_final_offset_in_time() -> None:
    """The reading before it, some milliseconds old, says that the clock is right."""
    expect, found = Expectations(final_offset_ns=20 * MS), 0
    for seed in range(40):
        s = Scenario(seed=seed, regime=Regime.JUMPED, before_ns=S, pause_ns=S, watch_ns=2 * S)
        s = replace(s, repair=Repair.NONE, aside_ns=4 * S, aside_at_ns=1970 * MS, aside_stands=True)
        obs, truth = simulate(s)
        last = obs.readings[-1]
        if last.round_trip_ns < ALONE_NS:
            continue
        found += 1
        result = measure(obs, ResyncMechanism.NONE, expect)
        assert result.final is not None
        assert truth.offset(truth.looks[last.t1.raw_ns]) in result.final
        outcome = {f.metric: f.outcome for f in findings(result, expect)}["final offset"]
        assert outcome is Outcome.INCONCLUSIVE
    assert found > 3
