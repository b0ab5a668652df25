"""The metadata server of Compute Engine: what each request is answered, and from when an event is shown."""

from __future__ import annotations

import json

import pytest

from lab.core.announcement import groups_of
from lab.core.clock import Stamp
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import EventType, Fault, Kind, Notice, OnPurpose, Recorded, Rules, State
from lab.core.scheduled.requests import Answer, Request
from tests.unit.metadata_service import ONE, OTHERS, S, at, header

ROOT = "/computeMetadata/v1"
EVENT, UPCOMING = f"{ROOT}/instance/maintenance-event", f"{ROOT}/instance/upcoming-maintenance"
GOOGLE = (("Metadata-Flavor", "Google"),)
UUID = "0f5c62f1-21b6-4f0f-9c2e-111111111111"
ABOUTS = {
    guest: InstanceInfo(guest, guest, UUID, "lab", availability_set="web", mac="52:54:00:00:00:01")
    for guest in ("web-0", "web-1")
}


class Site:
    """Two guests of a set, at a time factor of 1. ask: at second `now`."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.groups = groups_of(ABOUTS.values(), Cloud.GCE)
        rules = rules or Rules(time_factor=1, enabling=Cloud.GCE.traits.enabling)
        self.machine, self.now = Machine(self.groups, rules), 0.0
        self.answers = CloudAnswers(Cloud.GCE)

    def send(self, request: Request, guest: str = "web-0") -> Answer:
        return self.answers.answer(self.machine, ABOUTS, guest, at(self.now), request)

    def ask(
        self,
        path: str = EVENT,
        query: str = "",
        headers: tuple[tuple[str, str], ...] = GOOGLE,
        *,
        verb: str = "GET",
        guest: str = "web-0",
    ) -> Answer:
        return self.send(Request(verb, path, query, headers), guest)

    def announce(self, kind: EventType = EventType.FREEZE, notice_s: int = 60, guest: str = "web-0") -> State:
        notice = Notice(self.groups[guest], (guest,), kind, notice_s * S, 5)
        return self.machine.announce(self.at, notice, ONE if guest == "web-0" else OTHERS)

    @property
    def at(self) -> Stamp:
        return at(self.now)


@pytest.fixture
def site() -> Site:
    made = Site()
    assert made.ask().body == made.ask(guest="web-1").body == b"NONE"
    return made


def test_the_value_through_an_event(site: Site) -> None:
    assert site.announce() is State.SCHEDULED
    for now, value in ((0, "MIGRATE"), (59, "MIGRATE"), (60, "MIGRATE"), (4000, "MIGRATE")):
        site.now = now
        assert site.ask().body == f"{value}_ON_HOST_MAINTENANCE".encode()
        assert site.ask(guest="web-1").body == b"NONE"
    assert site.machine.state(ONE) is State.STARTED
    site.machine.finish(site.at, ONE)
    assert site.ask().body == b"NONE"
    kinds = [one.kind for one in site.machine.happened() if one.event == ONE]
    assert kinds == [Kind.PUBLISHED, Kind.SEEN, Kind.STARTED, Kind.SEEN_STARTED, Kind.GONE, Kind.SEEN_GONE]


@pytest.mark.parametrize(
    ("kind", "value", "preempted"),
    [
        (EventType.REBOOT, b"TERMINATE_ON_HOST_MAINTENANCE", b"FALSE"),
        (EventType.REDEPLOY, b"TERMINATE_ON_HOST_MAINTENANCE", b"FALSE"),
        (EventType.TERMINATE, b"TERMINATE_ON_HOST_MAINTENANCE", b"FALSE"),
        (EventType.PREEMPT, b"NONE", b"TRUE"),
    ],
)
def test_types(site: Site, kind: EventType, value: bytes, preempted: bytes) -> None:
    site.announce(kind)
    assert site.ask().body == value
    assert site.ask(f"{ROOT}/instance/preempted").body == preempted


def test_a_longer_notice_is_in_upcoming_maintenance_first(site: Site) -> None:
    none = site.ask(UPCOMING, "alt=json")
    assert (none.status, list(json.loads(none.body))) == (503, ["error"])
    site.announce(notice_s=3600)
    assert site.ask().body == b"NONE"
    coming = json.loads(site.ask(UPCOMING, "alt=json").body)
    start, end = "2023-11-14T23:13:20Z", "2023-11-14T23:13:25Z"
    assert coming == {
        "can_reschedule": "false",
        "latest_window_start_time": start,
        "maintenance_status": "PENDING",
        "type": "SCHEDULED",
        "window_end_time": end,
        "window_start_time": start,
    }
    site.now = 3539
    assert site.ask().body == b"NONE"
    site.now = 3540
    assert site.ask().body == b"MIGRATE_ON_HOST_MAINTENANCE"
    site.now = 3600
    assert json.loads(site.ask(UPCOMING, "alt=json").body)["maintenance_status"] == "ONGOING"
    assert site.ask(f"{UPCOMING}/type").body == b"SCHEDULED"
    whole = json.loads(site.ask(f"{ROOT}/instance/", "recursive=true").body)
    assert whole["upcomingMaintenance"]["windowEndTime"] == end
    site.machine.finish(site.at, ONE)
    assert site.ask(UPCOMING, "alt=json").status == 503
    assert "upcomingMaintenance" not in json.loads(site.ask(f"{ROOT}/", "recursive=true").body)["instance"]


def test_who_has_not_asked_since_the_last_event_gets_no_notice() -> None:
    site = Site()
    site.ask(f"{ROOT}/instance/name")  # not about events
    assert site.announce() is State.NOT_ENABLED
    assert site.ask().body == b"NONE"  # nor is it told of it now
    site.machine.finish(site.at, ONE)
    notice = Notice(site.groups["web-0"], ("web-0",), EventType.FREEZE, S)
    assert site.machine.announce(site.at, notice, OTHERS) is State.SCHEDULED
    site.now = 100_000  # however long ago it asked
    site.machine.finish(site.at, OTHERS)
    third = OTHERS.replace("0000", "1111")
    assert site.machine.announce(site.at, notice, third) is State.NOT_ENABLED


# -- waiting for a change ----------------------------------------------------------------------------


def waiting(given: Answer) -> Request:
    assert given.again is not None
    assert given.again.waiting is not None
    return given.again


def test_it_waits_until_the_value_differs(site: Site) -> None:
    again = waiting(site.ask(query="wait_for_change=true"))
    site.now = 5000
    again = waiting(site.send(again))
    site.announce()
    given = site.send(again)
    assert (given.status, given.body) == (200, b"MIGRATE_ON_HOST_MAINTENANCE")
    tag = header(given, "ETag")
    again = waiting(site.ask(query=f"wait_for_change=TRUE&last_etag={tag}"))
    site.now = 5060
    again = waiting(site.send(again))  # Started: the value is the same
    site.machine.finish(site.at, ONE)
    assert site.send(again).body == b"NONE"


def test_another_etag_is_answered_at_once(site: Site) -> None:
    for tag in ("0", "", "x" * 500, "%00%ff"):
        assert site.ask(query=f"wait_for_change=true&last_etag={tag}").body == b"NONE"
    assert site.ask(query="last_etag=0").body == b"NONE"
    assert site.ask(query="wait_for_change=false").body == b"NONE"


def test_a_timeout_ends_it_with_the_same_value(site: Site) -> None:
    again = waiting(site.ask(query="wait_for_change=true&timeout_sec=10"))
    site.now = 9.99
    again = waiting(site.send(again))
    site.now = 10
    assert site.send(again).body == b"NONE"
    for wrong in ("-1", "1.5", "x", "", "9" * 10):
        assert site.ask(query=f"wait_for_change=true&timeout_sec={wrong}").status == 400


def test_a_directory_can_be_waited_for(site: Site) -> None:
    again = waiting(site.ask(f"{ROOT}/", "recursive=true&wait_for_change=true"))
    site.announce(guest="web-1")
    again = waiting(site.send(again))
    site.announce()
    assert json.loads(site.send(again).body)["instance"]["maintenanceEvent"] == "MIGRATE_ON_HOST_MAINTENANCE"


# -- requests ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "headers", "verb", "status"),
    [
        (EVENT, "", (), "GET", 403),
        (EVENT, "", (("Metadata-Flavor", "Amazon"),), "GET", 403),
        (EVENT, "", (("Metadata", "true"),), "GET", 403),
        (EVENT, "", (*GOOGLE, ("X-Forwarded-For", "10.0.0.9")), "GET", 403),
        (EVENT, "", (*GOOGLE, ("x-forwarded-for", "")), "GET", 403),
        ("/", "", (("X-Forwarded-For", "1"),), "GET", 403),
        ("/nothing", "", (), "GET", 403),
        ("/nothing", "", GOOGLE, "GET", 404),
        ("/computeMetadata/v1beta1/instance/id", "", GOOGLE, "GET", 404),
        ("/metadata/scheduledevents", "api-version=2020-07-01", GOOGLE, "GET", 404),
        ("/latest/meta-data/", "", GOOGLE, "GET", 404),
        (f"{ROOT}/instance/disks/1/", "", GOOGLE, "GET", 404),
        (f"{ROOT}/instance/../instance/id", "", GOOGLE, "GET", 404),
        (f"{ROOT}/instance/i%64", "", GOOGLE, "GET", 404),
        (f"{ROOT}/instance/service-accounts/default/token", "", GOOGLE, "GET", 404),
        (EVENT, "alt=xml", GOOGLE, "GET", 400),
        (EVENT, "", GOOGLE, "POST", 405),
        (EVENT, "", GOOGLE, "PUT", 405),
        (EVENT, "", GOOGLE, "", 405),
        (f"{ROOT}/instance/guest-attributes", "", GOOGLE, "PUT", 403),
        (f"{ROOT}/instance/guest-attributes/hostkeys/ssh-ed25519", "", GOOGLE, "PUT", 403),
        (f"{ROOT}/instance", "", GOOGLE, "GET", 301),
        (EVENT, "", (("x-google-metadata-request", "True"),), "GET", 200),
        ("/", "", (), "GET", 200),
        ("/computeMetadata/", "", GOOGLE, "GET", 200),
    ],
)
def test_status(
    site: Site, path: str, query: str, headers: tuple[tuple[str, str], ...], verb: str, status: int
) -> None:
    given = site.ask(path, query, headers, verb=verb)
    assert given.status == status
    assert header(given, "Metadata-Flavor") == "Google"
    assert (header(given, "ETag") is not None) is (status == 200 and path != "/")


def test_forms(site: Site) -> None:
    instance = f"{ROOT}/instance"
    assert site.ask(f"{instance}/disks/").body == b"0/\n"
    listed = site.ask(f"{instance}/").body.decode().splitlines()
    assert listed == sorted(listed)
    assert {"maintenance-event", "network-interfaces/", "preempted", "zone"} <= set(listed)
    assert site.ask(query="alt=json").body == b'"NONE"'
    assert site.ask(query="recursive=true").body == b"NONE"
    assert site.ask(f"{instance}/network-interfaces/0/mac").body == b"52:54:00:00:00:01"
    assert site.ask(f"{instance}/tags").body == b'["freezelab"]'
    text = site.ask(f"{instance}/disks/", "recursive=true&alt=text").body.decode().splitlines()
    assert text[:2] == ["0/device-name web-0", "0/index 0"]
    whole = json.loads(site.ask(f"{instance}/", "recursive=true").body)
    assert whole["machineType"].endswith("/machineTypes/lab-standard-1")
    assert whole["scheduling"]["onHostMaintenance"] == "MIGRATE"
    assert 0 < whole["id"] == int(site.ask(f"{instance}/id").body) < 1 << 63
    head = site.ask(verb="HEAD")
    assert (head.status, head.body, header(head, "Server")) == (200, b"", "Metadata Server for VM")
    moved = site.ask(f"{instance}", "x=1")
    assert header(moved, "Location") == f"http://metadata.google.internal{instance}/?x=1"
    for host, to in (("169.254.169.254:80", "169.254.169.254:80"), ("é", "metadata.google.internal")):
        moved = site.ask(instance, headers=(*GOOGLE, ("Host", host)))
        assert header(moved, "Location") == f"http://{to}{instance}/"


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault.UNAVAILABLE, 503, None),
        (Fault.EMPTY, 200, b""),
        (Recorded("x", "NONE of $NAME"), 200, b"NONE of web-0"),
    ],
)
def test_deliberate_answers(site: Site, fault: OnPurpose, status: int, body: bytes | None) -> None:
    site.announce()
    site.machine.fail(site.at, ["web-0"], [fault])
    given = site.ask(query="wait_for_change=true")
    assert given.status == status
    assert body is None or given.body == body
    assert not [one for one in site.machine.happened() if one.kind is Kind.SEEN]
    assert site.ask().body == b"MIGRATE_ON_HOST_MAINTENANCE"


def test_too_many_requests() -> None:
    site = Site(Rules(time_factor=1, most_per_second=2, enabling=Cloud.GCE.traits.enabling))
    assert [site.ask(f"{ROOT}/instance/name").status for _ in range(3)] == [200, 200, 429]
    again = waiting(site.ask(query="wait_for_change=true", guest="web-1"))
    for _ in range(5):  # one that waits is one request
        again = waiting(site.send(again, "web-1"))
