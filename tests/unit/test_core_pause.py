"""The witnesses of a pause, the pause that they make, and the resync after it. Each function is tested by
itself, on cases whose answer is known without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.core.clock import GuestClock, Interval
from lab.core.findings import findings, outcome_of
from lab.core.judge import measure
from lab.core.offsets import Sample
from lab.core.pause import measure_pause
from lab.core.plan import Expectations, FreezeMethod, Regime, ResyncMechanism
from lab.core.resync import Correction, SyncOutcome, measure_resync
from lab.core.timeline import MOST_RECORDS, Call, Heartbeat, Hole, Observation, Reading, SamplerReport
from lab.core.verdict import Outcome
from lab.core.witnesses import LATE_NS, Witness, event_in, gap_witness, hypervisor_witness, silence_witness
from tests.unit.readings import T0, call, stamp
from tests.unit.simulation import MS, US, Repair, S, Scenario, simulate

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
