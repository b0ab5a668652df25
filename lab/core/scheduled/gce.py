"""The metadata server of Compute Engine: the answer to a client's request, without HTTP itself.

`maintenance-event` is NONE, and MIGRATE_ON_HOST_MAINTENANCE or TERMINATE_ON_HOST_MAINTENANCE from 60 s
before an event until it is gone. `upcoming-maintenance` has the event from its publication on. A guest gets
the events that name it, and no others. Reading them enables the notice: a guest that has not done so since
its last event gets none. docs/notices.md has the sources, field by field, and what they leave open.

The checks in their order: X-Forwarded-For and Metadata-Flavor (403), writes of guest attributes (403), the
path (404), the verb (405), the query (400).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import parse_qsl

from lab.core.clock import Stamp
from lab.core.scheduled import gce_instance
from lab.core.scheduled.cloud import GCE_NOTICE_S
from lab.core.scheduled.documents import iso_date, to_json
from lab.core.scheduled.gce_instance import Node
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import Event, EventStatus, EventType, Fault, Recorded
from lab.core.scheduled.requests import Answer, PendingRequest, Request
from lab.core.scheduled.wrong_answers import is_correct, spoiled
from lab.core.units import NS_PER_S

NOTHING_UPCOMING = b'{ "error": "no notifications have been received yet, try again later" }'
"""What clients have met (scylla-doctor, sapagent), with status 503. The documentation has {}."""

_HOST = "metadata.google.internal"
_ROOT = ["computeMetadata", "v1"]
_EVENT = ["instance", "maintenance-event"]
_UPCOMING = ["instance", "upcoming-maintenance"]
_PREEMPTED = ["instance", "preempted"]
_TAGS = ["instance", "tags"]
_ATTRIBUTES = [*_ROOT, "instance", "guest-attributes"]
_HEADERS = (
    ("Metadata-Flavor", "Google"),
    ("Server", "Metadata Server for VM"),
    ("X-XSS-Protection", "0"),
    ("X-Frame-Options", "SAMEORIGIN"),
)
_JSON, _TEXT, _HTML = "application/json", "application/text", "text/html; charset=UTF-8"
_READS = ("GET", "HEAD")
_HOST_NAME = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
_SECONDS = re.compile(r"[0-9]{1,9}")


class _GceRefusal(Exception):
    """Raised for a request that is answered with an error."""

    def __init__(self, status: int, why: str, *headers: tuple[str, str]) -> None:
        super().__init__(f"{status}: {why}")
        self.answer = error(status, why, *headers)


@dataclass(frozen=True)
class _GceQuery:
    """What a request asks for. kind: "json", "text" or "". timeout_ns: 0: none."""

    recursive: bool
    kind: str
    waits: bool
    last_etag: str | None
    timeout_ns: int

    @property
    def whole(self) -> bool:
        """True when a directory is asked for with all that is in it."""
        return self.recursive or self.kind == "json"


def error(status: int, why: str = "", *headers: tuple[str, str]) -> Answer:
    """The answer with an error."""
    phrase = HTTPStatus(status).phrase
    body = f"<html><title>Error {status} ({phrase})</title><b>{status}.</b> {phrase}. {why}</html>\n"
    return _answer(status, body.encode(), *headers, kind=_HTML)


def answer(
    machine: Machine, instances: Mapping[str, InstanceInfo], guest: str, now: Stamp, request: Request
) -> Answer:
    """The answer to the guest's request, as requests.answer. One that waits for a change comes again."""
    try:
        given = _answered(machine, instances.get(guest), guest, now, request)
    except _GceRefusal as refused:
        given = refused.answer
        machine.refuse(now, guest, str(refused))
    return replace(given, body=b"") if request.verb == "HEAD" else given


def _answered(
    machine: Machine, about: InstanceInfo | None, guest: str, now: Stamp, request: Request
) -> Answer:
    slash, steps = request.path.endswith("/"), request.path.strip("/").split("/")
    _check_headers(request, enforced=steps != [""])
    if steps == [""]:
        _check_verb(request)
        return _answer(200, b"computeMetadata/\n", kind=_TEXT)
    if steps[: len(_ATTRIBUTES)] == _ATTRIBUTES and request.verb not in _READS:
        raise _GceRefusal(403, "Guest attributes endpoint access is disabled.")
    place = steps[len(_ROOT) :]
    mine = tuple(event for event in machine.shown(now, guest)[1] if guest in event.notice.resources)
    live = _live(machine, now, mine)
    waiting = request.waiting
    if waiting is not None and waiting.live == live and not _is_over(waiting, now):
        return Answer(0, (), again=request)  # without a look at all that never changes
    node: Node | None = None
    if about is not None and steps[: len(_ROOT)] == _ROOT[: len(steps)]:
        node = {"v1": {}}
        if len(steps) >= len(_ROOT):
            node = gce_instance.find(gce_instance.tree(about, live), place)
    if node is None and (about is None or place != _UPCOMING):
        raise _GceRefusal(404, "The requested URL was not found on this server.")
    _check_verb(request)
    query = _query(request.query)
    if node is not None and gce_instance.is_directory(node) and not (slash or query.whole):
        given = next((value for name, value in request.headers if name.lower() == "host"), "")
        host = given if _HOST_NAME.fullmatch(given) else _HOST
        to = f"http://{host}{request.path}/{'?' * bool(request.query)}{request.query}"
        return _answer(301, f"{request.path}/\n".encode(), ("Location", to), kind=_HTML)
    read = _events_in(place, query.whole, machine, now, mine)
    fault: Fault | Recorded | None = None
    late_ns = 0
    if waiting is None and read is not None:
        fault, late_ns = machine.admit(now, guest)
    elif waiting is None and machine.is_over_rate(now, guest):
        raise _GceRefusal(HTTPStatus.TOO_MANY_REQUESTS, "")
    truth = _render(node, place, query)
    if fault is None and query.waits:
        tag = _tag(node)
        if waiting is None:
            until = now.raw_ns + query.timeout_ns if query.timeout_ns else None
            waiting = PendingRequest(tag if query.last_etag is None else query.last_etag, until, live)
        if waiting.tag == tag and not _is_over(waiting, now):
            return Answer(0, (), again=replace(request, waiting=replace(waiting, live=live)))
    if read is not None and is_correct(fault):
        machine.saw(now, guest, read)
    return replace(spoiled(truth, fault, guest, error), after_ns=late_ns)


def _is_over(waiting: PendingRequest, now: Stamp) -> bool:
    return waiting.until_raw_ns is not None and now.raw_ns >= waiting.until_raw_ns


def _check_headers(request: Request, enforced: bool) -> None:
    names = {name.lower(): value.strip().lower() for name, value in request.headers}
    if "x-forwarded-for" in names:
        raise _GceRefusal(403, "Your client does not have permission: X-Forwarded-For.")
    flavored = names.get("metadata-flavor") == "google" or names.get("x-google-metadata-request") == "true"
    if enforced and not flavored:
        raise _GceRefusal(403, "Your client does not have permission: no Metadata-Flavor: Google.")


def _check_verb(request: Request) -> None:
    if request.verb not in _READS:
        raise _GceRefusal(405, "", ("Allow", "GET, HEAD"))


def _query(raw: str) -> _GceQuery:
    given = dict(parse_qsl(raw, keep_blank_values=True))
    kind, timeout = given.get("alt", "").lower(), given.get("timeout_sec", "0")
    if kind not in ("", "json", "text"):
        raise _GceRefusal(400, "alt is json or text.")
    if not _SECONDS.fullmatch(timeout):
        raise _GceRefusal(400, "timeout_sec is a number of seconds.")
    return _GceQuery(
        recursive=given.get("recursive", "").lower() == "true",
        kind=kind,
        waits=given.get("wait_for_change", "").lower() == "true",
        last_etag=given.get("last_etag"),
        timeout_ns=int(timeout) * NS_PER_S,
    )


# -- events ------------------------------------------------------------------------------------------


def _imminent(machine: Machine, now: Stamp, mine: Sequence[Event]) -> list[Event]:
    """The events that maintenance-event is about, the next one first."""
    notice_ns = machine.rules.real_ns(GCE_NOTICE_S)
    near = [
        event
        for event in mine
        if not event.preempts
        and (event.status is EventStatus.STARTED or event.not_before.raw_ns - now.raw_ns <= notice_ns)
    ]
    return sorted(near, key=lambda event: event.not_before.raw_ns)


def _live(machine: Machine, now: Stamp, mine: Sequence[Event]) -> dict[str, Node]:
    """The members of `instance` that events change."""
    value = "NONE"
    if near := _imminent(machine, now, mine):
        migrates = near[0].notice.type is EventType.FREEZE
        value = f"{'MIGRATE' if migrates else 'TERMINATE'}_ON_HOST_MAINTENANCE"
    live: dict[str, Node] = {
        "maintenance-event": value,
        "preempted": "TRUE" if any(event.preempts for event in mine) else "FALSE",
    }
    coming = sorted((e for e in mine if not e.preempts), key=lambda event: event.not_before.raw_ns)
    if coming:
        live["upcoming-maintenance"] = _upcoming(coming[0])
    return live


def _upcoming(event: Event) -> Node:
    start = event.not_before.real_ns
    return {
        "can-reschedule": "false",
        "latest-window-start-time": iso_date(start),
        "maintenance-status": "ONGOING" if event.status is EventStatus.STARTED else "PENDING",
        "type": "SCHEDULED",
        "window-end-time": iso_date(event.window_end_real_ns),
        "window-start-time": iso_date(start),
    }


def _events_in(
    place: Sequence[str], whole: bool, machine: Machine, now: Stamp, mine: Sequence[Event]
) -> list[Event] | None:
    """The events that the answer has; None when it is about something else."""
    if place == _EVENT:
        return _imminent(machine, now, mine)
    if place[:2] == _UPCOMING:
        return [event for event in mine if not event.preempts]
    if place == _PREEMPTED:
        return [event for event in mine if event.preempts]
    return list(mine) if whole and place in ([], ["instance"]) else None


# -- answers -----------------------------------------------------------------------------------------


def _render(node: Node | None, place: Sequence[str], query: _GceQuery) -> Answer:
    tag = ("ETag", _tag(node))
    if node is None:
        return _answer(503, NOTHING_UPCOMING, tag, kind=_JSON)
    inner = gce_instance.is_directory(node)
    if query.kind == "json" or (inner and query.recursive and not query.kind):
        snake = place[:2] == _UPCOMING
        return _answer(200, to_json(gce_instance.to_values(node, "_" if snake else "")), tag, kind=_JSON)
    if place == _TAGS:
        return _answer(200, to_json(node), tag, kind=_TEXT)
    text = gce_instance.listing(node) if inner and not query.recursive else gce_instance.to_text(node)
    return _answer(200, text.encode(), tag, kind=_TEXT)


def _tag(node: Node | None) -> str:
    """The ETag of a value: of its content alone, in whatever form."""
    return hashlib.sha256(json.dumps(node).encode()).hexdigest()[:16]


def _answer(status: int, body: bytes = b"", *headers: tuple[str, str], kind: str) -> Answer:
    return Answer(status, (*_HEADERS, ("Content-Type", kind), *headers), body)
