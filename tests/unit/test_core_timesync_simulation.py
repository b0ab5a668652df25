"""Forecasts against synthetic guests whose mechanism keeps its rules, or breaks one of them.

One that keeps them is never told to be otherwise than predicted; one that breaks them is never told to be as
predicted. Undecided is always allowed, and must be rare where the readings are good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.core.clock import Interval, Stamp
from lab.core.drift import Drift
from lab.core.findings import findings, outcome_of
from lab.core.judge import CycleResult, measure
from lab.core.mechanism import Means
from lab.core.plan import CycleSpec, Expectations, HoldPatch, Regime, ResyncMechanism
from lab.core.predictions import compared, prediction_checks
from lab.core.resync import Correction
from lab.core.resync_findings import AS_PREDICTED as AS_PREDICTED_METRIC
from lab.core.timesync.compare import CLAIMS, NOT_YET
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.rules import forecast
from lab.core.timesync_setup import Setup
from lab.core.verdict import Outcome
from tests.unit.simulation import MS, Move, Network, Repair, S, Scenario, Truth, simulate
from tests.unit.strategies import cases, expectations, scenarios
from tests.unit.truth_checks import check

M = ResyncMechanism
QUICK_NTPD = "server 192.0.2.1 minpoll 0 maxpoll 0\ntinker stepout 1\n"
NTP_SLEW = "server 192.0.2.1 minpoll 0 maxpoll 0\ntinker stepout 1 step 0\n"
NEVER = "server 192.0.2.1 minpoll -2 maxpoll -2 maxsamples 1\nmakestep 0.05 0\n"
USED_UP = {"updates": "9", "poll": "0"}

SETUPS = (
    Setup(M.NONE),
    Setup(M.AGENT),
    Setup(M.DOMTIME_NOW),
    Setup(M.PUSH),
    Setup(M.AGENT_RTC),
    Setup(M.HWCLOCK, rtc_stops=True),
    Setup(M.HWCLOCK, status={"rtc_minus_real_ns": "-300000000", "rtc_bound_ns": "20000000"}),
    *(Setup(m, config=m.config("192.0.2.1", 11123, "/dev/ptp0")) for m in M if m.is_daemon),
    Setup(M.CHRONY_DISTRIBUTION, config=M.CHRONY_DISTRIBUTION.config("a", 1), status=USED_UP),
    Setup(M.CHRONY, config=NEVER),
    Setup(M.TIMESYNCD, config="[Time]\nPollIntervalMaxSec=32\n", status={"PollIntervalUSec": "32s"}),
    Setup(M.NTPD, config=QUICK_NTPD),
    Setup(M.NTPD, config=NTP_SLEW),
)


@dataclass(frozen=True)
class Plot:
    """What the mechanism does, in numbers of the forecast. when, where: shares of `within` and of the
    residual. over_ns: how far a first step goes too far, and is taken back."""

    when: float
    where: float
    over_ns: int
    slewed: bool


plots = st.builds(
    Plot, st.floats(0, 1), st.floats(0.01, 0.99), st.sampled_from([0, 0, -300 * MS, 1100 * MS]), st.booleans()
)
quiet = st.builds(
    lambda s, raw, real, host, off: replace(
        s, raw_ppb=raw, real_ppb=real, host_ppb=host, start_offset_ns=s.start_offset_ns + off
    ),
    scenarios,
    *(st.integers(-most, most) for most in (300_000, 100_000, 100_000)),
    st.sampled_from([0, 0, 0, 0, 2 * S, -3 * S, 7200 * S, -1800 * S]),
)
"""Clocks that nobody corrects drift by 515 ppm at most, as the comparison takes it."""


def _at(share: float, low: int, high: int) -> int:
    return low + int(share * (high - low))


def obeying(setup: Setup, predicted: Forecast, lost_ns: int, plot: Plot) -> tuple[Move, ...]:
    """Moves that the forecast allows. Only chronyd goes too far, and comes back."""
    where = predicted.residual or Interval(0, 0)
    to_ns = _at(plot.where, where.low_ns, where.high_ns)
    if predicted.correction is Correction.NONE:
        return ()
    if predicted.within is None:
        return (Move(20 * MS, to_ns),)
    at = _at(plot.when, predicted.within.low_ns, predicted.within.high_ns)
    if predicted.correction is Correction.SLEW or (predicted.correction is None and plot.slewed):
        ppb = 83_333_000
        took = abs(lost_ns) * S // ppb
        ends = min(max(at, took), predicted.within.high_ns)
        return (Move(max(0, ends - took), to_ns, ppb=ppb),)
    by_chrony = setup.mechanism.means is Means.CHRONYD
    if abs(plot.over_ns) * 2 < lost_ns and at > 50 * MS and plot.over_ns and by_chrony:
        return (Move(at // 2, to_ns + plot.over_ns), Move(at, to_ns))
    return (Move(at, to_ns),)


class Broken(StrEnum):
    """A rule that is broken."""

    NEVER = "it is never repaired"
    LATE = "repaired after the latest time"
    ELSEWHERE = "left outside of the residual"
    SLEWED = "slewed instead of stepped"
    STEPPED = "stepped instead of slewed"
    REPAIRED = "repaired, although nothing repairs it"


def breaking(
    predicted: Forecast, lost_ns: int, plot: Plot, broken: Broken, watch_ns: int
) -> tuple[Move, ...] | None:
    """Moves that the forecast rules out, by enough for a good look; None when it rules none of the kind
    out."""
    if broken is Broken.REPAIRED:
        if (
            predicted.repaired is not False
            or predicted.residual is None
            or predicted.residual.high_ns > -100 * MS
        ):
            return None
        return (Move(_at(plot.when, 0, watch_ns // 2), 0),)
    if not predicted.repaired or predicted.within is None or predicted.residual is None:
        return None
    if lost_ns < predicted.residual.largest_ns + 100 * MS:
        return None
    latest = predicted.within.high_ns
    if broken is Broken.NEVER:
        return ()
    if broken is Broken.LATE:
        return (Move(latest + 20 * MS + int(plot.when * S), 0),)
    if broken is Broken.ELSEWHERE:
        side, at = 1 if plot.slewed else -1, _at(plot.when, 0, min(latest, watch_ns) // 2)
        off = predicted.residual.largest_ns + 60 * MS + int(plot.where * 500 * MS)
        if side < 0 and predicted.latency_ns:
            off += at  # the host's word may have taken so long: its clock is no further behind than that
        return (Move(at, side * off),)
    if broken is Broken.SLEWED and predicted.correction is Correction.STEP:
        return (Move(0, 0, ppb=83_333_000),)
    if broken is Broken.STEPPED and predicted.correction is Correction.SLEW:
        return (Move(_at(plot.when, predicted.within.low_ns, latest), 0),)
    return None


def observed(s: Scenario, setup: Setup) -> tuple[CycleResult, Truth]:
    obs, truth = simulate(s)
    cycle = CycleSpec(obs.method, HoldPatch(s.pause_ns), watch_ns=s.watch_ns)
    return measure(replace(obs, setup=setup), setup.mechanism, Expectations(), None, cycle), truth


def forecast_of(s: Scenario, setup: Setup) -> tuple[Forecast, int]:
    """The forecast of the true pause, and what was lost by it."""
    _, truth = simulate(replace(s, repair=Repair.NONE, watch_ns=MS, before_ns=MS))
    stopped = s.regime is Regime.RESUMED
    length = truth.still if stopped else truth.held
    before = truth.guest_real(truth.called) - truth.host_real(truth.called)
    predicted = forecast(setup, Interval(length, length), stopped, s.watch_ns, None, Interval(before, before))
    return predicted, truth.still if stopped else 0


def claims_of(result: CycleResult) -> dict[str, bool | None]:
    return {one.claim: one.agrees for one in prediction_checks(result) if one.claim in CLAIMS}


@given(quiet, st.sampled_from(SETUPS), plots, st.integers(300 * MS, 8 * S))
@cases(70)
def test_what_keeps_its_rules_is_never_told_to_break_them(
    s: Scenario, setup: Setup, plot: Plot, watch: int
) -> None:
    regime = s.regime if s.regime in (Regime.RESUMED, Regime.JUMPED) else Regime.RESUMED
    s = replace(s, regime=regime, watch_ns=watch)
    predicted, lost = forecast_of(s, setup)
    # Where the bounds of the pause straddle a threshold the forecast is left open, and rules out less.
    s = replace(s, repair=Repair.MOVES, moves=obeying(setup, predicted, lost, plot))
    result, _ = observed(s, setup)
    agrees, verdict = compared(result)
    assert agrees is not False, verdict
    assert False not in claims_of(result).values()
    if result.forecast is not None and result.forecast.within is not None and agrees:
        assert verdict != NOT_YET


@given(quiet, st.sampled_from(SETUPS), plots, st.sampled_from(Broken), st.integers(2 * S, 8 * S))
@cases(70)
def test_what_breaks_a_rule_is_never_told_to_keep_them(
    s: Scenario, setup: Setup, plot: Plot, broken: Broken, watch: int
) -> None:
    s = replace(s, regime=Regime.RESUMED, pause_ns=max(s.pause_ns, 200 * MS), watch_ns=watch)
    predicted, lost = forecast_of(s, setup)
    moves = breaking(predicted, lost, plot, broken, watch)
    assume(moves is not None)
    assert moves is not None
    result, _ = observed(replace(s, repair=Repair.MOVES, moves=moves), setup)
    agrees, verdict = compared(result)
    assert agrees is not True, (broken, moves, verdict)


@given(quiet, st.sampled_from([s for s in SETUPS if not s.mechanism.is_daemon]), plots, expectations)
@cases(30)
def test_a_right_clock_that_a_repair_makes_worse(
    s: Scenario, setup: Setup, plot: Plot, expect: Expectations
) -> None:
    """The guest kept true time through the pause; the host's repair moves it all the same."""
    s = replace(s, regime=Regime.JUMPED, start_offset_ns=0)
    predicted, _ = forecast_of(s, setup)
    s = replace(s, repair=Repair.MOVES, moves=obeying(setup, predicted, 0, plot))
    check(s, expect)
    agrees, verdict = compared(observed(s, setup)[0])
    assert agrees is not False, verdict


moves = st.lists(
    st.builds(
        Move,
        st.integers(0, 4 * S),
        st.one_of(st.none(), st.sampled_from([0, 2 * S, -2 * S]), st.integers(-200 * MS, 200 * MS)),
        st.integers(-3 * S, 3 * S),
        st.sampled_from([0, 0, 500_000, 10_000_000, 83_333_000]),
    ),
    max_size=3,
).map(lambda given_: tuple(sorted(given_, key=lambda move: move.after_ns)))


@given(scenarios, expectations, moves)
@cases(70)
def test_a_clock_that_is_moved_at_will_after_the_resume(
    s: Scenario, expect: Expectations, given_: tuple[Move, ...]
) -> None:
    """Whoever it is: a wrong server, an RTC, chronyd and back, the guest itself while it is measured."""
    check(replace(s, repair=Repair.MOVES, moves=given_), expect)


GOOD = Scenario(
    seed=5, network=Network.STEADY, rtt_ns=2 * MS, call_ns=MS, before_ns=2 * S, late_ns=MS, raw_ppb=40_000
)


def good(setup: Setup, moves: tuple[Move, ...], pause_ns: int = 3 * S, watch_ns: int = 6 * S) -> CycleResult:
    s = replace(GOOD, pause_ns=pause_ns, watch_ns=watch_ns, repair=Repair.MOVES, moves=moves)
    return observed(s, setup)[0]


FROZEN = next(setup for setup in SETUPS if setup.mechanism is M.CHRONY_FROZEN)
CHRONY = next(setup for setup in SETUPS if setup.mechanism is M.CHRONY)
TIMESYNCD = next(setup for setup in SETUPS if setup.mechanism is M.TIMESYNCD)


@pytest.mark.parametrize(
    ("setup", "given_", "watch_s", "agrees", "verdict"),
    [
        (Setup(M.NONE), (), 6, True, "as predicted"),
        (Setup(M.NONE), (Move(S, 0),), 6, False, "repaired, although not predicted"),
        (Setup(M.NONE), (Move(S, 5 * S),), 6, False, "moved, although not predicted"),
        (Setup(M.AGENT), (Move(9 * MS, -9 * MS),), 6, True, "as predicted"),
        (Setup(M.AGENT), (Move(6 * S, 0),), 8, False, "later than predicted"),
        (Setup(M.AGENT), (), 8, False, "not back after"),
        (Setup(M.AGENT), (), 3, None, NOT_YET),
        (Setup(M.AGENT), (Move(9 * MS, -400 * MS),), 8, False, "not back after"),
        (Setup(M.DOMTIME_NOW), (Move(30 * MS, -900 * MS),), 6, True, "as predicted"),
        (Setup(M.PUSH), (Move(8 * MS, 500_000),), 6, True, "as predicted"),
        (CHRONY, (Move(3 * S, 1100 * MS), Move(5 * S, MS)), 8, True, "as predicted"),
        (CHRONY, (), 6, None, NOT_YET),
        (TIMESYNCD, (), 6, None, NOT_YET),
        (FROZEN, (Move(700 * MS, 2 * S),), 10, False, "not back after"),
        (FROZEN, (Move(100 * MS, -200 * MS), Move(500 * MS, MS)), 6, True, "as predicted"),
        (Setup(M.CHRONY, config=NEVER), (Move(S, 0),), 6, False, "stepped, slew predicted"),
        (Setup(M.HWCLOCK, rtc_stops=True), (Move(300 * MS, -3200 * MS),), 6, True, "as predicted"),
        (Setup(M.HWCLOCK, rtc_stops=True), (Move(300 * MS, 0),), 6, False, "repaired, although not"),
    ],
)  # fmt: skip
def test_a_good_look_decides(
    setup: Setup, given_: tuple[Move, ...], watch_s: int, agrees: bool | None, verdict: str
) -> None:
    found = compared(good(setup, given_, watch_ns=watch_s * S))
    assert found[0] is agrees, found
    assert found[1].startswith(verdict), found


HWCLOCK = next(setup for setup in SETUPS if setup.mechanism is M.HWCLOCK and not setup.rtc_stops)


@pytest.mark.parametrize(
    ("setup", "given_", "watch_s", "verdict"),
    [
        # hwclock, and somebody had set the RTC 75 minutes ahead.
        (HWCLOCK, (Move(1200 * MS, 75 * 60 * S),), 8, "left at +"),
        # timesyncd steps once, by a server that is 2 s ahead; it may poll within 37 min.
        (TIMESYNCD, (Move(1200 * MS, 2 * S),), 8, "left at +"),
        # chronyd may still step again, but does not lead a clock away.
        (CHRONY, (Move(S, 75 * 60 * S),), 6, "left at +"),
        (CHRONY, (Move(S, 900 * MS),), 6, NOT_YET),
        # In time, and led away again.
        (CHRONY, (Move(S, MS), Move(4 * S, 75 * 60 * S)), 8, "left at +"),
    ],
)
def test_a_step_into_the_wrong_place_ends_the_waiting(
    setup: Setup, given_: tuple[Move, ...], watch_s: int, verdict: str
) -> None:
    result = good(setup, given_, watch_ns=watch_s * S)
    agrees, words = compared(result)
    assert words.startswith(verdict), words
    assert agrees is (None if verdict == NOT_YET else False)
    (found,) = (
        f for f in findings(result, Expectations(as_predicted=True)) if f.metric == AS_PREDICTED_METRIC
    )
    assert found.outcome is (Outcome.INCONCLUSIVE if verdict == NOT_YET else Outcome.FAILED)


@pytest.mark.parametrize(("ppm", "agrees"), [(1_841_000, None), (-500_000, None), (90_000, False)])
def test_a_clock_that_no_program_can_keep_tells_nothing_of_a_forecast(ppm: int, agrees: bool | None) -> None:
    """A guest whose kernel had calibrated its TSC on a busy host ran at 2.84 times the speed."""
    wild = Drift(ppm, ppm - 700, ppm + 700, 4 * S)
    found = compared(replace(good(FROZEN, (), watch_ns=10 * S), drift_before=wild))
    assert found[0] is agrees, found


def test_a_clock_with_a_wrong_frequency_is_told() -> None:
    result, _ = observed(replace(GOOD, raw_ppb=1_841_000_000, pause_ns=3 * S, watch_ns=6 * S), FROZEN)
    assert any("184 % fast" in problem for problem in result.problems), result.problems


def test_what_says_that_it_has_done_is_waited_for_no_longer() -> None:
    """An agent that answers after 1.2 s, and has set nothing."""
    s = replace(GOOD, pause_ns=3 * S, watch_ns=3 * S, repair=Repair.NONE)
    obs, _ = simulate(s)
    assert obs.resume is not None
    spec = CycleSpec(obs.method, HoldPatch(s.pause_ns), watch_ns=s.watch_ns)
    words = []
    for finished in (None, obs.resume.returned.raw_ns + 1200 * MS, obs.resume.returned.raw_ns + 9 * S):
        seen = replace(obs, setup=Setup(M.AGENT), resync_finished_raw_ns=finished)
        words.append(compared(measure(seen, M.AGENT, Expectations(), None, spec)))
    assert [agrees for agrees, _ in words] == [None, False, None]
    assert words[1][1].endswith("; all was done after 1.2 s")


def test_a_slew_where_a_step_was_predicted_is_told() -> None:
    slewed = good(FROZEN, (Move(0, 0, ppb=83_333_000),), pause_ns=500 * MS, watch_ns=9 * S)
    assert compared(slewed) == (False, "slewed, step predicted")
    assert slewed.resync is not None
    assert slewed.resync.slew_ppm is not None
    assert 80_000 < slewed.resync.slew_ppm < 84_000
    assert [reached.time is not None for reached in slewed.resync.reached] == [True] * 4


@pytest.mark.parametrize(("held_up_ms", "agrees"), [(5, False), (600, None)])
def test_what_a_busy_host_explains_is_no_surprise(held_up_ms: int, agrees: bool | None) -> None:
    s = replace(GOOD, pause_ns=3 * S, watch_ns=6 * S, repair=Repair.MOVES, moves=(Move(300 * MS, -700 * MS),))
    obs, _ = simulate(s)
    assert obs.resume is not None
    since = obs.resume.returned.raw_ns + 2 * S
    number = next(n for n, r in enumerate(obs.readings) if r.t1.raw_ns > since)
    slow = obs.readings[number]
    later = Stamp(slow.t4.raw_ns + held_up_ms * MS, slow.t4.real_ns + held_up_ms * MS)
    readings = (*obs.readings[:number], replace(slow, t4=later), *obs.readings[number + 1 :])
    spec = CycleSpec(obs.method, HoldPatch(s.pause_ns), watch_ns=s.watch_ns)
    seen = replace(obs, setup=Setup(M.AGENT), readings=readings)
    found, words = compared(measure(seen, M.AGENT, Expectations(), None, spec))
    assert found is agrees, words
    assert ("busy host" in words) is (agrees is None)


def test_a_wrong_server_fails_though_the_guest_believes_it() -> None:
    """2 s off by the server: every program in the guest is content, and the expectations are not."""
    given_ = (Move(300 * MS, 2 * S),)
    s = replace(GOOD, pause_ns=3 * S, watch_ns=6 * S, repair=Repair.MOVES, moves=given_)
    result, _ = observed(replace(s, start_offset_ns=2 * S), FROZEN)
    expect = Expectations(in_time_within_ns=5 * S, final_offset_ns=100 * MS)
    outcomes = {f.metric: f.outcome for f in findings(result, expect)}
    assert outcomes["in time"] is outcomes["final offset"] is Outcome.FAILED
    agrees, verdict = compared(result)
    assert agrees is not True, verdict


@pytest.mark.parametrize("setup", [Setup(M.AGENT), FROZEN, Setup(M.NONE)])
def test_a_host_clock_that_is_stepped_in_the_cycle_is_inconclusive(setup: Setup) -> None:
    for at in (S, 4 * S, 7 * S):
        s = replace(GOOD, pause_ns=3 * S, watch_ns=4 * S, host_step_ns=-300 * MS, host_step_at=at)
        result, _ = observed(s, setup)
        assert any("host's REALTIME was stepped" in problem for problem in result.problems)
        assert outcome_of(findings(result, Expectations())) is Outcome.INCONCLUSIVE


def test_a_guest_that_sets_its_own_clock_while_it_is_measured_is_told() -> None:
    before = replace(GOOD, pause_ns=3 * S, watch_ns=4 * S, step_before_ns=700 * MS, repair=Repair.AGENT)
    result, _ = observed(before, Setup(M.AGENT))
    assert any("stepped during the measurement before" in problem for problem in result.problems)
    after = good(Setup(M.AGENT), (Move(9 * MS, -9 * MS), Move(4 * S, 700 * MS)))
    agrees, verdict = compared(after)
    assert agrees is False
    assert verdict.startswith("left at +")
