"""The arithmetic of the measurement. Each function is tested by itself, on cases whose answer is known
without it. Pauses and resyncs are in test_core_pause.py."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.clock import GuestClock, Interval, intersect
from lab.core.drift import drift
from lab.core.offsets import (
    Rate,
    Sample,
    apart,
    offset_at,
    real_sample,
    samples,
    smoothed,
    thinned,
)
from lab.core.stats import quantile, summary
from lab.core.verdict import Outcome, at_least, at_most, worst
from tests.unit.readings import T0, reading
from tests.unit.simulation import MS, US, S

# -- intervals --------------------------------------------------------------------------------------

intervals = st.builds(lambda a, b: Interval(min(a, b), max(a, b)), st.integers(), st.integers())


@given(intervals, intervals, st.data())
@settings(derandomize=True, max_examples=500, deadline=None)
def test_interval_arithmetic_contains_what_it_is_made_of(
    a: Interval, b: Interval, data: st.DataObject
) -> None:
    x = data.draw(st.integers(a.low_ns, a.high_ns))
    y = data.draw(st.integers(b.low_ns, b.high_ns))
    assert x + y in a + b
    assert x - y in a - b
    assert -x in -a
    assert a.smallest_ns <= abs(x) <= a.largest_ns
    assert a.mid_ns - a.half_width_ns <= x <= a.mid_ns + a.half_width_ns
    both = intersect((a, b))
    assert (both is not None) == a.meets(b) == b.meets(a)
    if both is not None:
        assert (x in both) == (x in b)


def test_an_interval_does_not_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="ends before"):
        Interval(2, 1)
    with pytest.raises(ValueError, match="empty"):
        intersect([])


# -- readings ---------------------------------------------------------------------------------------


def test_a_readings_offset() -> None:
    r = reading(T0, T0 + 3 * MS, T0 + 4 * MS, T0 + 5 * MS)
    assert r.offset(GuestClock.RAW) == Interval(-1 * MS, 3 * MS)


@pytest.mark.parametrize("step", [-20 * MS, -300 * US, 300 * US, 20 * MS])
def test_a_step_between_receipt_and_answer(step: int) -> None:
    """The REALTIME offset is the one of the answer, after the step, whatever the step was."""
    r = reading(T0, T0 + MS, T0 + MS + 100 * US, T0 + 2 * MS, step=step)
    assert step in real_sample(r, None).offset
    raw = smoothed(samples([r], GuestClock.RAW), Rate.within(15))
    assert raw is not None
    assert step in real_sample(r, raw[0]).offset
    assert step in apart(r)


def test_inverted_stamps_still_make_an_interval() -> None:
    r = reading(T0, T0 - 30 * MS, T0 + 40 * MS, T0 + 2 * MS)
    assert r.offset(GuestClock.RAW) == Interval(-30 * MS, 38 * MS)


# -- offsets ----------------------------------------------------------------------------------------


def at(raw: int, low: int, high: int) -> Sample:
    return Sample(raw, raw, Interval(low, high))


def test_offset_at_intersects_what_has_aged() -> None:
    both = [at(T0, 0, 1000), at(T0 + S, 500, 1500)]
    assert offset_at(both, T0 + S, phi_ppm=0) == Interval(499, 1001)
    assert offset_at(both, T0 + S, phi_ppm=1) == Interval(499, 1501)
    assert offset_at(both, T0 + S, rate=Rate(1, 1)) == Interval(1000, 1500)
    assert offset_at([], T0) is None
    assert offset_at([at(T0, 0, 10), at(T0, 50_000, 60_000)], T0) is None
    assert offset_at([at(T0, 0, 10), at(T0, 50_000, 60_000)], T0, rate=Rate(-1, 1)) is None
    assert smoothed([at(T0, 0, 10), at(T0 + 1, 50_000, 60_000)], Rate.within(1)) is None
    assert smoothed([], Rate.within(1)) == []


@given(st.integers(0, 1 << 32), st.floats(-900, 900), st.floats(-900, 900))
@settings(derandomize=True, max_examples=400, deadline=None)
def test_smoothing_is_what_all_pairs_say(seed: int, one: float, two: float) -> None:
    """The two running passes against every sample carried to every other, one by one."""
    r, rate = random.Random(seed), Rate(min(one, two), max(one, two))
    true = r.uniform(rate.low_ppm, rate.high_ppm)
    given_, now = [], T0
    for _ in range(r.randint(1, 12)):
        begin, end = now + r.randint(0, 50 * MS), 0
        end = begin + r.randint(0, 5 * MS)
        now = end
        offset = round(true * (r.randint(begin, end) - T0) / 1e6)
        given_.append(Sample(begin, end, Interval(offset - r.randint(1, MS), offset + r.randint(1, MS))))
    found = smoothed(given_, rate)
    assert found is not None
    for target, narrowed in zip(given_, found, strict=True):
        plain = intersect(
            s.offset + rate.change_ns(target.from_raw_ns - s.to_raw_ns, target.to_raw_ns - s.from_raw_ns)
            for s in given_
        )
        assert plain is not None
        assert abs(plain.low_ns - narrowed.offset.low_ns) <= 1
        assert abs(plain.high_ns - narrowed.offset.high_ns) <= 1
        assert round(true * (target.from_raw_ns - T0) / 1e6) in narrowed.offset.widened(1)


def test_thinning_keeps_the_narrowest_of_each_stretch() -> None:
    many = [at(T0 + i, 0, 100 - 2 * (i % 10)) for i in range(100)]
    kept = thinned(many, 10)
    assert [s.offset.high_ns for s in kept] == [82] * 10
    assert thinned(many[:10], 10) == many[:10]
    assert thinned([at(T0, 0, 1)] * 20, 5) == [at(T0, 0, 1)]
    assert thinned([], 5) == []


# -- drift ------------------------------------------------------------------------------------------


def line(ppm: float, count: int = 50, width: int = 100_000, step: int = 0) -> list[Sample]:
    found = []
    for i in range(count):
        t = i * 100 * MS
        offset = round(ppm * t / 1e6) + (step if i >= count // 2 else 0)
        found.append(at(T0 + t, offset - width, offset + width))
    return found


@pytest.mark.parametrize("ppm", [-500.0, -3.0, 0.0, 17.0, 83_333.0])
def test_the_drift_of_a_line(ppm: float) -> None:
    seen = drift(line(ppm))
    assert seen is not None
    assert seen.low <= ppm <= seen.high
    assert seen.bound_ppm == pytest.approx(2 * 100_000 / 4.9e9 * 1e6, rel=0.01)
    assert seen.window_for_ns(seen.bound_ppm / 10) == pytest.approx(10 * seen.window_ns, rel=0.01)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_drift_of_samples_whose_instants_are_unknown(sign: int) -> None:
    """Two long exchanges: the offsets may have been taken 0.2 s apart or 2.2 s."""
    two = [
        Sample(0, S, Interval(0, 1)),
        Sample(S + S // 5, 2 * S + S // 5, Interval(0, 1).shifted(sign * MS)),
    ]
    seen_ = drift(two)
    assert seen_ is not None
    for apart_ns in (S // 5, 2 * S + S // 5):
        assert seen_.low <= sign * MS / apart_ns * 1e6 <= seen_.high


def test_no_drift_over_a_step_or_too_little() -> None:
    assert drift(line(10, step=50 * MS)) is None
    assert drift(line(10)[:1]) is None
    assert drift([]) is None
    assert drift([at(T0, 0, 1), at(T0, 0, 1)]) is None


# -- statistics -------------------------------------------------------------------------------------


def test_quantiles_limits_known_values() -> None:
    """Of the median of n: the largest l with P(B(n, 1/2) < l) <= 2.5 % (tables: 1 of 6, 2 of 10, 6 of 20)."""
    for count, low, high in ((6, 1, 6), (10, 2, 9), (20, 6, 15), (5, None, None)):
        q = quantile([float(i) for i in range(1, count + 1)], 0.5)
        assert (q.low, q.high) == (low, high)
    assert quantile([3.0], 0.5).value == 3.0
    assert quantile([float(i) for i in range(1, 101)], 0.95).value == 95
    assert quantile([float(i) for i in range(1, 21)], 0.95).high is None
    with pytest.raises(ValueError, match="nothing"):
        quantile([], 0.5)
    s = summary([4.0, 1.0, 3.0])
    assert (s.count, s.median.value, s.largest) == (3, 3.0, 4.0)


def test_quantiles_limits_cover() -> None:
    """At least 95 % of samples' limits contain the true median and p95 (here of a skewed distribution)."""
    r, hits, rounds = random.Random(1), [0, 0], 1500
    for _ in range(rounds):
        values = [r.expovariate(1) for _ in range(30)]
        for i, (q, true) in enumerate(((0.5, 0.6931), (0.95, 2.9957))):
            seen = quantile(values, q)
            hits[i] += (seen.low or 0) <= true <= (inf if seen.high is None else seen.high)
    assert min(hits) / rounds > 0.94


# -- verdicts ---------------------------------------------------------------------------------------


@given(st.integers(), st.integers(), st.integers(), st.integers(0, 100))
@settings(derandomize=True, max_examples=500, deadline=None)
def test_a_limit_is_decided_only_by_the_whole_interval(limit: int, low: int, width: int, share: int) -> None:
    high = low + abs(width)
    true = low + abs(width) * share // 100
    if (said := at_most(limit, low, high)) is not Outcome.INCONCLUSIVE:
        assert (said is Outcome.PASSED) == (true <= limit)
    if (said := at_least(limit, low, high)) is not Outcome.INCONCLUSIVE:
        assert (said is Outcome.PASSED) == (true >= limit)


def test_the_worst_wins() -> None:
    passed, unclear, failed = Outcome.PASSED, Outcome.INCONCLUSIVE, Outcome.FAILED
    assert worst([]) is unclear
    assert worst([passed, passed]) is passed
    assert worst([passed, unclear]) is unclear
    assert worst([unclear, failed, passed]) is failed
    assert [o.exit_code for o in (passed, failed, unclear)] == [0, 1, 3]
