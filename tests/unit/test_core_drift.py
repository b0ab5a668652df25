"""Drift over segments, wander and mean rates, against clocks whose truth is known."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.drift import average_drift, drift, drift_over, segments, wander_ns
from lab.core.offsets import Rate, Sample
from tests.unit.simulation import MS, US, S
from tests.unit.strategies import cases


def look(
    seed: int, ppb: int, steps: list[tuple[int, int]], bend_ns: int = 0, count: int = 60, every: int = S
) -> list[Sample]:
    """Samples of a clock at `ppb`, with steps (from sample, ns) and a bend in the middle: there the offset is
    bend_ns away from the straight line between the ends. Each interval contains the truth, anywhere."""
    r = random.Random(seed)
    found = []
    for n in range(count):
        at = n * every + r.randint(0, 10 * MS)
        late = r.randint(0, 3 * MS)
        when = at + r.randint(0, late)
        middle = count * every / 2
        true = when * ppb // S + sum(by for since, by in steps if n >= since)
        true += round(bend_ns * (1 - abs(when - middle) / middle))
        found.append(
            Sample(at, at + late, Interval(true - r.randint(0, 2 * MS), true + r.randint(0, 2 * MS)))
        )
    return found


rates = st.integers(-500_000, 500_000)


@given(st.integers(0, 1 << 32), rates, st.integers(2, 300))
@cases(60)
def test_the_drift_lies_in_its_interval(seed: int, ppb: int, count: int) -> None:
    seen = look(seed, ppb, [], count=count)
    straight, mean = drift(seen), average_drift(seen)
    assert straight is not None
    assert mean is not None
    for each in (straight, mean):
        assert each.low - 1e-6 <= ppb / 1e3 <= each.high + 1e-6
    assert straight.bound_ppm <= mean.bound_ppm + 1e-9 or count > 80
    assert wander_ns([seen]) == 0


@given(
    st.integers(0, 1 << 32),
    rates,
    st.lists(st.tuples(st.integers(3, 57), st.sampled_from([-2 * S, -40 * MS, 90 * MS, S])), max_size=4),
)
@cases(60)
def test_steps_cost_a_drift_nothing_but_width(seed: int, ppb: int, steps: list[tuple[int, int]]) -> None:
    seen = look(seed, ppb, steps)
    parts = segments(seen, Rate.within(515))
    moved = {since for since, _ in steps if sum(by for at, by in steps if at == since)}
    assert len(parts) == len(moved) + 1
    assert [s for part in parts for s in part] == seen
    together = drift_over(parts)
    assert together is not None
    assert together.low - 1e-6 <= ppb / 1e3 <= together.high + 1e-6
    assert wander_ns(parts) == 0
    assert together.window_ns == max(part[-1].to_raw_ns - part[0].from_raw_ns for part in parts)
    if moved:
        assert drift(seen) is None
        whole = drift(look(seed, ppb, []))
        assert whole is not None
        assert whole.bound_ppm <= together.bound_ppm


@given(st.integers(0, 1 << 32), rates, st.sampled_from([-80 * MS, 20 * MS, 300 * MS]))
@cases(30)
def test_a_clock_that_changes_its_rate_wanders(seed: int, ppb: int, bend: int) -> None:
    """A bend by b leaves the nearest straight line by b / 2, less what the intervals hide."""
    seen = look(seed, ppb, [], bend)
    assert drift(seen) is None
    wander = wander_ns([seen])
    assert abs(bend) // 2 - 5 * MS <= wander <= abs(bend) // 2
    mean = average_drift(seen)
    assert mean is not None
    # From the first sample's instant to the last one's, both a little inside of the whole.
    near = 2 * abs(bend) / (60 * S) * 2e6 / 60 + 1
    assert mean.low - near <= ppb / 1e3 <= mean.high + near


def test_too_little_to_tell() -> None:
    one = look(1, 0, [], count=1)
    assert drift(one) is drift([]) is drift_over([]) is average_drift(one) is None
    assert wander_ns([]) == wander_ns([one]) == wander_ns([one, one]) == 0
    assert segments([], Rate.within(1)) == []


def test_the_window_that_would_do() -> None:
    seen = drift([Sample(0, 0, Interval(0, 500 * US)), Sample(100 * S, 100 * S, Interval(0, 500 * US))])
    assert seen is not None
    assert seen.bound_ppm == 5.0
    assert seen.window_for_ns(1.0) == 500 * S
