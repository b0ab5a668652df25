"""Each function of the measurement by itself, on cases whose answer is known without it."""

from __future__ import annotations

import random
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.clock import GuestClock, Interval, intersect
from lab.core.drift import drift
from lab.core.findings import findings, outcome_of
from lab.core.judge import measure
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
from lab.core.pause import measure_pause
from lab.core.plan import Expectations, FreezeMethod, Regime, ResyncMechanism
from lab.core.resync import Correction, SyncOutcome, measure_resync
from lab.core.stats import quantile, summary
from lab.core.timeline import MOST_RECORDS, Call, Heartbeat, Hole, Observation, Reading, SamplerReport
from lab.core.verdict import Outcome, at_least, at_most, worst
from lab.core.witnesses import LATE_NS, Witness, event_in, gap_witness, hypervisor_witness, silence_witness
from tests.unit.readings import T0, call, reading, stamp
from tests.unit.simulation import MS, US, Repair, S, Scenario, simulate

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


# -- witnesses --------------------------------------------------------------------------------------


def test_the_hypervisors_witness() -> None:
    stop, resume = call(T0, T0 + 2 * MS), call(T0 + S, T0 + S + 3 * MS)
    assert hypervisor_witness(stop, resume) == Interval(S - 2 * MS, S + 3 * MS)
    stop, resume = call(T0, T0 + 2 * MS, T0 + MS), call(T0 + S, T0 + S + 3 * MS, T0 + S + 2 * MS)
    narrowed = hypervisor_witness(stop, resume)
    assert S + MS - 10 * US <= narrowed.low_ns <= S + MS
    assert narrowed.high_ns == S + 3 * MS


def test_what_a_vcpu_ran_in_the_resume_call_is_no_pause() -> None:
    stop, resume = call(T0, T0 + MS), call(T0 + 20 * MS, T0 + 45 * MS)
    seen_ = hypervisor_witness(stop, replace(resume, ran_ns=18 * MS))
    assert seen_ == Interval(19 * MS, 27 * MS)
    assert hypervisor_witness(stop, replace(resume, ran_ns=S)).high_ns >= 0  # nonsense does not invert it


def test_events_outside_their_call_are_no_evidence() -> None:
    assert event_in(call(T0, T0 + MS, T0 - 20 * MS)) is None
    assert event_in(call(T0, T0 + MS, T0 + 40 * MS)) is None
    assert event_in(call(T0, T0 + MS)) is None
    stop, resume = call(T0, T0 + MS, T0 + 40 * MS), call(T0 + S, T0 + S + MS, T0 + S + MS // 2)
    assert hypervisor_witness(stop, resume).low_ns == S - MS


def test_an_event_while_realtime_is_slewed_or_stepped() -> None:
    slewed = Call(stamp(T0, 0), stamp(T0 + 20 * MS, 10 * US), T0 + 15 * MS + 7 * US)
    inside = event_in(slewed)
    assert inside is not None
    assert T0 + 15 * MS in inside
    stepped = Call(stamp(T0, 0), stamp(T0 + 20 * MS, 5 * MS), T0 + 12 * MS + 5 * MS)
    inside = event_in(stepped)
    assert inside is not None
    assert T0 + 12 * MS in inside


def report(*holes: tuple[int, int], first: int = 0, last: int = 20 * S) -> SamplerReport:
    return SamplerReport(2 * MS, 1000, first, last, 2 * MS, 6 * MS, tuple(Hole(*h) for h in holes))


def test_the_gaps_witness() -> None:
    where = Interval(5 * S, 5 * S + MS), Interval(9 * S, 9 * S + MS)
    seen = gap_witness(report((S, S + 8 * MS), (5 * S - MS, 9 * S + MS)), *where)
    assert seen == (Interval(4 * S + 2 * MS - 2 * MS - 8 * MS - LATE_NS, 4 * S + 2 * MS), 8 * MS)
    assert gap_witness(report((S, S + 8 * MS)), *where) == (Interval(0, 6 * MS), 8 * MS)
    assert gap_witness(report(first=6 * S), *where) is None
    assert gap_witness(report(last=8 * S), *where) is None
    full = report(*[(S, S + 8 * MS)] * MOST_RECORDS)
    assert gap_witness(full, *where) is None
    assert gap_witness(replace(full, most_kept=MOST_RECORDS + 1), *where) is not None


def test_a_history_is_judged_by_what_its_own_sampler_takes_for_a_step() -> None:
    """REALTIME moved by 20 ms in the pause: a sampler that is coarse enough took that for a slew."""
    scenario = Scenario(
        1, Regime.RESUMED, pause_ns=S, repair=Repair.NONE, watch_ns=S, rtt_ns=100 * US, late_ns=100 * US
    )
    obs, _ = simulate(scenario)
    assert obs.sampler is not None
    assert obs.resume is not None
    late = obs.resume.called.raw_ns
    moved = tuple(
        replace(r, t2={**r.t2, GuestClock.REAL: r.t2[GuestClock.REAL] + 20 * MS},
                t3={**r.t3, GuestClock.REAL: r.t3[GuestClock.REAL] + 20 * MS})
        if r.t1.raw_ns > late else r
        for r in obs.readings
    )  # fmt: skip
    coarse = replace(obs.sampler, step_floor_ns=30 * MS)
    said = "the guest's REALTIME moved by itself between stop and resume"
    for sampler, problems in ((obs.sampler, (said,)), (coarse, ())):
        result = measure(replace(obs, readings=moved, sampler=sampler), ResyncMechanism.NONE, Expectations())
        assert result.problems == problems


def test_the_silences_witness() -> None:
    def beats(*times: int) -> list[Heartbeat]:
        return [Heartbeat(i, t, stamp(T0 + t)) for i, t in enumerate(times)]

    stop, resume = call(T0 + S, T0 + S + MS), call(T0 + 3 * S, T0 + 3 * S + MS)
    seen = silence_witness(beats(900 * MS, 990 * MS, 3005 * MS, 3025 * MS), stop, resume, MS)
    assert seen == Interval(2015 * MS - 90 * MS - MS - LATE_NS, 2015 * MS)
    # The last heartbeat was long under way: the silence is shorter than the pause, its bound is not.
    late = silence_witness(beats(900 * MS, 990 * MS, 2 * S, 3005 * MS), stop, resume, MS)
    assert late is not None
    assert late.high_ns >= 2 * S
    assert silence_witness(beats(900 * MS, 990 * MS), stop, resume, MS) is None
    assert silence_witness([], stop, resume, MS) is None


def simulated(**changes: object) -> Observation:
    plain = {"before_ns": S, "pause_ns": S, "watch_ns": S, "rtt_ns": 2 * MS, "repair": Repair.NONE}
    return simulate(Scenario(**{**plain, **changes}))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("late", [False, True])
def test_a_guest_whose_raw_clock_loses_time_by_itself_is_told(late: bool) -> None:
    """A clocksource that turned over while the guest's kernel did not run."""
    obs = simulated()
    assert obs.stop is not None and obs.resume is not None
    side = [r for r in obs.readings if (r.t1.raw_ns > obs.resume.returned.raw_ns) == late]
    broken = side[len(side) // 2 :]

    def lost(r: Reading) -> Reading:
        behind = dict.fromkeys(GuestClock, -4687 * MS)
        return replace(
            r, t2={c: n + behind[c] for c, n in r.t2.items()}, t3={c: n + behind[c] for c, n in r.t3.items()}
        )

    moved = replace(obs, readings=tuple(lost(r) if r in broken else r for r in obs.readings))
    result = measure(moved, ResyncMechanism.NONE, Expectations())
    when = "after" if late else "before"
    assert any(f"contradicts itself {when} the freeze" in problem for problem in result.problems)
    assert outcome_of(findings(result, Expectations())) is Outcome.INCONCLUSIVE


def test_missing_witnesses_do_not_close() -> None:
    obs = simulated()
    assert obs.stop is not None
    assert obs.resume is not None
    early = [r for r in obs.readings if r.t4.raw_ns <= obs.stop.called.raw_ns]
    for readings, sampler in ((obs.readings, None), (early, obs.sampler), ([], None)):
        pause = measure_pause(readings, obs.beats, sampler, obs.stop, obs.resume)
        assert not pause.closes
        assert pause.regime is None
        assert pause.closure is None
        assert pause.pause == pause.witnesses[Witness.HYPERVISOR]


def test_a_pause_below_the_bounds_has_no_regime() -> None:
    for regime in (Regime.RESUMED, Regime.JUMPED, Regime.MIXED):
        obs = simulated(pause_ns=300 * US, call_ns=5 * MS, regime=regime)
        result = measure(obs, ResyncMechanism.NONE, Expectations(regime=regime))
        assert result.pause is not None
        assert result.pause.regime is None
        assert outcome_of(findings(result, Expectations(regime=regime))) is Outcome.INCONCLUSIVE


def test_a_control_cycle_and_one_in_which_something_stood_still() -> None:
    calm = measure(simulated(regime=Regime.RUNNING), ResyncMechanism.NONE, Expectations())
    assert calm.pause is not None
    assert (calm.pause.regime, calm.pause.closes) == (Regime.RUNNING, True)
    lost = measure(simulated(regime=Regime.RUNNING, hidden_ns=300 * MS), ResyncMechanism.NONE, Expectations())
    assert lost.pause is not None
    assert (lost.pause.regime, lost.pause.closes) == (None, False)
    assert outcome_of(findings(lost, Expectations())) is Outcome.INCONCLUSIVE


def test_an_unfrozen_guest_is_inconclusive() -> None:
    obs = Observation("a", 0, True, FreezeMethod.SUSPEND, "hold", S)
    assert outcome_of(findings(measure(obs, ResyncMechanism.NONE, Expectations()), Expectations())) is (
        Outcome.INCONCLUSIVE
    )


def test_unaccounted_time_has_a_sign() -> None:
    for hidden, sign in ((300 * MS, -1), (0, 0)):
        pause = measure(simulated(hidden_ns=hidden, rtt_ns=MS), ResyncMechanism.NONE, Expectations()).pause
        assert pause is not None
        near = abs(pause.unaccounted_ns - sign * hidden)
        assert near < 20 * MS


# -- resync -----------------------------------------------------------------------------------------


def row(begin: int, end: int, low: int, high: int, every: int = 100) -> list[tuple[int, int, int]]:
    return [(t, low, high) for t in range(begin, end, every)]


def outcome(*points: tuple[int, int, int], hold: int = 2 * S) -> tuple[SyncOutcome, Interval | None]:
    seen_ = measure_resync(
        [Sample(T0 + t * MS - MS, T0 + t * MS, Interval(a * MS, b * MS)) for t, a, b in points],
        T0, None, None, None, 100 * MS, hold,
    )  # fmt: skip
    return seen_.outcome, seen_.time


OUT, IN, MAYBE = (-5000, -4990), (-9, 9), (-105, -95)


def test_time_to_sync() -> None:
    assert outcome(*row(100, 1000, *OUT), *row(1000, 4000, *IN)) == (
        SyncOutcome.SYNCED, Interval(899 * MS, 1000 * MS),
    )  # fmt: skip
    assert outcome(*row(100, 3000, *IN)) == (SyncOutcome.SYNCED, Interval(0, 100 * MS))
    assert outcome(*row(100, 3000, *OUT)) == (SyncOutcome.NOT_SYNCED, None)
    assert outcome() == (SyncOutcome.UNDECIDED, None)
    assert outcome(*row(100, 1000, *OUT), *row(1000, 2500, *IN))[0] is SyncOutcome.UNDECIDED
    assert outcome(*row(100, 3000, *MAYBE))[0] is SyncOutcome.UNDECIDED


def test_samples_that_straddle_the_tolerance_do_not_start_a_stretch_early() -> None:
    """In at 1 s, perhaps out until 1.5 s, in from then on: the time may be either."""
    seen_, time = outcome(*row(100, 1000, *OUT), (1000, *IN), *row(1100, 1500, *MAYBE), *row(1500, 5000, *IN))
    assert seen_ is SyncOutcome.SYNCED
    assert time == Interval(899 * MS, 1500 * MS)


def test_a_stretch_that_may_have_been_in_counts_below() -> None:
    """Perhaps in for 3 s, then out, then in: the first may have been it."""
    _, time = outcome(*row(100, 3200, *MAYBE), (3200, *OUT), *row(3300, 6000, *IN))
    assert time == Interval(0, 3300 * MS)
    assert outcome(*row(100, 3200, *MAYBE), *row(3200, 4000, *OUT))[0] is SyncOutcome.UNDECIDED


def test_blindness_is_not_being_in() -> None:
    seen_, _ = outcome((100, *IN), (1500, *IN), (3000, *IN))
    assert seen_ is SyncOutcome.UNDECIDED


def test_never_in_time_needs_to_have_been_watched_for_so_long() -> None:
    obs = simulated(pause_ns=2 * S)
    for within, wanted in ((500 * MS, Outcome.FAILED), (5 * S, Outcome.INCONCLUSIVE)):
        expect = Expectations(in_time_within_ns=within)
        found = findings(measure(obs, ResyncMechanism.NONE, expect), expect)
        assert [f.outcome for f in found if f.metric == "in time"] == [wanted]


def test_how_a_clock_was_corrected() -> None:
    def how(repair: Repair, slew: int = 83_333_000) -> Correction | None:
        obs = simulated(repair=repair, pause_ns=60 * MS, residual_ns=0, slew_ppb=slew, call_ns=MS)
        resync = measure(obs, ResyncMechanism.CHRONY, Expectations()).resync
        assert resync is not None
        return resync.correction

    assert how(Repair.AGENT) is Correction.STEP
    assert how(Repair.SLEW) is Correction.SLEW
    assert how(Repair.LIAR) is Correction.NONE


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
