"""Latencies of clients that wait, against those of an ideal one that does not (coordinated omission); merged
histograms; and stamps that are wrong by a known and changing offset."""

from __future__ import annotations

import base64
import random

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.verdict import Outcome
from lab.core.workload.findings import outcome
from lab.core.workload.judge import measure_workload
from lab.core.workload.latency import Latencies, latencies_of, merged
from lab.core.workload.sample import SampleClock, WorkloadRequest
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec
from tests.unit.simulated_workloads import LATEST, MS, START, Asking, Printed, S, Service, heard, windows
from tests.unit.strategies import cases

seeds = st.integers(0, 2**32)
clocks = st.sampled_from(list(SampleClock))
ENDED = START + 20 * S


def latencies(kind: str, service: Service, clock: SampleClock, seed: int, *, period: int | None) -> Latencies:
    luck = random.Random(seed)
    lines = Asking(kind, tardy=MS // 50).lines(service, START, ENDED, luck)
    (window,) = windows(heard(lines, clock, luck), [START, ENDED + 99 * S])
    found = latencies_of(window.requests, ENDED, period)
    assert found is not None
    return found


@given(st.sampled_from(["late", "skipping", "gridded"]), st.integers(0, 12 * S), clocks, seeds)
@cases(200)
def test_a_client_that_waits_shows_what_one_that_does_not_wait_shows(
    kind: str, out: int, clock: SampleClock, seed: int
) -> None:
    """Its quantiles are those of the open client, but for a period or two, and the histogram's 3 digits."""
    period = 100 * MS
    service = Service(((START + 4 * S, START + 4 * S + out),))
    ideal = latencies("open", service, clock, seed, period=None)
    waits = latencies(kind, service, clock, seed, period=period)
    near = 3 * period + out // 100
    assert abs(waits.p50_ns - ideal.p50_ns) <= near
    assert abs(waits.p99_ns - ideal.p99_ns) <= near
    assert abs(waits.max_ns - ideal.max_ns) <= near
    assert abs(waits.count + waits.filled - ideal.count) <= 2
    assert (waits.late_p50_ns is None) == (kind == "skipping")
    assert latencies("open", service, clock, seed, period=period).filled == 0


def test_without_a_period_a_client_that_leaves_requests_out_hides_the_outage() -> None:
    """This is what the correction is for: 40 of 200 would have waited up to 4 s, and one did."""
    service = Service(((START + 4 * S, START + 8 * S),))
    hidden = latencies("skipping", service, SampleClock.REALTIME, 1, period=None)
    corrected = latencies("skipping", service, SampleClock.REALTIME, 1, period=100 * MS)
    ideal = latencies("open", service, SampleClock.REALTIME, 1, period=None)
    assert hidden.p99_ns < 10 * MS
    assert ideal.p99_ns > 3 * S
    assert corrected.p99_ns == pytest.approx(ideal.p99_ns, abs=200 * MS)


def one(seq: int, due: int, done: int, *, ok: bool = True) -> WorkloadRequest:
    return WorkloadRequest(seq, START + due, START + due, START + done, ok)


def decoded(latencies: Latencies) -> HdrHistogram:
    return HdrHistogram.decode(latencies.histogram)


@given(st.lists(st.integers(2000, 50 * S), min_size=1, max_size=20), st.integers(10 * MS, 3 * S))
@cases(100)
def test_what_is_filled_in_is_what_hdrhistogram_fills_in(values: list[int], period: int) -> None:
    """Requests with nothing else sent during them: recordValueWithExpectedInterval, to the last bucket."""
    reference, requests, at = HdrHistogram(1000, 3600 * S, 3), [], 0
    for seq, value in enumerate(values):
        requests.append(one(seq, at, at + value))
        reference.record_corrected_value(value, period)
        at += value + period
    found = latencies_of(requests, ENDED, period)
    assert found is not None
    own = decoded(found)
    assert own.get_total_count() == found.count + found.filled
    assert abs(own.get_total_count() - reference.get_total_count()) <= 0
    for share in (10, 50, 90, 99, 100):
        mine, theirs = own.get_value_at_percentile(share), reference.get_value_at_percentile(share)
        assert mine == pytest.approx(theirs, rel=0.002, abs=2000)


def test_a_client_that_gives_a_period_of_a_nanosecond_makes_nobody_wait() -> None:
    found = latencies_of([one(1, 0, 3000 * S)], ENDED, 1)
    assert found is not None
    assert found.filled == 3000 * S - 1
    assert found.p50_ns == pytest.approx(1500 * S, rel=0.01)


@given(st.lists(st.lists(st.integers(1, 4000 * S), max_size=30), max_size=5))
@cases(100)
def test_merged_histograms_are_those_of_all_requests_together(several: list[list[int]]) -> None:
    """In whole cycles and in any order, with cycles that have none."""
    parts = [latencies_of([one(i, 0, v) for i, v in enumerate(values)], ENDED) for values in several]
    whole = latencies_of([one(i, 0, v) for i, v in enumerate(v for part in several for v in part)], ENDED)
    together, turned = merged(parts), merged(parts[::-1])
    if whole is None or together is None or turned is None:
        assert (whole, together, turned) == (None, None, None)
        return
    assert (together.count, together.max_ns) == (whole.count, whole.max_ns)
    assert (
        (together.p50_ns, together.p99_ns) == (whole.p50_ns, whole.p99_ns) == (turned.p50_ns, turned.p99_ns)
    )
    assert decoded(together).equals(decoded(whole))


def test_what_is_no_histogram_is_a_value_error() -> None:
    good = latencies_of([one(1, 0, 5000)], ENDED)
    assert good is not None
    for text in ("", "x", "HISTFAAA", base64.b64encode(b"\x1c\x84\x93\x14\0\0\0\5hello").decode()):
        with pytest.raises(ValueError, match="no HdrHistogram"):
            merged([good, Latencies(1, 1, 1, 1, text)])


def test_the_clients_own_lateness_is_that_before_the_pause() -> None:
    before = [
        WorkloadRequest(i, START + i, START + i + 5 * MS, START + i + 6 * MS, ok=True) for i in range(9)
    ]
    after = [WorkloadRequest(9, START + S, START + 9 * S, START + 9 * S + 1, ok=True)]
    found = latencies_of(before + after, START + S)
    assert found is not None
    assert (found.late_p50_ns, found.late_p99_ns) == (5 * MS, 5 * MS)


# Stamps


@given(
    st.integers(-8 * S, 8 * S),
    st.integers(0, 6 * S),
    st.sampled_from(["step", "slew", "two steps"]),
    st.sampled_from([MS, 50 * MS]),
    st.sampled_from([200_000, 4 * MS, 80 * MS]),
    clocks,
    seeds,
)
@cases(800)
def test_stamps_are_wrong_where_the_guests_clock_was_and_no_verdict_on_them_is(
    off: int, repaired: int, how: str, tolerance: int, latency: int, clock: SampleClock, seed: int
) -> None:
    """The guest is off by `off` from the resume until it is repaired, at once or bit by bit."""
    luck = random.Random(seed)
    stop, resume = START + 3 * S, START + 6 * S

    def offset(at: int) -> int:
        since = at - resume
        if since < 0 or since >= repaired:
            return 0
        left = repaired - since
        return {
            "step": off,
            "slew": off * left // repaired,
            "two steps": off if 2 * left > repaired else off // 9,
        }[how]

    lines, offsets, sent = list[Printed](), dict[int, int](), START
    for seq in range(150):
        sent += 100 * MS
        instant = sent + luck.randrange(latency)
        if stop <= instant < resume:
            instant = resume + luck.randrange(MS)
        done = instant + luck.randrange(latency)
        offsets[seq] = offset(instant)
        stamp = instant + 1_790_000_000 * S + offsets[seq]
        lines.append(Printed(done, {"seq": seq, "sent": sent, "done": done, "ok": True, "stamp": stamp}))
    paused = Interval(stop - luck.randrange(1, MS), resume + luck.randrange(1, MS))
    (window,) = windows(
        heard(lines, clock, luck),
        [START, START + 30 * S],
        frozen=True,
        paused=paused,
        pause=Interval(0, 9 * S),
    )
    spec = WorkloadSpec("it", expect=WorkloadExpect(wrong_stamps=luck.randrange(3)))
    (result,) = measure_workload([window], spec, tolerance)
    stale, limit = result.stale, spec.expect.wrong_stamps
    assert stale is not None
    assert limit is not None
    after = [one.seq for one in window.requests if one.sent_ns >= paused.high_ns]
    errors = [offsets[seq] for seq in after]
    truth = sum(abs(error) > tolerance for error in errors)
    assert stale.stamped == len(after)
    assert stale.wrong <= truth <= stale.wrong + stale.undecided
    assert abs(stale.worst_ns) <= max(map(abs, errors))
    assert stale.worst_ns * off >= 0
    if stale.wrong:
        assert abs(stale.worst_ns) >= max(map(abs, errors)) - 2 * latency
        assert stale.last_ns is not None
        assert stale.last_ns <= repaired + 2 * latency + LATEST
    if 2 * latency < tolerance:
        assert stale.undecided <= sum(abs(abs(error) - tolerance) <= 2 * latency for error in errors)
    verdict = outcome(spec, result)
    assert verdict is not Outcome.PASSED or truth <= limit
    assert verdict is not Outcome.FAILED or truth > limit
