"""Whatever is sent, the answer is one of the contract's, nothing breaks, and no other group notices.

FREEZELAB_HYPOTHESIS=20000 sends as many random series of requests.
"""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.scheduled.requests import MOST_BODY_BYTES, Request, answer
from tests.unit.metadata_service import (
    ABOUTS,
    EVENTS,
    GROUPS,
    INSTANCE,
    META,
    NEWEST,
    OLD,
    ONE,
    OTHERS,
    Service,
    at,
    parsed,
)

CASES = int(os.environ.get("FREEZELAB_HYPOTHESIS", "0")) or 250
cases = settings(max_examples=CASES, deadline=None, derandomize=CASES == 250, database=None)

words = st.sampled_from(
    (
        "metadata",
        "scheduledevents",
        "instance",
        "versions",
        "compute",
        "name",
        "network",
        "0",
        "..",
        "",
        "%2e",
    )
)
paths = st.one_of(
    st.sampled_from([EVENTS, EVENTS, EVENTS, INSTANCE]),
    st.lists(st.one_of(words, st.text(max_size=2)), max_size=6).map(lambda some: "/" + "/".join(some)),
    st.text(max_size=30),
)
queries = st.one_of(
    st.sampled_from(
        [NEWEST, NEWEST, OLD, "", f"{NEWEST}&{NEWEST}", "api-version=2017-03-01", f"{OLD}&format=text"]
    ),
    st.text(alphabet="api-version=2020-07-01&%;+format", max_size=60),
    st.text(max_size=40),
)
names = st.sampled_from(
    [
        "Metadata",
        "metadata",
        "METADATA",
        "X-Forwarded-For",
        "If-None-Match",
        "Content-Type",
        "Transfer-Encoding",
        "\x00",
    ]
)
values = st.one_of(st.sampled_from(["true", "True", "*", '"2"', 'W/"1","2"', ""]), st.text(max_size=20))
headers = st.one_of(
    st.just(META), st.lists(st.tuples(names, values), max_size=4).map(tuple), st.lists(
        st.tuples(names, values), max_size=3).map(lambda some: (*META, *some))
)  # fmt: skip
junk: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from([ONE, OTHERS])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["StartRequests", "EventId", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)
approvals = st.lists(
    st.sampled_from([ONE, OTHERS, ONE.lower(), "", "x"]).map(lambda one: {"EventId": one}), max_size=4
).map(lambda some: {"StartRequests": some})
bodies = st.one_of(
    st.binary(max_size=80),
    st.one_of(junk, approvals).map(lambda made: json.dumps(made).encode()),
    approvals.map(lambda made: json.dumps(made).encode()[:-2]),
    st.integers(0, 3 * MOST_BODY_BYTES).map(lambda size: b"[" * size),
    st.integers(0, 2).map(lambda more: b" " * (MOST_BODY_BYTES - 1 + more) + b"1"),
)
requests = st.builds(
    Request,
    verb=st.one_of(
        st.sampled_from(["GET", "GET", "POST", "POST", "POST", "HEAD", "PUT"]), st.text(max_size=8)
    ),
    path=paths,
    query=queries,
    headers=headers,
    body=bodies,
)


@cases
@given(st.lists(st.tuples(st.sampled_from(sorted(GROUPS)), requests), min_size=1, max_size=8))
def test_nothing_that_is_sent_breaks_anything_or_reaches_another_group(
    sent: list[tuple[str, Request]],
) -> None:
    service = Service()
    for guest, request in sent:
        before = {other: service.machine.shown(at(1), other) for other in GROUPS}
        given = answer(service.machine, ABOUTS, guest, at(1), request)
        assert given.status in (200, 304, 400, 404, 405)
        assert not given.never
        if given.status >= 400 and request.verb != "HEAD":
            assert isinstance(parsed(given)["error"], str)
        if given.status != 200:
            assert {other: service.machine.shown(at(1), other) for other in GROUPS} == before
        assert (OTHERS if GROUPS[guest] == "a" else ONE).encode() not in given.body
        for other, group in GROUPS.items():
            assert group == GROUPS[guest] or service.machine.shown(at(1), other) == before[other]
        if b"StartRequests" in given.body:
            assert given.status == 400
    assert {one.guest for one in service.refused()} <= {guest for guest, _ in sent}
