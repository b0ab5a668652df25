"""The outage of simulated services that are out for a known time: its bounds, and the verdicts on it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.verdict import Outcome
from lab.core.workload.findings import workload_findings
from lab.core.workload.judge import WorkloadResult, WorkloadWindow, measure_workload
from lab.core.workload.outage import longest_outage
from lab.core.workload.sample import SampleClock, WorkloadRequest
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec
from tests.unit.simulated_workloads import LATEST, MS, START, Asking, S, Service, Span, heard, windows
from tests.unit.strategies import cases

BEGAN, ENDED = START + S, START + 31 * S


@dataclass(frozen=True)
class OutageCase:
    """A service, its client, and what the judge made of it."""

    service: Service
    client: Asking
    result: WorkloadResult
    window: WorkloadWindow

    @property
    def truth(self) -> int:
        """How long the service was out at most, within the window."""
        return max((self.within(span) for span in self.service.out), default=0)

    def within(self, span: Span) -> int:
        return max(0, min(span[1], self.window.ended_ns) - max(span[0], self.window.began_ns))

    @property
    def latency(self) -> int:
        """The longest that a request takes, and that its client is late by."""
        return 2 * self.service.one_way + 2 * self.client.tardy + LATEST


@st.composite
def outages(draw: st.DrawFn) -> tuple[Span, ...]:
    """None, one or two, of which the last may last beyond the end of the window, or have begun before."""
    found, at = [], START + draw(st.integers(0, 8 * S))
    for _ in range(draw(st.integers(0, 2))):
        length = draw(st.one_of(st.integers(1, 300 * MS), st.integers(300 * MS, 12 * S)))
        found.append((at, at + length))
        at += length + draw(st.integers(3 * S, 12 * S))
    return tuple(found)


services = st.builds(
    Service,
    outages(),
    st.sampled_from(["wait", "lost", "refused", "mixed"]),
    st.sampled_from([50_000, 2 * MS, 30 * MS]),
    st.sampled_from([200 * MS, S]),
)
clients = st.builds(
    Asking,
    st.sampled_from(["open", "late", "skipping", "gridded"]),
    st.sampled_from([50 * MS, 100 * MS, S]),
    st.sampled_from([0, MS, 15 * MS]),
    st.sampled_from([0, 0, 10]),
)
seeds = st.integers(0, 2**32)


def judged(
    service: Service, client: Asking, clock: SampleClock, seed: int, expect: WorkloadExpect | None = None
) -> OutageCase:
    luck = random.Random(seed)
    lines = client.lines(service, START, ENDED + 15 * S, luck)
    (window,) = windows(heard(lines, clock, luck), [BEGAN, ENDED], frozen=True)
    spec = WorkloadSpec("it", expect=expect or WorkloadExpect(), period_ns=client.period)
    (result,) = measure_workload([window], spec, MS)
    return OutageCase(service, client, result, window)


@given(services, clients, st.sampled_from(list(SampleClock)), seeds)
@cases(700)
def test_its_bounds_contain_how_long_the_service_was_out(
    service: Service, client: Asking, clock: SampleClock, seed: int
) -> None:
    case = judged(service, client, clock, seed)
    found = case.result.outage
    if found is None:
        assert not case.result.ok
        return
    assert found.low_ns <= case.truth + case.latency, "one latency belongs to it, and no more"
    assert case.truth <= found.high_ns + (LATEST if case.result.unended else 0)


@given(services, clients, st.sampled_from([40, 100, 100]), st.integers(-400 * MS, 400 * MS), seeds)
@cases(700)
def test_no_verdict_on_it_is_wrong(
    service: Service, client: Asking, share: int, beside: int, seed: int
) -> None:
    """The limit is close to the truth, on either side of it, or to a part of it."""
    longest = max((ended - began for began, ended in service.out), default=0)
    limit = max(1, longest * share // 100 + beside)
    case = judged(service, client, SampleClock.MONOTONIC_RAW, seed, WorkloadExpect(outage_ns=limit))
    spec = WorkloadSpec("it", expect=WorkloadExpect(outage_ns=limit))
    verdict = {one.metric: one.outcome for one in workload_findings(spec, case.result)}.get("outage")
    if verdict is Outcome.FAILED:
        assert case.truth + case.latency > limit
    if verdict is Outcome.PASSED:
        assert case.truth <= limit
        steps = 4 * max(client.period, service.timeout if client.kind != "open" else 0) + 3 * case.latency
        for began, ended in service.out:
            goes_on = began < case.window.ended_ns - steps - service.timeout and ended > case.window.ended_ns
            assert not (goes_on and ended - began > limit), "it was still out, and for longer than the limit"


@given(services, clients, seeds)
@cases(300)
def test_the_bounds_decide_where_the_limit_is_a_period_away(
    service: Service, client: Asking, seed: int
) -> None:
    """A client that sends each 100 ms decides all but 200 ms: what is inconclusive there would be a flaw."""
    case = judged(service, client, SampleClock.REALTIME, seed)
    found = case.result.outage
    if found is None or case.result.unended or any(began < BEGAN for began, _ in service.out):
        return
    step = client.period + case.latency
    if client.losses and client.kind != "open":
        step += client.period + service.timeout  # it waits for what is lost
    if service.fate == "lost" and client.kind != "open":
        step += 2 * service.timeout
    if not client.losses:
        assert found.high_ns <= case.truth + step + client.period + case.latency
    if service.fate != "mixed" and not client.losses and case.truth > 2 * step:
        assert found.low_ns >= case.truth - 2 * step - case.latency


@given(services, clients, st.integers(0, 20 * MS), st.integers(-300 * MS, 300 * MS), seeds)
@cases(150)
def test_beyond_the_pause_is_the_outage_less_the_pause_and_both_have_bounds(
    service: Service, client: Asking, around: int, beside: int, seed: int
) -> None:
    luck = random.Random(seed)
    lines = client.lines(service, START, ENDED + 15 * S, luck)
    pause = max((ended - began for began, ended in service.out), default=0)
    bounds = Interval(max(0, pause - luck.randrange(around + 1)), pause + luck.randrange(around + 1))
    (window,) = windows(
        heard(lines, SampleClock.REALTIME, luck), [START, ENDED + 16 * S], frozen=True, pause=bounds
    )
    limit = max(0, beside)
    spec = WorkloadSpec("it", expect=WorkloadExpect(beyond_pause_ns=limit))
    (result,) = measure_workload([window], spec, MS)
    case = OutageCase(service, client, result, window)
    assert result.beyond_pause is not None
    assert result.beyond_pause.low_ns <= case.latency
    assert result.beyond_pause.high_ns >= 0
    (verdict,) = (one.outcome for one in workload_findings(spec, result) if one.metric != "client")
    assert verdict is not Outcome.FAILED or limit < case.latency


def request(seq: int, sent: int, done: int, *, ok: bool = True) -> WorkloadRequest:
    return WorkloadRequest(seq, sent * MS, sent * MS, done * MS, ok)


def bounds(*requests: WorkloadRequest, until: int) -> tuple[int, int] | None:
    found = longest_outage(requests, 0, until * MS)
    return None if found is None else (found.length.low_ns // MS, found.length.high_ns // MS)


def test_the_clients_own_period_is_no_outage() -> None:
    requests = [request(seq, seq * 1000, seq * 1000 + 1) for seq in range(10)]
    assert bounds(*requests, until=10_000) == (1, 1001)


def test_one_success_has_bounds_and_none_has_not() -> None:
    assert bounds(request(1, 100, 101), until=1000) == (1, 900)
    assert bounds(request(1, 100, 101, ok=False), until=1000) is None
    assert bounds(until=1000) is None


def test_a_client_that_waits_until_the_end_has_printed_nothing_and_the_outage_is_unended() -> None:
    requests = [request(seq, seq * 100, seq * 100 + 1) for seq in range(10)]
    found = longest_outage(requests, 0, 9000 * MS)
    assert found is not None
    assert (found.length.high_ns, found.unended) == (8100 * MS, True)
    assert found.from_ns == 901 * MS


def test_a_request_that_was_overtaken_is_no_outage() -> None:
    """Its packet was lost and sent again; others were answered meanwhile."""
    requests = [request(seq, seq * 100, seq * 100 + 1) for seq in range(100)]
    requests[20] = request(20, 2000, 5000)
    found = bounds(*requests, until=10_000)
    assert found == (1, 201)


def test_two_lost_requests_with_successes_between_them_are_no_outage() -> None:
    requests = [request(seq, seq * 100, seq * 100 + 1, ok=seq not in (20, 40)) for seq in range(100)]
    assert bounds(*requests, until=10_000) == (1, 201)


def test_failures_one_after_another_are_one_outage_and_the_next_success_belongs_to_it() -> None:
    requests = [request(seq, seq * 100, seq * 100 + 1, ok=not 20 <= seq <= 40) for seq in range(100)]
    requests[41] = request(41, 4100, 4170)
    assert bounds(*requests, until=10_000) == (2070, 2270)


def test_a_request_from_the_cycle_before_counts_for_the_part_in_this_one() -> None:
    requests = [
        request(0, -5000, 2000),
        *[request(seq, 2000 + seq * 100, 2001 + seq * 100) for seq in range(1, 80)],
    ]
    assert bounds(*requests, until=10_000) == (2000, 2101)
