"""Claims against a truth that is known: one who is honest is never called wrong, one who lies by more than
the measurement's bounds is found, and the times are within their bounds."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.claims import UNNAMED_NS, Audit, Claim
from lab.core.judge import measure
from lab.core.plan import Expectations, ResyncMechanism
from lab.core.timeline import Observation
from tests.unit.simulated_clocks import BASE
from tests.unit.simulation import MS, US, Network, Repair, S, Scenario, Truth, simulate
from tests.unit.strategies import cases, scenarios, slewed_before

EVERY = 250 * MS


class Speaker:
    """Makes claims at times of the host, with the guest's own stamps."""

    def __init__(self, truth: Truth, seed: int) -> None:
        self.truth, self.random = truth, random.Random(seed)
        s = truth.scenario
        self.end = truth.resumed + s.watch_ns
        self.times = self._times()

    def runs(self, at: int) -> bool:
        return not self.truth.called <= at <= self.truth.resumed + self.truth.scenario.stall_ns

    def _times(self) -> list[tuple[int, int]]:
        found = []
        at = BASE + self.random.randint(0, EVERY)
        while at < self.end:
            until = at + self.random.randint(20 * US, 5 * MS)
            if self.runs(at) and self.runs(until):
                found.append((at, until))
            at += EVERY + self.random.randint(0, 10 * MS)
        return found

    def stamps(self, at: int, until: int) -> tuple[int, int, tuple[int, int]]:
        apart = [self.truth.guest_real(t) - self.truth.guest_raw(t) for t in (at, until)]
        slack = self.random.randint(0, 20 * US)
        return self.truth.guest_raw(at), self.truth.guest_raw(until), (min(apart) - slack, max(apart) + slack)

    def offsets(self, at: int, until: int) -> list[int]:
        return [abs(self.truth.offset(t)) for t in (at, until)]

    def claim(self, at: int, until: int, bound: int | None, synced: bool | None = True) -> Claim:
        begun, ended, apart = self.stamps(at, until)
        return Claim("x", begun, ended, synced, bound, "", apart)


def audited(obs: Observation, claims: list[Claim]) -> Audit:
    expect = Expectations()
    result = measure(replace(obs, claims=tuple(claims)), ResyncMechanism.NONE, expect)
    return result.audits[0]


@given(st.one_of(scenarios, slewed_before), st.integers(0, 1 << 32))
@cases(150)
def test_the_honest_are_never_called_wrong(s: Scenario, seed: int) -> None:
    obs, truth = simulate(s)
    speaker = Speaker(truth, seed)
    claims = [speaker.claim(*t, bound=min(speaker.offsets(*t))) for t in speaker.times]
    if not claims:
        return
    seen = audited(obs, claims)
    assert (seen.wrong, seen.worst_ns, seen.example) == (0, 0, "")
    assert seen.wrong_ns.low_ns == 0
    assert seen.claims == len(claims)


@given(st.one_of(scenarios, slewed_before), st.integers(0, 1 << 32), st.integers(0, 3 * S))
@cases(150)
def test_a_lie_is_found_and_bounded(s: Scenario, seed: int, bound: int) -> None:
    """Whoever claims `bound` all the time lies at some times and not at others."""
    obs, truth = simulate(s)
    speaker = Speaker(truth, seed)
    times = speaker.times
    if not times:
        return
    claims = [speaker.claim(*t, bound=bound) for t in times]
    seen = audited(obs, claims)
    lies = [min(speaker.offsets(*t)) - bound for t in times]
    truths = [max(speaker.offsets(*t)) - bound for t in times]
    assert seen.wrong <= sum(off > 0 for off in truths)
    assert seen.worst_ns <= max(0, *truths)
    if seen.judged == len(times) and s.network is Network.FAST and not (s.preempted or s.loss):
        # Readings of 0.1-0.8 ms; claims of up to 5 ms in which a slew may move the clock by a tenth of that.
        assert seen.wrong >= sum(lie > 3 * MS for lie in lies[1:-1])
    # How long it was wrong in truth, by looking every 2 ms while the guest runs.
    step = 2 * MS

    def off(end: int) -> int:
        looks = range(times[0][0], end, step)
        out = (t for t in looks if not (obs.frozen and truth.called <= t <= truth.resumed))
        return sum(step for t in out if abs(truth.offset(t)) > bound)

    between = [(a.t4.raw_ns, b.t1.raw_ns) for a, b in pairwise(obs.readings)]
    blind = max((b - a for a, b in between if b < truth.called or a > truth.resumed), default=0)
    there_and_back = EVERY if s.repair is Repair.OVERSHOOT or blind > EVERY else 0
    assert (
        seen.wrong_ns.low_ns <= off(max(speaker.end, obs.readings[-1].t4.raw_ns)) + 3 * step + there_and_back
    )
    if seen.judged == len(times):
        assert seen.wrong_ns.high_ns >= off(times[-1][0]) - 3 * step - there_and_back


LIAR = Scenario(seed=7, pause_ns=5 * S, watch_ns=6 * S, repair=Repair.LIAR, network=Network.FAST)


def test_a_daemon_that_does_not_notice_the_pause() -> None:
    obs, truth = simulate(LIAR)
    speaker = Speaker(truth, 1)
    claims = [speaker.claim(*t, bound=2 * MS) for t in speaker.times]
    seen = audited(obs, claims)
    after = [t for t in speaker.times if t[0] > truth.resumed]
    assert seen.wrong == len(after)
    assert seen.worst_ns == pytest.approx(5 * S - 2 * MS, abs=10 * MS)
    assert seen.example == "claims synced ± 2 ms, is 5 s behind"
    assert 5 * S < seen.wrong_ns.low_ns <= seen.wrong_ns.high_ns < 6 * S + 100 * MS
    assert seen.wrong_ns.high_ns - seen.wrong_ns.low_ns < 400 * MS  # until the first claim after the resume


def test_a_clock_daemon_that_ends_makes_no_more_claims() -> None:
    obs, truth = simulate(LIAR)
    speaker = Speaker(truth, 1)
    before = [t for t in speaker.times if t[0] < truth.called]
    first, second = (t for t in speaker.times if truth.resumed < t[0] < truth.resumed + 600 * MS)
    gone = speaker.claim(*second, bound=None, synced=None)
    claims = [speaker.claim(*t, bound=2 * MS) for t in [*before, first]]
    seen = audited(obs, [*claims, gone])
    assert seen.wrong == 1
    assert seen.claims == seen.judged + 1
    assert seen.wrong_ns.high_ns < 700 * MS


def test_synchronised_without_a_bound_is_held_against_the_step_threshold() -> None:
    for pause, wrong in ((UNNAMED_NS // 2, False), (UNNAMED_NS * 2, True)):
        obs, truth = simulate(replace(LIAR, pause_ns=pause))
        speaker = Speaker(truth, 1)
        seen = audited(obs, [speaker.claim(*t, bound=None) for t in speaker.times])
        assert bool(seen.wrong) is wrong
        assert ("claims synced, is 25" in seen.example) is wrong


def test_who_says_that_it_is_not_synchronised_is_not_wrong() -> None:
    obs, truth = simulate(LIAR)
    speaker = Speaker(truth, 1)
    claims = [speaker.claim(*t, bound=0, synced=t[0] < truth.called) for t in speaker.times]
    claims = [replace(c, bound_ns=c.bound_ns if c.synced is False else S) for c in claims]
    seen = audited(obs, claims)
    assert seen.wrong == 0
    assert 5 * S < seen.unsynced_ns.low_ns < seen.unsynced_ns.high_ns < 6 * S + 600 * MS
    assert seen.judged == sum(c.synced is True for c in claims)


def test_without_looks_at_realtime_the_readings_around_tell() -> None:
    obs, truth = simulate(LIAR)
    speaker = Speaker(truth, 1)
    claims = [replace(speaker.claim(*t, bound=2 * MS), apart_ns=None) for t in speaker.times]
    seen = audited(obs, claims)
    assert seen.wrong == sum(t[0] > truth.resumed for t in speaker.times)


def test_what_is_not_known_is_not_judged() -> None:
    obs, truth = simulate(LIAR)
    speaker = Speaker(truth, 1)
    claims = [speaker.claim(*t, bound=2 * MS) for t in speaker.times]
    blind = replace(obs, readings=tuple(r for r in obs.readings if r.t1.raw_ns < truth.called))
    seen = audited(blind, claims)
    assert seen.judged < seen.claims
    assert seen.wrong == 0


def test_no_claims_no_audits() -> None:
    obs, _ = simulate(LIAR)
    assert measure(obs, ResyncMechanism.NONE, Expectations()).audits == ()
