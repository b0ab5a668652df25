"""The wire contract: what each request is answered. Junk is in test_scheduled_fuzz.py."""

from __future__ import annotations

import pytest

from lab.core.scheduled.instance import VERSIONS
from lab.core.scheduled.model import (
    ApiVersion,
    EventType,
    Kind,
    Notice,
    Rules,
    State,
)
from tests.unit.metadata_service import (
    EVENTS,
    GROUPS,
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

# -- what is refused ---------------------------------------------------------------------------------

FORWARDED = (*META, ("x-forwarded-for", ""))

REFUSED = [
    # verb, path, query, headers, status
    ("GET", EVENTS, NEWEST, (), 400),
    ("GET", EVENTS, NEWEST, (("Metadata", "false"),), 400),
    ("GET", EVENTS, NEWEST, (("Metadata", ""),), 400),
    ("GET", EVENTS, NEWEST, (("Metadata", "true"), ("metadata", "no")), 400),
    ("GET", EVENTS, NEWEST, FORWARDED, 400),
    ("GET", EVENTS, "api-version=2017-03-01", FORWARDED, 400),
    ("POST", EVENTS, NEWEST, (), 400),
    ("GET", INSTANCE, OLD, (), 400),
    ("GET", INSTANCE, "api-version=2017-03-01", (), 400),
    ("GET", "/metadata/versions", "", (), 400),
    ("GET", "/metadata/nothing", NEWEST, (), 400),
    ("GET", EVENTS, "", META, 400),
    ("GET", EVENTS, "api-version=", META, 400),
    ("GET", EVENTS, "api-version=latest", META, 400),
    ("GET", EVENTS, "api-version=2019-06-01", META, 400),  # known to /metadata/instance only
    ("GET", EVENTS, "api-version=2020-07-01%00", META, 400),
    ("GET", EVENTS, "api-version=%ff%fe", META, 400),
    ("POST", EVENTS, "api-version=2030-01-01", META, 400),
    ("GET", EVENTS, f"{NEWEST}&{NEWEST}", META, 400),
    ("GET", EVENTS, f"{NEWEST}&API-Version=2020-07-01", META, 400),
    ("GET", EVENTS, f"{NEWEST}&x=1&x=2", META, 400),
    ("GET", EVENTS, f"{NEWEST}&x&x", META, 400),
    ("GET", INSTANCE, f"{OLD}&format=json&format=text", META, 400),
    ("GET", INSTANCE, f"{OLD}&format=xml", META, 400),
    ("GET", INSTANCE, "", META, 400),
    ("GET", INSTANCE, "api-version=2020-07-01", META, 400),  # known to scheduledevents only
    ("GET", f"{INSTANCE}/compute/name", OLD, META, 400),  # a leaf as JSON
    ("GET", f"{INSTANCE}/compute/name", f"{OLD}&format=json", META, 400),
    ("GET", "/metadata", "", META, 400),
    ("GET", "/metadata/versions", "x=1&x=1", META, 400),
    *[(verb, EVENTS, NEWEST, META, 405) for verb in ("HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "get", "")],
    *[(verb, INSTANCE, OLD, META, 405) for verb in ("HEAD", "POST", "PUT", "TRACE")],
    ("POST", "/metadata/versions", "", META, 405),
    *[
        ("GET", path, NEWEST, META, 404)
        for path in (
            "",
            "/",
            "*",
            "/metadatas",
            "/Metadata/scheduledevents",
            "metadata/scheduledevents",
            "http://169.254.169.254/metadata/scheduledevents",
            "//metadata/scheduledevents",
            "/metadata//scheduledevents",
            "/metadata/scheduledevents//",
            "/metadata/scheduledEvents",
            "/metadata/scheduledevents/x",
            "/metadata/scheduledevents;x=1",
            "/metadata/scheduledevents%00",
            "/metadata/scheduledevents%2f",
            "/metadata/%73cheduledevents",
            "/metadata%2fscheduledevents",
            "/metadata\\scheduledevents",
            "/metadata/./scheduledevents",
            "/metadata/scheduledevents/..",
            "/metadata/../etc/passwd",
            "/metadata/..%2f..%2fetc/passwd",
            "/latest/meta-data/",
            "/metadata/attested/document",
            "/metadata/identity",
            "/metadata/identity/info",
            "/metadata/loadbalancer",
            "/metadata/reprovisiondata",
            "/metadata/" + "x" * 10_000,
        )
    ],
    *[
        ("GET", f"{INSTANCE}/{path}", OLD, META, 404)
        for path in (
            "..",
            "../scheduledevents",
            "compute/..",
            "compute/%6eame",
            "x",
            "compute/name/x",
            "network/interface/1",
            "/",
            "__class__",
        )
    ],
    ("GET", "/metadata", OLD, META, 404),
]


@pytest.mark.parametrize(("verb", "path", "query", "headers", "status"), REFUSED)
def test_a_request_out_of_order_is_refused(
    verb: str, path: str, query: str, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    service = Service(announced=False)
    given = service.ask(path, query, headers, verb=verb)
    assert given.status == status
    if verb == "HEAD":
        assert given.body == b""
    else:
        assert parsed(given)["error"]
    assert (header(given, "Allow") is not None) == (status == 405)
    # It does not count: nothing is switched on by it. What was meant for the events is told, and no more.
    assert not service.machine.has_asked("a0")
    refused = service.refused()
    assert (
        service.machine.announce(at(2), Notice("a", ("a0",), EventType.FREEZE, S), ONE) is State.NOT_ENABLED
    )
    meant = path.rstrip("/").split("/")[:3] == EVENTS.split("/")
    assert [one.text[:3] for one in refused] == ([str(status)] if meant else [])


def test_a_missing_header_is_told_as_documented() -> None:
    given = Service().ask(headers=())
    assert parsed(given) == {"error": "Bad request. Required metadata header not specified"}


def test_allow_says_what_can_be_done() -> None:
    service = Service()
    assert header(service.ask(verb="PUT"), "Allow") == "GET, POST"
    assert header(service.ask(INSTANCE, OLD, verb="POST"), "Allow") == "GET"


@pytest.mark.parametrize(
    ("path", "newest"),
    [
        (EVENTS, ["2020-07-01", "2019-08-01", "2019-04-01"]),
        (INSTANCE, list(VERSIONS[:-4:-1])),
        ("/metadata", list(VERSIONS[:-4:-1])),
        ("/metadata/", list(VERSIONS[:-4:-1])),
    ],
)
@pytest.mark.parametrize("query", ["", "api-version=1999-01-01"])
def test_without_a_version_the_newest_are_told(path: str, newest: list[str], query: str) -> None:
    given = Service().ask(path, query)
    assert given.status == 400
    assert list(parsed(given)) == ["error", "newest-versions"]
    what = "is invalid" if query else "was not specified in the request"
    said = f"Bad request. api-version {what}. For more information refer to aka.ms/azureimds"
    assert parsed(given)["error"] == said
    assert parsed(given)["newest-versions"] == newest


# -- GET /metadata/scheduledevents -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Metadata", "metadata", "METADATA"])
@pytest.mark.parametrize("value", ["true", "True", "TRUE", " true "])
def test_the_header_is_compared_without_case(name: str, value: str) -> None:
    given = Service().ask(headers=((name, value),))
    assert ids(given) == [ONE]
    assert header(given, "ETag") == '"2"'
    assert (header(given, "Server") or "").startswith("IMDS/")
    assert not given.never and given.after_ns == 0


@pytest.mark.parametrize("version", ApiVersion)
def test_every_version_is_served_and_only_the_preview_without_the_header(version: ApiVersion) -> None:
    service = Service()
    assert ids(service.ask(query=f"api-version={version}")) == [ONE]
    assert service.ask(query=f"api-version={version}", headers=()).status == (
        200 if version.is_preview else 400
    )
    (event,) = parsed(service.ask(query=f"api-version={version}"))["Events"]
    assert event["Resources"] == ["_a_a0" if version.is_preview else "a_a0"]


@pytest.mark.parametrize("query", [f"{NEWEST}&", f"&{NEWEST}", f"x=1&{NEWEST}", "api%2Dversion=2020%2D07-01"])
def test_other_parameters_and_encodings_of_them_do_no_harm(query: str) -> None:
    assert ids(Service().ask(query=query)) == [ONE]


def test_a_slash_at_the_end_does_no_harm() -> None:
    service = Service()
    for path, query in (
        (EVENTS, NEWEST),
        (INSTANCE, OLD),
        ("/metadata/versions", ""),
        (f"{INSTANCE}/compute", OLD),
    ):
        assert service.ask(f"{path}/", query) == service.ask(path, query)


@pytest.mark.parametrize(
    "value", ['"2"', 'W/"2"', '"1", "2"', '"1",W/"2" , "9"', "*", ' "2" ', '"a,b", "2"', '"2", "unfinished']
)
def test_an_unchanged_document_is_answered_with_304_and_counts_as_a_poll(value: str) -> None:
    service = Service(Rules(time_factor=1, idle_s=10))
    for second in (1, 9, 17, 25):
        service.now = second
        given = service.ask(headers=(*META, ("if-none-match", value)))
        assert (given.status, given.body, header(given, "ETag")) == (304, b"", '"2"')
        assert header(given, "Content-Type") is None


@pytest.mark.parametrize("value", ['"1"', "2", '"22"', 'W/"3"', "", '"2', "W/*", '""'])
def test_who_has_another_document_is_given_this_one(value: str) -> None:
    assert ids(Service().ask(headers=(*META, ("If-None-Match", value)))) == [ONE]


def test_tags_in_several_headers_count() -> None:
    given = Service().ask(headers=(*META, ("If-None-Match", '"1"'), ("If-None-Match", '"2"')))
    assert given.status == 304


def test_after_a_restart_an_etag_may_lie_and_then_nobody_has_seen_the_event() -> None:
    service = Service()
    tag = header(service.ask(), "ETag") or ""
    service.machine.restart(at(1), "a")
    service.machine.finish(at(1), ONE)
    assert header(service.ask(), "ETag") == tag  # already here: another document, the same tag
    service.machine.restart(at(1), "a")
    later = "602D9444-D2CD-49C7-8624-111111111111"
    service.machine.announce(at(1), Notice("a", ("a0",), EventType.REBOOT, 900 * S), later)
    service.machine.happened()
    assert service.ask(headers=(*META, ("If-None-Match", tag))).status == 304
    assert service.machine.happened() == ()
    assert ids(service.ask()) == [later]
    assert [one.kind for one in service.machine.happened()] == [Kind.SEEN]


def test_an_event_that_the_version_does_not_tell_is_not_seen() -> None:
    service = Service(announced=False)
    service.ask()
    service.machine.announce(at(1), Notice("a", ("a0",), EventType.PREEMPT, 900 * S), ONE)
    service.machine.happened()
    given = service.ask(query="api-version=2017-08-01")
    assert ids(given) == [] and parsed(given)["DocumentIncarnation"] == 2
    assert service.machine.happened() == ()
    assert ids(service.ask(query="api-version=2017-11-01")) == [ONE]
    assert [one.kind for one in service.machine.happened()] == [Kind.SEEN]


# -- the rest of /metadata ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_the_instance_is_served(version: str) -> None:
    given = Service().ask(INSTANCE, f"api-version={version}&extended=true&format=json")
    assert (given.status, list(parsed(given))) == (200, ["compute", "network"])
    assert parsed(given)["compute"]["name"] == "a_a0"


def test_each_guest_reads_its_own_instance_metadata() -> None:
    service = Service()
    path = f"{INSTANCE}/compute/osProfile/computerName"
    for guest in GROUPS:
        given = service.ask(path, f"{OLD}&format=TEXT", guest=guest)
        assert (given.status, given.body) == (200, guest.encode())
        assert header(given, "Content-Type") == "text/plain; charset=utf-8"


def test_parts_and_lists_of_children() -> None:
    service = Service()
    assert list(parsed(service.ask(f"{INSTANCE}/network/interface/0", OLD))) == ["ipv4", "ipv6", "macAddress"]
    assert service.ask(INSTANCE, f"{OLD}&format=text").body == b"compute/\nnetwork/"


def test_nomad_finds_out_that_it_is_in_azure() -> None:
    """All that its fingerprint asks for (client/fingerprint/env_azure.go): it is in Azure when azEnvironment
    is not empty, takes what is for what there is, and leaves out what is empty or not found."""
    nomad = "api-version=2019-06-04"
    card = "network/interface/0"
    there = ["compute/azEnvironment", "compute/vmId", "compute/name", "compute/location", "compute/vmSize"]
    there += ["compute/resourceGroupName"]
    empty = ["compute/vmScaleSetName", "compute/zone", f"{card}/ipv4/ipAddress/0/publicIpAddress"]
    empty += [f"{card}/ipv4/ipAddress/0/privateIpAddress", f"{card}/macAddress"]  # of a guest that has none
    service = Service()
    for path in there + empty:
        given = service.ask(f"{INSTANCE}/{path}", f"{nomad}&format=text")
        assert given.status == 200, path
        assert bool(given.body.strip()) is (path in there), path
    assert service.ask(f"{INSTANCE}/{card}/ipv6/ipAddress/0/privateIpAddress", nomad).status == 404
    tags = parsed(service.ask(f"{INSTANCE}/compute/tagsList", f"{nomad}&format=json"))
    assert all(set(tag) == {"name", "value"} for tag in tags) and tags


def test_the_versions_are_listed() -> None:
    given = Service().ask("/metadata/versions", "")
    listed = parsed(given)["apiVersions"]
    assert given.status == 200 and listed == sorted(listed) == list(VERSIONS)
    for version in listed:
        assert Service().ask(INSTANCE, f"api-version={version}").status == 200


@pytest.mark.parametrize("query", ["", "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net"])
def test_a_machine_without_an_identity_has_no_token(query: str) -> None:
    """As it was captured in azure-sdk-for-net, issue 37278: 68 bytes; and in azure-sdk-for-js, issue 11369,
    without the header: 88 bytes."""
    token = "/metadata/identity/oauth2/token"
    given = Service().ask(token, query)
    assert (given.status, len(given.body)) == (400, 68)
    assert parsed(given) == {"error": "invalid_request", "error_description": "Identity not found"}
    bare = Service().ask(token, query, ())
    assert (bare.status, len(bare.body)) == (400, 88)
    assert parsed(bare) == {
        "error": "bad_request_102",
        "error_description": "Required metadata header not specified",
    }
    assert Service().ask(token, query, verb="POST").status == 405


def test_asking_for_anything_else_switches_nothing_on() -> None:
    service = Service(announced=False)
    for path, query in ((INSTANCE, OLD), ("/metadata/versions", ""), ("/metadata/identity/oauth2/token", "")):
        service.ask(path, query)
    assert service.machine.happened() == () and not service.machine.has_asked("a0")
