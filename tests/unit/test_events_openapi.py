"""The control side of `events serve`, as its OpenAPI document has it: real requests to a real service."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest

from lab.core.scheduled.model import Rules
from lab.errors import UsageError
from lab.events.openapi import ANNOUNCE, openapi
from lab.process.clock import HostClock
from lab.session.events_service import RunningService, ServiceOptions, serving
from lab.session.listeners import Wanted

ROOT = Path(__file__).parents[2]
DOCUMENT = openapi()
POLL = "/metadata/scheduledevents?api-version=2020-07-01"
PATIENCE_S = 30

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def service() -> Iterator[RunningService]:
    home = Path(tempfile.mkdtemp(prefix="fl-"))  # a short path, for sockets
    listen = ["127.0.0.1:0=a", "127.0.0.1:0=b"]
    options = ServiceOptions("t", Rules(), listen, [], Wanted(["s=b,c"]), control="127.0.0.1:0")
    with serving(home, options, HostClock()) as made:
        yield made
    shutil.rmtree(home)


def request(url: str, verb: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    connection.request(verb, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text)


@pytest.fixture
def ask(service: RunningService) -> Ask:
    """Asks, and checks the answer by the document."""

    def asked(verb: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        status, given = request(service.control, verb, path, data, **headers)
        templates = {re.sub(r"\{\w+\}", "[^/]+", one): one for one in DOCUMENT["paths"]}
        own = [templates[one] for one in templates if re.fullmatch(one, path)]
        operation = DOCUMENT["paths"][own[0]].get(verb.lower()) if own else None
        if operation is None:
            assert status == 400
            validate(given, {"$ref": "#/components/schemas/Error"})
        else:
            validate(given, operation["responses"][str(status)]["content"]["application/json"]["schema"])
        return status, given

    return asked


def validate(given: object, schema: dict[str, Any]) -> None:
    jsonschema.validate(
        given, {**schema, "components": DOCUMENT["components"]}, jsonschema.Draft202012Validator
    )


def poll(service: RunningService, guest: str) -> None:
    url = next(f"http://{host}:{port}" for host, port, who in service.bound if who == guest)
    assert request(url, "GET", POLL, Metadata="true")[0] == 200


def test_the_published_document_is_the_services(ask: Ask) -> None:
    published = json.loads((ROOT / "docs" / "events.openapi.json").read_text(encoding="utf-8"))
    assert published == DOCUMENT, "freezelab schema events > docs/events.openapi.json"
    assert ask("GET", "/openapi.json") == (200, json.loads(json.dumps(DOCUMENT)))


def test_its_schemas_are_schemas_and_its_references_lead_somewhere() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert names == set(DOCUMENT["components"]["schemas"])
    ids = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids)) == 5


def test_every_answer_of_an_events_life_is_as_documented(ask: Ask, service: RunningService) -> None:
    assert ask("GET", "/events")[1]["events"] == []
    [unheard] = ask("POST", "/events", {"guests": ["a"]})[1]["events"]
    assert unheard["state"] == "unheard"
    for guest in ("a", "b"):
        poll(service, guest)
    body = {"all": True, "type": "Reboot", "notice_ns": 10**12, "over_after_ns": 10**12, "restarts": True}
    both = ask("POST", "/events", body)[1]["events"]
    assert [one["resources"] for one in both] == [["a"], ["b", "c"]]
    for guest in ("a", "b"):
        poll(service, guest)
    first, second = (one["id"] for one in both)
    for event, verb, code in (
        (first, "finish", 400), (first, "approve", 200), (first[:10], "cancel", 400), (first, "finish", 200),
        (first, "start", 400), (second, "start", 200), (second.lower(), "finish", 200),
        ("ffffffffff", "start", 400),
    ):  # fmt: skip
        assert ask("POST", f"/events/{event}/{verb}")[0] == code, (event, verb)
    [third] = ask("POST", "/events", {"guests": ["a"], "duration_s": -1, "source": "User"})[1]["events"]
    assert ask("POST", f"/events/{third['id']}/cancel")[1]["state"] == "cancelled"
    states = [one["state"] for one in ask("GET", "/events")[1]["events"]]
    assert states == ["unheard", "over", "over", "cancelled"]
    guests = ask("GET", "/service")[1]["guests"]
    assert [(one["guest"], one["set"], one["counts"]["polls"]) for one in guests] == [
        ("a", "", 2),
        ("b", "s", 2),
        ("c", "s", 0),
    ]


def test_nothing_else_is_served(ask: Ask) -> None:
    for verb, path in (
        ("DELETE", "/events"), ("PUT", "/events"), ("POST", "/service"), ("GET", "/events/aa/start"),
        ("POST", "/events/aa/explode"), ("GET", "/"), ("GET", "/events/aa"), ("POST", "/openapi.json"),
    ):  # fmt: skip
        assert ask(verb, path)[0] == 400, (verb, path)
    assert "browser" in ask("POST", "/events", {"all": True}, Origin="http://x")[1]["error"]["what"]


@pytest.mark.parametrize(
    "body",
    [
        {"guests": ["a"], "type": "Preempt", "notice_ns": None, "over_after_ns": None, "duration_s": None},
        {"guests": ["a"], "answers": ["404", "late 50ms", "200", {"name": "x", "body": "{}"}]},
        {"guests": ["a"], "notice_ns": 0, "description": "", "all": False},
    ],
)  # fmt: skip
def test_good_announcements(ask: Ask, body: dict[str, Any]) -> None:
    validate(body, ANNOUNCE)
    assert ask("POST", "/events", body)[0] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        [], None, "a", 1, {"guests": "a"}, {"guests": [1]}, {"guests": {"a": 1}}, {"all": "yes"},
        {"all": 1}, {"type": "Frost"}, {"type": None}, {"notice_ns": -1}, {"notice_ns": 1.5},
        {"notice_ns": "5s"}, {"source": "user"},
        {"notice_ns": True}, {"notice_ns": 10**18}, {"duration_s": -2}, {"duration_s": "7"},
        {"description": 1}, {"answers": "404"}, {"answers": ["418"]}, {"answers": [{"name": "x"}]},
        {"answers": [404]}, {"answers": [{"name": "x", "body": "", "more": 1}]}, {"restarts": "false"},
        {"typo": 1},
    ],
)  # fmt: skip
def test_what_the_document_forbids_is_refused_and_changes_nothing(ask: Ask, wrong: Any) -> None:
    body = {"guests": ["a"], **wrong} if isinstance(wrong, dict) else wrong
    with pytest.raises(jsonschema.ValidationError):
        validate(body, ANNOUNCE)
    status, given = ask("POST", "/events", body)
    assert status == 400
    assert "\n" not in given["error"]["what"]
    assert ask("GET", "/events")[1]["events"] == []


@pytest.mark.parametrize("raw", [b"", b"{", b"[" * 60_000, b"\xff", b'{"guests": [NaN]}'])
def test_what_is_no_json_is_refused(ask: Ask, raw: bytes) -> None:
    assert ask("POST", "/events", raw)[0] == 400


@pytest.mark.parametrize("address", ["8169", "127.0.0.1:99999", ":1", "127.0.0.1:x"])
def test_a_wrong_address_is_refused(address: str, tmp_path: Path) -> None:
    options = ServiceOptions("t", Rules(), ["127.0.0.1:0=a"], [], Wanted(), control=address)
    with pytest.raises(UsageError, match="--control"), serving(tmp_path, options, HostClock()):
        pass
