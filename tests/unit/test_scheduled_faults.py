"""Deliberate faults of the metadata service, late answers, and the rate limit."""

from __future__ import annotations

import pytest

from lab.core.scheduled.model import (
    Fault,
    Kind,
    Late,
    Recorded,
    Rules,
    State,
)
from tests.unit.metadata_service import (
    ABOUTS,
    EVENTS,
    INSTANCE,
    META,
    NEWEST,
    OLD,
    ONE,
    S,
    Service,
    at,
    header,
    ids,
    parsed,
)


def test_faults_are_for_events_only_and_for_one_guest() -> None:
    service = Service()
    service.machine.fail(at(1), ["a0"], [Fault.GONE, Fault.TOO_MANY, Fault.BROKEN, Fault.HANG])
    assert ids(service.ask(guest="a1")) == [ONE]
    assert service.ask(INSTANCE, OLD).status == 200
    assert service.ask(headers=()).status == 400
    assert service.ask().status == 410
    assert service.approve({"StartRequests": [{"EventId": ONE}]}).status == 429
    assert service.machine.state(ONE) is State.SCHEDULED
    broken = service.ask()
    assert broken.status == 500 and parsed(broken)["error"]
    hung = service.ask()
    assert hung.never and hung.body == b""
    assert ids(service.ask()) == [ONE]
    assert [one.text.split(":")[0] for one in service.refused()] == ["400", "410", "429", "500", "hang"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.NOT_FOUND, "Not found. The requested element does not exist"),
        (Fault.GONE, "Gone. Retry after some time for a max of 70 seconds"),
        (Fault.TOO_MANY, "Too many requests. API rate limits have been exceeded"),
        (Fault.BROKEN, "Service error. Retry after some time"),
    ],
)
def test_errors_on_purpose_are_worded_as_documented(fault: Fault, said: str) -> None:
    service = Service()
    service.machine.fail(at(1), ["a0"], [fault])
    given = service.ask()
    assert (given.status, parsed(given)) == (int(fault), {"error": said})


def test_documents_are_spoilt_on_purpose_and_then_true_again() -> None:
    service = Service()
    true = service.ask()
    spoilt = [Fault.EMPTY, Fault.PLAIN, Fault.NO_EVENTS, Fault.NONE, Fault.TRUNCATED]
    service.machine.fail(at(1), ["a0"], [*spoilt, Recorded("d.json", '{"Resources": ["$NAME"]}')])
    empty, plain, without, truth, cut, recorded = [service.ask() for _ in range(6)]
    assert (empty.status, empty.body) == (200, b"")
    assert (plain.body, header(plain, "Content-Type")) == (true.body, "text/plain; charset=utf-8")
    assert parsed(without) == {"DocumentIncarnation": 2}
    assert truth == true
    assert (cut.body, cut.cut_at) == (true.body, len(true.body) // 2)
    assert parsed(recorded) == {"Resources": [ABOUTS["a0"].name]}
    assert service.ask() == true
    assert [one.text.split(":")[0] for one in service.refused()] == [
        "empty", "plain", "no-events", "truncated", "document d.json",
    ]  # fmt: skip


def test_a_spoilt_document_is_not_seen_and_waits_for_a_poll() -> None:
    service = Service()
    service.machine.fail(at(1), ["a0"], [Fault.EMPTY, Fault.NO_EVENTS, Fault.TRUNCATED, Recorded("d", "{}")])
    for _ in range(2):
        assert service.approve({"StartRequests": []}).status == 200
        service.ask(headers=(*META, ("If-None-Match", "*")))
    service.ask()
    service.ask()
    kinds = [one.kind for one in service.machine.happened()]
    assert Kind.SEEN not in kinds
    assert kinds.count(Kind.REFUSED) == 4
    service.ask()
    assert [one.kind for one in service.machine.happened()] == [Kind.SEEN]


def test_a_late_answer_is_the_truth_of_when_it_was_asked_for() -> None:
    service = Service(Rules(first_answer_s=120), announced=False)
    service.machine.fail(at(1), ["a0"], [Late(S), Late(5 * S), Late(5 * S)])
    assert service.ask().after_ns == 2 * S, "the first answer is later still"
    service.now = 10.0
    assert (service.ask().after_ns, service.ask().status) == (5 * S, 200)
    assert service.ask().after_ns == 0
    assert not service.refused()


def test_the_first_answer_is_late_and_a_sixth_in_a_second_is_too_many() -> None:
    service = Service(Rules(first_answer_s=120, most_per_second=5), announced=False)
    given = [service.ask() for _ in range(6)]
    assert [(one.status, one.after_ns) for one in given] == [(200, 2 * S)] * 5 + [(429, 0)]
    service.now = 2
    late = service.approve({"StartRequests": [{"EventId": ONE}]})
    assert (late.status, late.after_ns) == (400, S)
    assert service.ask(INSTANCE, OLD).after_ns == 0


def test_what_is_asked_of_the_machine_counts_against_the_rate_as_well() -> None:
    service = Service(Rules(most_per_second=5), announced=False)
    paths = [(INSTANCE, OLD), (EVENTS, NEWEST), ("/metadata/versions", "")] * 2
    assert [service.ask(path, query).status for path, query in paths] == [200] * 5 + [429]
    assert service.ask(INSTANCE, OLD).status == 429 == service.ask().status
    assert service.ask(INSTANCE, OLD, guest="a1").status == 200
    assert [(one.guest, one.text) for one in service.refused()] == [("a0", "429: over the rate")] * 3
    assert service.ask(INSTANCE, "").status == 400  # what is out of order does not count
    service.now = 2
    assert service.ask(INSTANCE, OLD).status == 200
