"""Whatever is sent to the metadata of another cloud, there is an answer of its contract, and no guest gets
what is another's.

FREEZELAB_HYPOTHESIS=20000 sends as many random series of requests.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.announcement import groups_of
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.ec2 import ImdsOptions
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import EventType, Kind, Notice, Rules
from lab.core.scheduled.requests import Request
from tests.unit.metadata_service import ONE, S, at

CASES = int(os.environ.get("FREEZELAB_HYPOTHESIS", "0")) or 200
cases = settings(max_examples=CASES, deadline=None, derandomize=CASES == 200, database=None)

STATUSES = {200, 301, 400, 401, 403, 404, 405, 429, 503}
ABOUTS = {guest: InstanceInfo(guest, guest, "", "size", mac="52:54:00:00:00:01") for guest in ("a", "b")}
PATHS = (
    "/", "/computeMetadata/v1/", "/computeMetadata/v1/instance/maintenance-event",
    "/computeMetadata/v1/instance/upcoming-maintenance", "/computeMetadata/v1/instance/network-interfaces/0/",
    "/latest/meta-data/", "/latest/api/token", "/latest/meta-data/events/maintenance/scheduled",
    "/latest/meta-data/spot/instance-action", "/latest/dynamic/instance-identity/document",
)  # fmt: skip
NAMES = (
    "Metadata-Flavor", "X-Google-Metadata-Request", "X-Forwarded-For", "Host",
    "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds",
)  # fmt: skip

words = st.sampled_from(
    ("computeMetadata", "v1", "latest", "meta-data", "events", "0", "..", "", "%2e", "-1")
)
paths = st.one_of(
    st.sampled_from(PATHS),
    st.lists(st.one_of(words, st.text(max_size=2)), max_size=6).map(lambda some: "/" + "/".join(some)),
    st.text(max_size=30),
)
queries = st.one_of(
    st.sampled_from(["", "recursive=true", "alt=json", "alt=text&recursive=true", "wait_for_change=true"]),
    st.text(alphabet="wait_for_change=truelast_etagtimeout_sec0123456789&%;+", max_size=60),
    st.text(max_size=40),
)
values = st.one_of(st.sampled_from(["Google", "true", "60", "AAAA", ""]), st.text(max_size=20))
headers = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=4).map(
    lambda some: (("Metadata-Flavor", "Google"), *some)
)
verbs = st.sampled_from(("GET", "GET", "HEAD", "PUT", "POST", "DELETE", "get", ""))
requests = st.builds(Request, verbs, paths, queries, headers, st.binary(max_size=20))


@pytest.mark.parametrize("cloud", [Cloud.GCE, Cloud.EC2])
@cases
@given(asked=st.lists(st.tuples(st.sampled_from("ab"), requests), min_size=1, max_size=8))
def test_there_is_an_answer_to_everything(cloud: Cloud, asked: list[tuple[str, Request]]) -> None:
    groups = groups_of(ABOUTS.values(), cloud)
    machine = Machine(groups, Rules(time_factor=1, enabling=cloud.traits.enabling))
    answers = CloudAnswers(cloud, ImdsOptions(secret=b"secret"))
    machine.admit(at(0), "a")
    machine.announce(at(0), Notice(groups["a"], ("a",), EventType.FREEZE, 60 * S, 5, "x"), ONE)
    for second, (guest, request) in enumerate(asked):
        given = answers.answer(machine, ABOUTS, guest, at(second), request)
        if given.again is not None:
            given = answers.answer(machine, ABOUTS, guest, at(second), given.again)
        assert given.again is not None or given.status in STATUSES
        location = dict(given.headers).get("Location", "")
        assert location.isascii() and (location.isprintable() or not request.query.isprintable())
        if guest == "b":
            assert b"MIGRATE_ON" not in given.body
            assert b"instance-event" not in given.body
    assert {one.guest for one in machine.happened() if one.kind is Kind.SEEN} <= {"a"}
