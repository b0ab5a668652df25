"""A calibration finds the faults that were built in: a bias, a spread, intervals that miss."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.calibration import (
    VALID_NS,
    CalibratedMachine,
    Shot,
    Value,
    accuracy,
    calibrate,
    from_inside,
    known_pause,
    share_at_least,
    stale_why,
)
from lab.core.clock import Interval
from lab.core.method import FreezeMethod, Regime
from tests.unit.simulation import MS, US, Network, Repair, S, Scenario, simulate
from tests.unit.strategies import cases, scenarios

HERE = CalibratedMachine("m", "a CPU", "6.1", "7.2", "tcg")


def around(value: int, half: int) -> Value:
    return Value(value, Interval(value - half, value + half))


# -- the guest's side against the simulation's truth ------------------------------------------------


@given(scenarios)
@cases(300)
def test_both_intervals_contain_the_truth(scenario: Scenario) -> None:
    """Whatever the network, the scheduler and the regime did: an interval that is wrong here would be called
    the lab's coverage there."""
    obs, truth = simulate(replace(scenario, repair=Repair.NONE))
    known = known_pause(obs)
    inside = from_inside(obs)
    if scenario.regime is Regime.RUNNING:
        assert known is None
    else:
        assert known is not None
        assert truth.held in known.interval or truth.still in known.interval
    if inside is not None:
        value, _hole = inside
        assert value.interval.low_ns <= value.value_ns <= value.interval.high_ns
        # At rest from the last instruction to the next; a guest that is late to go on is not paused any more.
        assert value.interval.low_ns <= max(truth.rest, truth.still)
        assert value.interval.high_ns >= truth.still
        # A mixture of which four fifths stood still counts as resumed, by the lab's rule; none is injected.
        if scenario.regime is Regime.JUMPED:
            assert value.interval.high_ns >= truth.held


@given(st.integers(0, 1 << 32), st.sampled_from([Regime.JUMPED, Regime.RESUMED]))
@cases(40)
def test_a_quiet_guest_tells_a_pause_to_some_milliseconds(seed: int, regime: Regime) -> None:
    quiet = Scenario(
        seed,
        regime,
        pause_ns=500 * MS,
        watch_ns=2 * S,
        late_ns=MS,
        repair=Repair.NONE,
        network=Network.STEADY,
    )
    obs, _ = simulate(quiet)
    inside, known = from_inside(obs), known_pause(obs)
    assert inside is not None
    assert known is not None
    assert abs(inside[0].value_ns - known.value_ns) <= 5 * MS


def test_the_calls_length_is_not_looked_at() -> None:
    """The same observation with calls that claim another pause gives the same answer."""
    obs, _ = simulate(Scenario(3, Regime.JUMPED, pause_ns=S, watch_ns=S, repair=Repair.NONE))
    assert obs.stop is not None
    assert obs.resume is not None
    late = replace(obs.stop, called=obs.stop.called, returned=obs.resume.called)
    assert known_pause(replace(obs, stop=late)) != known_pause(obs)
    assert from_inside(replace(obs, stop=late)) == from_inside(obs)


def test_a_whole_calibration_from_simulated_cycles() -> None:
    seen = []
    for number, (regime, length) in enumerate(
        [
            (Regime.RUNNING, S),
            (Regime.JUMPED, 500 * MS),
            (Regime.JUMPED, 500 * MS),
            (Regime.RESUMED, 100 * MS),
        ]
    ):
        obs, _ = simulate(Scenario(number, regime, pause_ns=length, watch_ns=2 * S, repair=Repair.NONE))
        seen.append((length, replace(obs, cycle=number)))
    figures = calibrate(seen)
    assert figures is not None
    assert figures.all.count == figures.all.met == 3
    assert figures.all.lost == 0
    assert figures.noise is not None
    assert figures.noise.cycles == 1
    assert figures.noise.pause_ns < 40 * MS
    assert figures.offset_bound_ns is not None
    assert 0 < figures.offset_bound_ns < 5 * MS
    assert [(method, asked, part.count) for method, asked, part in figures.parts] == [
        (FreezeMethod.SIGSTOP, 500 * MS, 2),
        (FreezeMethod.SUSPEND, 100 * MS, 1),
    ]
    # A guest whose channel was lost cannot be measured, and says so instead of being left out.
    lost = replace(seen[1][1], sampler=None)
    again = calibrate([*seen, (500 * MS, lost)])
    assert again is not None
    assert (again.all.count, again.all.lost) == (3, 1)
    assert calibrate([(500 * MS, lost)]) is None


# -- accuracy --------------------------------------------------------------------------------------

errors = st.lists(st.integers(-20 * MS, 20 * MS), min_size=1, max_size=60)


@given(errors, st.integers(-5 * S, 5 * S), st.integers(0, 5 * MS), st.integers(0, 2 * MS))
@settings(max_examples=200, deadline=None)
def test_a_bias_that_was_built_in_is_found(noise: list[int], bias: int, half: int, unsure: int) -> None:
    """Errors shift with a bias, and the spread does not."""

    def shots(by: int) -> list[Shot]:
        return [
            Shot(FreezeMethod.SIGSTOP, S, around(10 * S + n, unsure), around(10 * S + n + error + by, half))
            for n, error in enumerate(noise)
        ]

    plain, moved = accuracy(shots(0)), accuracy(shots(bias))
    assert plain is not None
    assert moved is not None
    assert moved.bias_ns == plain.bias_ns + bias
    assert moved.spread_ns == plain.spread_ns
    assert plain.bias_ns in noise
    assert min(noise) <= plain.low_ns <= plain.bias_ns <= plain.high_ns <= max(noise)
    if len(noise) < 40:
        assert (plain.low_ns, plain.high_ns) == (min(noise), max(noise))
    # Coverage counts what it says, nothing else.
    assert plain.met == sum(abs(error) <= half + unsure for error in noise)
    assert plain.contained == sum(abs(error) <= half - unsure for error in noise)
    assert plain.contained <= plain.met <= plain.count
    assert plain.coverage_low <= plain.coverage


def test_intervals_that_are_too_narrow_show() -> None:
    shots = [
        Shot(FreezeMethod.SIGSTOP, S, around(S, 100 * US), around(S + n * MS, 2 * MS)) for n in range(-5, 6)
    ]
    seen = accuracy(shots)
    assert seen is not None
    assert (seen.met, seen.contained, seen.count) == (5, 3, 11)
    assert seen.coverage == pytest.approx(5 / 11)
    assert seen.coverage_low < 0.3


@given(st.integers(1, 60), st.data())
def test_a_share_is_not_overstated(of: int, data: st.DataObject) -> None:
    """Below the limit, so many hits happen in less than one case of twenty: the exact binomial says so."""
    hits = data.draw(st.integers(1, of))
    low = share_at_least(hits, of)
    assert 0 < low < hits / of + 1e-9
    below = low * 0.999
    tail = sum(comb(of, k) * below**k * (1 - below) ** (of - k) for k in range(hits, of + 1))
    assert tail <= 0.05
    above = low + (1 - low) * 0.001
    assert sum(comb(of, k) * above**k * (1 - above) ** (of - k) for k in range(hits, of + 1)) > 0.05


def test_shares_at_the_edges() -> None:
    assert share_at_least(0, 10) == share_at_least(0, 0) == 0
    assert share_at_least(59, 59) == pytest.approx(0.05 ** (1 / 59))


# -- staleness -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "at", "said"),
    [
        (HERE, 0, ""),
        (HERE, VALID_NS, ""),
        (HERE, VALID_NS + 24 * 3600 * S, "31 days old"),
        (HERE, -1, "future"),
        (replace(HERE, id="other", kernel="6.12"), 0, "another machine"),
        (replace(HERE, kernel="6.12"), 0, "another kernel since: 6.12, then 6.1"),
        (replace(HERE, cpu=""), 0, "another CPU since: unknown"),
        (replace(HERE, qemu="10.0"), 0, "another QEMU"),
        (replace(HERE, accelerator="kvm"), 0, "another accelerator"),
    ],
)
def test_when_a_calibration_is_stale(now: CalibratedMachine, at: int, said: str) -> None:
    why = stale_why(5 * S, HERE, 5 * S + at, now)
    assert said in why
    assert bool(why) == bool(said)
