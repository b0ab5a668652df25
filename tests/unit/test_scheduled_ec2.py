"""EC2's instance metadata: session tokens, events, and what each request is answered."""

from __future__ import annotations

import base64
import json

import pytest

from lab.core.announcement import groups_of
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.ec2 import ImdsOptions
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import EventType, Fault, Kind, Notice, Rules, State
from lab.core.scheduled.requests import Answer, Request
from tests.unit.metadata_service import ONE, OTHERS, S, at, header

META = "/latest/meta-data"
SCHEDULED, HISTORY = f"{META}/events/maintenance/scheduled", f"{META}/events/maintenance/history"
SPOT = (
    f"{META}/spot/instance-action",
    f"{META}/spot/termination-time",
    f"{META}/events/recommendations/rebalance",
)
TOKEN, TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"
UUID = "0f5c62f1-21b6-4f0f-9c2e-111111111111"
MAC = "52:54:00:00:00:01"
ABOUTS = {
    guest: InstanceInfo(
        guest,
        guest,
        UUID,
        "lab",
        availability_set="web",
        mac=MAC,
        address="10.0.0.4",
        public_key="ssh-ed25519 x",
    )
    for guest in ("web-0", "web-1")
}

Headers = tuple[tuple[str, str], ...]


class Site:
    """Two guests of a set, at a time factor of 1. ask: at second `now`."""

    def __init__(self, v1: bool = True, rate: int = 0) -> None:
        self.groups = groups_of(ABOUTS.values(), Cloud.EC2)
        rules = Rules(time_factor=1, most_per_second=rate, enabling=Cloud.EC2.traits.enabling)
        self.machine, self.now = Machine(self.groups, rules), 0.0
        self.answers = CloudAnswers(Cloud.EC2, ImdsOptions(v1, hop_limit=2, secret=b"secret"))

    def ask(
        self, path: str = SCHEDULED, headers: Headers = (), *, verb: str = "GET", guest: str = "web-0"
    ) -> Answer:
        request = Request(verb, path, "", headers)
        return self.answers.answer(self.machine, ABOUTS, guest, at(self.now), request)

    def token(self, ttl: str = "21600", guest: str = "web-0", path: str = "/latest/api/token") -> Answer:
        return self.ask(path, ((TTL, ttl),), verb="PUT", guest=guest)

    def announce(self, kind: EventType = EventType.FREEZE, event: str = ONE, description: str = "x") -> State:
        notice = Notice(self.groups["web-0"], ("web-0",), kind, 900 * S, 5, description)
        return self.machine.announce(at(self.now), notice, event)

    def events(self, path: str = SCHEDULED, guest: str = "web-0") -> list[dict[str, str]]:
        given = self.ask(path, guest=guest)
        assert given.status == 200
        return list(json.loads(given.body))


# -- events ------------------------------------------------------------------------------------------


def test_an_event_from_its_announcement_to_history() -> None:
    site = Site()
    assert site.announce(EventType.REBOOT, description="scheduled reboot") is State.SCHEDULED  # nobody asked
    event = {
        "NotBefore": "14 Nov 2023 22:28:20 GMT",
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "EventId": "instance-event-602d9444d2cd49c78",
        "NotAfter": "14 Nov 2023 22:28:25 GMT",
        "State": "active",
    }
    (shown,) = site.events()
    assert shown == event
    assert list(shown) == list(event)
    assert site.events(HISTORY) == site.events(guest="web-1") == site.events(HISTORY, "web-1") == []
    site.now = 900
    assert site.events() == [shown]
    site.machine.finish(at(900), ONE)
    assert site.events() == []
    assert site.events(HISTORY) == [
        shown | {"Description": "[Completed] scheduled reboot", "State": "completed"}
    ]
    site.announce(event=OTHERS)
    site.machine.cancel(at(900), OTHERS)
    assert site.events() == site.events(HISTORY, "web-1") == []
    assert [one["State"] for one in site.events(HISTORY)] == ["completed", "canceled"]
    kinds = [one.kind for one in site.machine.happened() if one.event == ONE]
    assert kinds == [Kind.PUBLISHED, Kind.SEEN, Kind.STARTED, Kind.SEEN_STARTED, Kind.GONE, Kind.SEEN_GONE]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (EventType.FREEZE, "system-maintenance"),
        (EventType.REDEPLOY, "instance-stop"),
        (EventType.TERMINATE, "instance-retirement"),
    ],
)
def test_codes(kind: EventType, code: str) -> None:
    site = Site()
    site.announce(kind)
    assert [one["Code"] for one in site.events()] == [code]
    assert [site.ask(path).status for path in SPOT] == [404, 404, 404]


def test_a_preemption_is_a_spot_interruption() -> None:
    site = Site()
    assert [site.ask(path).status for path in SPOT] == [404, 404, 404]
    assert site.ask(f"{META}/instance-life-cycle").body == b"on-demand"
    site.announce(EventType.PREEMPT)
    assert site.events() == []
    action, when, notice = (site.ask(path).body.decode() for path in SPOT)
    assert json.loads(action) == {"action": "terminate", "time": "2023-11-14T22:28:20Z"}
    assert when == "2023-11-14T22:28:20Z"
    assert json.loads(notice) == {"noticeTime": "2023-11-14T22:13:20Z"}
    assert site.ask(f"{META}/instance-life-cycle").body == b"spot"
    assert [site.ask(path, guest="web-1").status for path in SPOT] == [404, 404, 404]
    assert site.ask(f"{META}/spot/").body == b"instance-action\ntermination-time"
    site.machine.finish(at(1000), ONE)
    assert site.events(HISTORY) == []
    assert [site.ask(path).status for path in SPOT] == [404, 404, 404]


# -- tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("v1", [True, False])
def test_a_token(v1: bool) -> None:
    site = Site(v1)
    given = site.token("60")
    assert (given.status, header(given, TTL.lower()), given.hops) == (200, "60", 2)
    mine = ((TOKEN.upper(), given.body.decode()),)
    assert site.ask(headers=mine).status == 200
    assert site.ask(headers=()).status == (200 if v1 else 401)
    assert site.ask(headers=mine, guest="web-1").status == 401
    site.now = 59.999
    assert site.ask(headers=mine).status == 200
    site.now = 60
    assert site.ask(headers=mine).status == 401
    other = CloudAnswers(Cloud.EC2, ImdsOptions(v1, secret=b"another service"))
    site.now, site.answers = 0, other
    assert site.ask(headers=mine).status == 401


@pytest.mark.parametrize("ttl", ["", "0", "-1", "21601", "99999", "6e3", "1.0", "٣", "60 60", "1" * 500])
def test_no_token_for_such_a_time(ttl: str) -> None:
    given = Site().token(ttl)
    assert (given.status, header(given, TTL.lower())) == (400, None)


def test_forged_tokens() -> None:
    site = Site()
    good = site.token().body
    raw = base64.b64decode(good)
    forged = [
        "", "x", "====", "TOKEN", "é", "A" * 10_000, good.decode()[:-4], good.decode() + "AAAA",
        base64.b64encode(raw[:8]).decode(), base64.b64encode(b"\xff" * 8 + raw[8:]).decode(),
        base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode(), base64.b64encode(b"\xff" * 40).decode(),
    ]  # fmt: skip
    for token in forged:
        assert site.ask(headers=((TOKEN, token),)).status == 401, token


@pytest.mark.parametrize(
    ("verb", "path", "headers", "status"),
    [
        ("PUT", "/latest/api/token", (), 400),
        ("PUT", "/latest/api/token", ((TTL, "60"), ("X-Forwarded-For", "10.0.0.9")), 403),
        ("PUT", "/latest/api/token", ((TTL, "60"), ("x-forwarded-for", "")), 403),
        ("PUT", "/2021-03-23/api/token", ((TTL, "60"),), 403),
        ("PUT", SCHEDULED, ((TTL, "60"),), 405),
        ("POST", "/latest/api/token", ((TTL, "60"),), 405),
        ("GET", "/latest/api/token", (), 404),
        ("DELETE", SCHEDULED, (), 405),
        ("", SCHEDULED, (), 405),
        ("GET", SCHEDULED, (("X-Forwarded-For", "10.0.0.9"),), 200),
        ("GET", "/", (), 200),
        ("GET", "/latest//meta-data/mac", (), 200),  # as amazon-ec2-utils asks
        ("GET", "/2018-08-17/meta-data/events/maintenance/scheduled", (), 200),
        ("GET", "/2018-08-18/meta-data/events/maintenance/scheduled", (), 404),
        ("GET", "/latest/user-data", (), 404),
        ("GET", f"{META}/iam/security-credentials/", (), 404),
        ("GET", f"{META}/mac/x", (), 404),
        ("GET", f"{META}/../dynamic", (), 404),
        ("GET", f"{META}/network/interfaces/macs/52:54:00:00:00:02/mac", (), 404),
        ("GET", "/computeMetadata/v1/instance/id", (), 404),
        ("GET", "/metadata/scheduledevents", (), 404),
    ],
)
def test_status(verb: str, path: str, headers: Headers, status: int) -> None:
    assert Site().ask(path, headers, verb=verb).status == status


# -- the rest ----------------------------------------------------------------------------------------


def test_meta_data() -> None:
    site = Site()
    listed = site.ask(f"{META}/").body.decode().splitlines()
    assert listed == sorted(listed)
    assert {"events/", "instance-id", "network/", "public-keys/"} <= set(listed)
    assert "spot/" not in listed
    assert site.ask(META).body == site.ask(f"{META}/").body
    assert site.ask("/latest/").body == b"dynamic/\nmeta-data/"
    assert site.ask(f"{META}/public-keys/").body == b"0=freezelab"
    assert site.ask(f"{META}/public-keys/0/openssh-key").body == b"ssh-ed25519 x"
    assert site.ask(f"{META}/network/interfaces/macs/").body.decode() == f"{MAC}/"
    assert site.ask(f"{META}/network/interfaces/macs/{MAC}/local-ipv4s").body == b"10.0.0.4"
    identity = json.loads(site.ask("/latest/dynamic/instance-identity/document").body)
    assert identity["instanceId"] == site.ask(f"{META}/instance-id").body.decode() == "i-0f5c62f121b64f0f9"
    assert (identity["privateIp"], identity["instanceType"]) == ("10.0.0.4", "lab.small")
    head = site.ask(verb="HEAD")
    assert (head.status, head.body, header(head, "Server")) == (200, b"", "EC2ws")


def test_deliberate_answers_and_the_rate() -> None:
    site = Site(rate=3)
    site.announce()
    site.machine.fail(at(0), ["web-0"], [Fault.BROKEN, Fault.TRUNCATED])
    assert site.token().status == site.ask(f"{META}/mac").status == 200  # not about events
    assert site.ask().status == 500
    assert site.ask().cut_at is not None
    assert not [one for one in site.machine.happened() if one.kind is Kind.SEEN]
    assert site.ask().status == 429
    site.now = 1.1
    assert site.ask().status == 200
