"""The documentation's pattern, with plain curl: ask with Metadata: true, approve by POSTing the ids with -d,
which curl sends as form data."""

from __future__ import annotations

import json
import uuid
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from tests.host.clients.namespaces import Namespace
from tests.host.clients.service import MATE, OTHER, OWN, Service

VERSIONS = {
    "2017-03-01": (),
    "2017-08-01": (),
    "2017-11-01": (),
    "2019-01-01": (),
    "2019-04-01": ("Description",),
    "2019-08-01": ("Description", "EventSource"),
    "2020-07-01": ("Description", "EventSource", "DurationInSeconds"),
}
"""Of Scheduled Events, with the fields that they have beyond the first one's."""

FIRST = ("EventId", "EventStatus", "EventType", "ResourceType", "Resources", "NotBefore")
NEWEST = "2020-07-01"


def url(version: str = NEWEST, door: str = OWN) -> str:
    return f"http://{door}/metadata/scheduledevents?api-version={version}"


def curl(inside: Namespace, *words: str) -> tuple[int, str]:
    """The status and the body."""
    said = inside.run("curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *words)
    assert said.returncode == 0, said.stderr
    body, _, status = said.stdout.rpartition("\n")
    return int(status), body


def ask(inside: Namespace, version: str = NEWEST, door: str = OWN) -> dict[str, Any]:
    status, body = curl(inside, "-H", "Metadata:true", url(version, door))
    assert status == 200, body
    document: dict[str, Any] = json.loads(body)
    return document


def approve(inside: Namespace, *events: str, version: str = NEWEST, door: str = OWN) -> tuple[int, str]:
    body = json.dumps({"StartRequests": [{"EventId": event} for event in events]})
    return curl(inside, "-H", "Metadata:true", "-X", "POST", "-d", body, url(version, door))


def test_from_notice_to_all_clear_in_every_version(service: Service, inside: Namespace) -> None:
    before = ask(inside)
    assert before["Events"] == []
    (made,) = json.loads(service.command("announce", "web-0", "--duration", "9", "--json"))
    event = made["id"]
    for version, more in VERSIONS.items():
        document = ask(inside, version)
        (told,) = document["Events"]
        assert set(told) == {*FIRST, *more}, version
        assert (told["EventId"], told["EventStatus"], told["EventType"]) == (event, "Scheduled", "Freeze")
        assert told["Resources"] == ["_web_0" if version == "2017-03-01" else "web_0"]
        assert parsedate_to_datetime(told["NotBefore"]).utcoffset() is not None
        assert told.get("DurationInSeconds", 9) == 9
        assert document["DocumentIncarnation"] == before["DocumentIncarnation"] + 1
    for version in VERSIONS:  # however often, by whichever version
        assert approve(inside, event, version=version) == (200, "")
        document = ask(inside, version)
        (told,) = document["Events"]
        assert (told["EventStatus"], told["NotBefore"]) == ("Started", "")
        assert document["DocumentIncarnation"] == before["DocumentIncarnation"] + 2
    service.command("finish", event)
    assert ask(inside) == {"DocumentIncarnation": before["DocumentIncarnation"] + 3, "Events": []}
    assert service.approved_by(event) == ["web-0"]


def test_the_name_in_an_event_is_the_instances_own(service: Service, inside: Namespace) -> None:
    ask(inside)
    service.announce("web-0", "web-1")
    place = "metadata/instance/compute/name?api-version=2021-02-01&format=text"
    names = [curl(inside, "-H", "Metadata: true", f"http://{door}/{place}")[1] for door in (OWN, MATE)]
    assert ask(inside)["Events"][0]["Resources"] == names == ["web_0", "web_1"]


def test_each_content_type(service: Service, inside: Namespace) -> None:
    ask(inside)
    for header in ("Content-Type: application/json", "Content-Type: text/plain", "Content-Type:"):
        event = service.announce("web-0")
        body = json.dumps({"StartRequests": [{"EventId": event.lower()}], "DocumentIncarnation": 1})
        words = ("-H", "metadata: TRUE", "-H", header, "--data-binary", body)
        assert curl(inside, *words, url()) == (200, "")
        assert service.state(event) == "started"


def test_any_member_approves_and_nobody_else(service: Service, inside: Namespace) -> None:
    ask(inside)
    theirs = ask(inside, door=OTHER)
    event = service.announce("web-0")
    assert ask(inside, door=OTHER) == theirs
    assert approve(inside, event, door=OTHER)[0] == 400
    assert approve(inside, event, str(uuid.uuid4()))[0] == 400
    assert service.state(event) == "scheduled"
    assert [told["EventId"] for told in ask(inside, door=MATE)["Events"]] == [event]
    assert approve(inside, event, door=MATE) == (200, "")
    assert ask(inside)["Events"][0]["EventStatus"] == "Started"
    assert service.approved_by(event) == ["web-1"]


def test_curl_asks_only_for_what_is_new(service: Service, inside: Namespace, tmp_path: Path) -> None:
    """By curl's own keeping of ETags, and over one connection."""
    ask(inside)
    tag, body = tmp_path / "etag", tmp_path / "body"
    words = ("-H", "Metadata: true", "--etag-compare", str(tag), "--etag-save", str(tag), "-o", str(body))
    assert curl(inside, *words, url())[0] == 200
    assert json.loads(body.read_text("utf-8"))["Events"] == []
    assert curl(inside, *words, url())[0] == 304
    event = service.announce("web-0")
    assert curl(inside, *words, url())[0] == 200
    assert json.loads(body.read_text("utf-8"))["Events"][0]["EventId"] == event
    assert curl(inside, *words, url())[0] == 304
    said = inside.run("curl", "-sS", "-H", "Metadata: true", "-w", "%{num_connects}\n", url(), url())
    assert said.stdout.splitlines()[-1][-1] == "0", said


def test_a_script_notices_that_it_asked_wrongly(service: Service, inside: Namespace) -> None:
    """--fail turns every refusal into curl's exit status 22."""
    good = ("-H", "Metadata: true")
    wrong = (
        (url(),),
        (*good, "-H", "X-Forwarded-For: 10.0.0.9", url()),
        (*good, url("2016-01-01")),
        (*good, f"http://{OWN}/metadata/scheduledevents"),
        (*good, "-X", "PUT", "-d", "{}", url()),
        (*good, "-d", "StartRequests", url()),
        (*good, f"http://{OWN}/metadata/attested/document?api-version=2021-02-01"),
    )
    for words in wrong:
        assert inside.run("curl", "-sf", *words).returncode == 22, words
    newest = json.loads(curl(inside, *good, url("2016-01-01"))[1])["newest-versions"]
    assert inside.run("curl", "-sf", *good, url(newest[0])).returncode == 0
