"""Messages that were lost, came twice, out of order or in doubt, in known sets; and clients that lie about
their numbers."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from lab.core.verdict import Outcome
from lab.core.workload.findings import outcome
from lab.core.workload.judge import WorkloadWindow, measure_workload
from lab.core.workload.ledger import ledgers
from lab.core.workload.numbers import number_problems
from lab.core.workload.sample import SampleClock, WorkloadDelivery, WorkloadRequest
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec
from tests.unit.simulated_workloads import MS, START, Asking, Printed, S, Service, heard, windows
from tests.unit.strategies import cases

PERIOD, ENDED = 100 * MS, START + 9 * S
SPEC = WorkloadSpec("it", delivers=True, expect=WorkloadExpect(lost=0, twice=0))
seeds = st.integers(0, 2**32)
clocks = st.sampled_from(list(SampleClock))


@dataclass(frozen=True)
class Message:
    """A message, when it was sent and over, whether it was acknowledged, and when it arrived, each time."""

    seq: int
    sent: int
    done: int
    acked: bool
    arrivals: tuple[int, ...]

    def lines(self) -> list[Printed]:
        line = {"seq": self.seq, "sent": self.sent, "done": self.done, "ok": self.acked}
        found = [Printed(self.done, line)]
        return found + [Printed(at, {"got": self.seq, "at": at, "by": "c"}) for at in self.arrivals]


def messages(luck: random.Random, rare: int) -> list[Message]:
    """One of `rare` each is lost, doubled, late, or in doubt. Numbers begin beyond 2**53. A message may
    arrive before its acknowledgement, and some come again seconds later, in another cycle."""
    found = []
    for number in range((ENDED - START) // PERIOD):
        sent = START + number * PERIOD + luck.randrange(MS)
        done = sent + luck.choice([MS, 5 * MS, 700 * MS]) + luck.randrange(MS)
        arrivals = [sent + luck.randrange(3 * MS)] if luck.randrange(rare) else []
        if arrivals and not luck.randrange(rare):
            arrivals[0] += luck.randrange(1500 * MS)
        if arrivals and not luck.randrange(rare):
            arrivals += [arrivals[0] + luck.randrange(5 * S) for _ in range(luck.randrange(1, 3))]
        acked = bool(luck.randrange(rare))
        found.append(Message(2**53 + 1 + number, sent, done, acked, tuple(sorted(arrivals))))
    return found


@given(st.sampled_from([3, 10, 400]), st.integers(1, 3), clocks, seeds)
@cases(800)
def test_what_was_lost_doubled_or_in_doubt_is_what_was(
    rare: int, cycles: int, clock: SampleClock, seed: int
) -> None:
    luck = random.Random(seed)
    sent = messages(luck, rare)
    lines = [line for message in sent for line in message.lines()]
    cuts = [START, *sorted(luck.sample(range(START + S, ENDED - S, MS), cycles - 1)), ENDED]
    heard_of = heard(lines, clock, luck)
    cut = windows(heard_of, cuts, frozen=True)
    books = [result.ledger for result in measure_workload(cut, SPEC, MS)]
    requests = {one.seq: one for window in cut for one in window.requests}
    arrived = [one.seq for window in cut for one in window.deliveries]
    known = [seq for seq in arrived if seq in requests]
    grace = ENDED - SPEC.grace_ns
    lost = {m.seq for m in sent if m.seq in requests and m.acked and m.seq not in arrived}
    undecided = {seq for seq in lost if requests[seq].done_ns > grace}
    doubt = {m.seq for m in sent if m.seq in requests and not m.acked and m.seq in arrived}

    def total(name: str) -> int:
        return sum(getattr(book, name) for book in books)

    assert total("acknowledged") == sum(one.ok for one in requests.values())
    assert total("lost") == len(lost - undecided)
    assert total("undecided") == len(undecided)
    assert total("in_doubt") == len(doubt)
    assert total("delivered") == len(set(known))
    seen, twice, between = set[int](), 0, 0
    for window in cut:
        for one in sorted((d for d in window.deliveries if d.seq in requests), key=lambda d: d.at_ns):
            again = one.seq in seen
            twice += again and one.at_ns >= window.began_ns
            between += again and one.at_ns < window.began_ns
            seen.add(one.seq)
    assert (total("twice"), total("between")) == (twice, between)
    assert twice + between == len(known) - len(set(known))
    assert total("unknown") == len(arrived) - len(known)
    never = {m.seq for m in sent if m.acked and not m.arrivals}
    assert {m.seq for m in sent} >= lost - undecided <= never, "what arrives later than the end is not lost"


@given(st.sampled_from([3, 30, 400]), seeds)
@cases(400)
def test_no_verdict_on_losses_is_wrong(rare: int, seed: int) -> None:
    luck = random.Random(seed)
    sent = messages(luck, rare)
    (cut,) = windows(
        heard([line for m in sent for line in m.lines()], SampleClock.REALTIME, luck),
        [START, ENDED],
        frozen=True,
    )
    for limit in (0, 1, 3):
        spec = replace(SPEC, expect=WorkloadExpect(lost=limit))
        (result,) = measure_workload([cut], spec, MS)
        known = {one.seq for one in cut.requests}
        truth = sum(m.acked and not m.arrivals and m.seq in known for m in sent)
        verdict = outcome(spec, result)
        if verdict is Outcome.PASSED:
            assert truth <= limit
        if verdict is Outcome.FAILED:
            assert truth > limit


def request(seq: int, sent: int, done: int, *, ok: bool = True) -> WorkloadRequest:
    return WorkloadRequest(seq, START + sent, START + sent, START + done, ok)


def got(seq: int, at: int, by: str = "") -> WorkloadDelivery:
    return WorkloadDelivery(seq, START + at, by)


def test_a_delivery_in_a_later_cycle_or_before_its_requests_line_is_no_loss() -> None:
    first = [request(1, 0, 1), request(2, 2, 3), request(3, 4, 5)]
    books = ledgers([(first, [got(1, 1)], START), ([], [got(2, 9), got(1, 9)], START)], START + 100, 2)
    assert [(book.lost, book.delivered, book.twice) for book in books] == [(1, 1, 0), (0, 1, 1)]
    books = ledgers([([], [got(1, 1)], START), (first, [], START)], START + 100, 2)
    assert [(book.unknown, book.delivered, book.lost) for book in books] == [(0, 1, 0), (0, 0, 2)]


def test_a_number_that_nobody_sent_does_not_disorder_those_after_it() -> None:
    (book,) = ledgers(
        [([request(1, 0, 1), request(2, 2, 3)], [got(999, 1), got(1, 2), got(2, 3)], START)], START + 9, 1
    )
    assert (book.unknown, book.disordered) == (1, 0)
    (book,) = ledgers([([request(1, 0, 1), request(2, 2, 3)], [got(2, 2), got(1, 3)], START)], START + 9, 1)
    assert book.disordered == 1
    (book,) = ledgers(
        [([request(1, 0, 1), request(2, 2, 3)], [got(2, 2, "x"), got(1, 3, "y")], START)], START + 9, 1
    )
    assert book.disordered == 0


# Numbers


@given(
    st.sampled_from(["open", "late", "skipping", "gridded"]),
    st.sampled_from(["wait", "mixed"]),
    st.integers(0, 8 * S),
    st.sampled_from(["", "repeats", "restarts", "goes back"]),
    clocks,
    seeds,
)
@cases(500)
def test_a_client_that_repeats_its_numbers_or_goes_back_is_not_believed(
    kind: str, fate: str, out: int, lie: str, clock: SampleClock, seed: int
) -> None:
    """Requests of an honest one are over in any order, and are never taken for a lie."""
    luck = random.Random(seed)
    service = Service(((START + S, START + S + out),), fate)
    lines = Asking(kind).lines(service, START, ENDED, luck)
    if len(lines) < 12:
        return
    place = luck.randrange(6, len(lines) - 2)
    if lie == "repeats":
        lines[place] = Printed(lines[place].at, {**lines[place].line, "seq": place - luck.randrange(1, 6)})
    elif lie == "restarts":
        lines[place:] = [Printed(one.at, {**one.line, "seq": at}) for at, one in enumerate(lines[place:])]
    elif lie == "goes back":
        lines = [Printed(one.at, {**one.line, "seq": 10_000 - at}) for at, one in enumerate(lines)]
    cut = windows(heard(lines, clock, luck), [START, START + 4 * S, ENDED + 9 * S], frozen=True)
    wrong = number_problems([window.requests for window in cut])
    assert any(wrong) == bool(lie)
    for result, problems in zip(measure_workload(cut, SPEC, MS), wrong, strict=True):
        assert result.problems == problems
        if problems:
            assert outcome(SPEC, result) is Outcome.INCONCLUSIVE


def test_a_lie_in_one_cycle_leaves_the_others_as_they_are() -> None:
    cycles = [[request(1, 0, 1), request(2, 2, 3)], [request(2, 10, 11)], [request(3, 20, 21)]]
    first, second, third = number_problems(cycles)
    assert (first, third) == ((), ())
    assert second == ("1 request came with a number that came before, the first 2",)
    cycles = [[request(5, 0, 1)], [request(4, 10, 11), request(6, 10, 11)]]
    assert number_problems(cycles)[1] == ("1 request came with a lower number than before, the first 4",)


def test_requests_that_are_under_way_together_may_have_any_order() -> None:
    assert number_problems([[request(5, 0, 10), request(4, 1, 2), request(6, 3, 4)]]) == [()]
    assert number_problems([[request(5, 0, 1), request(4, 2, 3)]]) != [()]


def test_what_was_over_before_the_cycle_began_counts_in_the_ledger_only() -> None:
    cut = WorkloadWindow(
        0, START + 50, START + 100 + 9 * S, [request(1, 0, 1, ok=False), request(2, 60, 61)],
        [got(1, 2), got(2, 62)], frozen=True,
    )  # fmt: skip
    (result,) = measure_workload([cut], SPEC, MS)
    assert (result.requests, result.failed) == (1, 0)
    assert result.ledger is not None
    assert (result.ledger.in_doubt, result.ledger.delivered) == (1, 2)


def test_what_comes_twice_while_a_cycle_is_prepared_is_not_held_against_it() -> None:
    """The preparation, such as a leader's election, has the same effects as a freeze."""
    requests = [request(1, 0, 1), request(2, 60, 61)]
    deliveries = [got(1, 2), got(1, 30), got(1, 40), got(2, 62)]
    cut = WorkloadWindow(0, START + 50, START + 100 + 9 * S, requests, deliveries, frozen=True)
    (result,) = measure_workload([cut], SPEC, MS)
    assert result.ledger is not None
    assert (result.ledger.twice, result.ledger.between) == (0, 2)
    assert outcome(SPEC, result) is not Outcome.FAILED
    (result,) = measure_workload([replace(cut, deliveries=[*deliveries, got(2, 70)])], SPEC, MS)
    assert outcome(SPEC, result) is Outcome.FAILED
