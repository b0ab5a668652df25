"""Approvals: requests that start events, and those that are refused."""

from __future__ import annotations

import json

import pytest

from lab.core.scheduled.model import (
    Kind,
    State,
)
from lab.core.scheduled.requests import MOST_BODY_BYTES
from tests.unit.metadata_service import (
    ONE,
    OTHERS,
    Service,
    at,
    parsed,
)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Content-Type", "application/json"),),
        (("Content-Type", "application/x-www-form-urlencoded"),),
        (("Content-Type", "junk; \x00"), ("If-None-Match", "*")),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        {"StartRequests": [{"EventId": ONE}]},
        {"StartRequests": [{"EventId": ONE.lower(), "more": {}}], "DocumentIncarnation": 77, "x": [None]},
        {"StartRequests": [{"EventId": ONE}, {"EventId": ONE}]},
        b'\xef\xbb\xbf \r\n{"StartRequests" : [ {"EventId":"' + ONE.encode() + b'"} ] }\n',
    ],
)
def test_an_approval_starts_the_event_for_all(body: object, headers: tuple[tuple[str, str], ...]) -> None:
    service = Service()
    for _ in range(3):
        given = service.approve(body, *headers, guest="a1")
        assert (given.status, given.body) == (200, b"")
    (event,) = parsed(service.ask())["Events"]
    assert (event["EventStatus"], event["NotBefore"]) == ("Started", "")
    assert parsed(service.ask(guest="b0"))["Events"][0]["EventStatus"] == "Scheduled"
    happened = [(one.kind, one.guest) for one in service.machine.happened()]
    assert happened[:2] == [(Kind.APPROVED, "a1"), (Kind.STARTED, "")]


def test_to_approve_nothing_is_no_mistake() -> None:
    assert Service().approve({"StartRequests": []}).status == 200


def deep(levels: int) -> bytes:
    return b'{"StartRequests":[{"EventId":"%s"}],"x":%s%s}' % (ONE.encode(), b"[" * levels, b"]" * levels)


BAD = [
    b"",
    b" ",
    b"null",
    b"[]",
    b'"StartRequests"',
    b"{}",
    b'{"StartRequests":null}',
    b'{"StartRequests":{}}',
    b'{"StartRequests":{"EventId":"%s"}}' % ONE.encode(),
    b'{"StartRequests":"%s"}' % ONE.encode(),
    b'{"StartRequests":[null]}',
    b'{"StartRequests":["%s"]}' % ONE.encode(),
    b'{"StartRequests":[{}]}',
    b'{"StartRequests":[{"EventId":null}]}',
    b'{"StartRequests":[{"EventId":7}]}',
    b'{"StartRequests":[{"EventId":["%s"]}]}' % ONE.encode(),
    b'{"StartRequests":[{"EventId":"%s"},{}]}' % ONE.encode(),
    b'{"startrequests":[{"EventId":"%s"}]}' % ONE.encode(),
    b'{"StartRequests":[{"EventId":"%s"}]' % ONE.encode(),
    b'{"StartRequests":[{"EventId":"%s"}]} x' % ONE.encode(),
    b"{'StartRequests':[{'EventId':'%s'}]}" % ONE.encode(),
    b'{"StartRequests":[{"EventId":"%s"}],"x":NaN}' % ONE.encode(),
    b'{"StartRequests":[{"EventId":"%s"}],"x":%s}' % (ONE.encode(), b"9" * 5000),
    b'{"StartRequests":[{"EventId":"%s\xff"}]}' % ONE.encode(),
    json.dumps({"StartRequests": [{"EventId": ONE}]}).encode("utf-16"),
    json.dumps({"StartRequests": [{"EventId": ONE}]}).encode("utf-32"),
    b"StartRequests=" + ONE.encode(),
    deep(20_000),
    deep(10)[:-1] + b" " * MOST_BODY_BYTES + b"}",
    b"\x1f\x8b\x08" + bytes(100),
    # ids that are none of the group's
    b'{"StartRequests":[{"EventId":"%s"}]}' % OTHERS.encode(),
    b'{"StartRequests":[{"EventId":"%s"},{"EventId":"%s"}]}' % (ONE.encode(), OTHERS.encode()),
    b'{"StartRequests":[{"EventId":""}]}',
    b'{"StartRequests":[{"EventId":" %s"}]}' % ONE.encode(),
    b'{"StartRequests":[{"EventId":"{%s}"}]}' % ONE.encode(),
    b'{"StartRequests":[{"EventId":"\\ud800"}]}',
]


@pytest.mark.parametrize("body", BAD, ids=lambda body: repr(body[:40]))
def test_what_approves_nothing_that_is_there_is_refused_and_starts_nothing(body: bytes) -> None:
    service = Service()
    given = service.approve(body)
    assert given.status == 400 and list(parsed(given)) == ["error"]
    assert service.machine.state(ONE) is service.machine.state(OTHERS) is State.SCHEDULED
    assert [(one.guest, one.text[:3]) for one in service.refused()] == [("a0", "400")]


def test_a_body_may_be_as_large_as_the_limit() -> None:
    body = json.dumps({"StartRequests": [{"EventId": ONE}]}).encode()
    assert Service().approve(body.ljust(MOST_BODY_BYTES)).status == 200
    assert Service().approve(body.ljust(MOST_BODY_BYTES + 1)).status == 400


def test_what_is_over_cannot_be_approved() -> None:
    service = Service()
    service.machine.finish(at(1), ONE)
    assert service.approve({"StartRequests": [{"EventId": ONE}]}).status == 400
