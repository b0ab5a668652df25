"""The answer to a client's request: the contract of the HTTP interface, without HTTP itself.

The checks in their order: the path begins like the metadata service's (404), the headers are right (400), the
path exists (404), it has the verb (405), the query is valid (400). Only then does a request count: for the
rate limit and, if it is for events, to enable the service and to get a deliberate fault.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import parse_qsl

from lab.core.clock import Stamp
from lab.core.scheduled import instance
from lab.core.scheduled.documents import document, etag, to_json, visible_events
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import OWN_NAME, ApiVersion, Fault, Recorded

SERVER = "IMDS/1.0 (freezelab)"
MOST_BODY_BYTES = 64 << 10
"""The largest body of an approval. A hundred events need less than 8 KiB."""

_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_EVENTS_VERSIONS = tuple(version.value for version in ApiVersion)
_ALL_VERSIONS = tuple(sorted({*_EVENTS_VERSIONS, *instance.VERSIONS}))
_ABSENT = ("attested", "identity", "loadbalancer")
_TOKEN = ["identity", "oauth2", "token"]
_EVENTS = ["scheduledevents"]
_OUTSIDE = [""]
_NOT_FOUND = "Not found. The requested element does not exist"


@dataclass(frozen=True)
class PendingRequest:
    """A request that waits for a change. tag: of what its client has. until_raw_ns: when it is answered all
    the same; None: never. live: all that could change, when it was last looked at."""

    tag: str
    until_raw_ns: int | None
    live: object


@dataclass(frozen=True)
class Request:
    """A request as received. path: no further decoded than in HTTP, without the query. query: raw, without
    "?". headers: names and values in their order, names in any case. waiting: None for a new one."""

    verb: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    waiting: PendingRequest | None = None


@dataclass(frozen=True)
class Answer:
    """An answer. after_ns: real time to wait before it is sent. never: the connection stays open, and nothing
    is sent. cut_at: the number of bytes of the body after which the connection is closed; None: all. again:
    there is no answer yet; this request is to be answered in a moment. hops: the most hops to the client, by
    IP; None: as far as it is."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    after_ns: int = 0
    never: bool = False
    cut_at: int | None = None
    again: Request | None = None
    hops: int | None = None


class _Refused(Exception):
    """Raised for a request that is answered with an error. newest: versions that are served, newest first."""

    def __init__(
        self, status: int, why: str, *, newest: Sequence[str] = (), allow: str = "", after_ns: int = 0
    ) -> None:
        super().__init__(f"{status}: {why}")
        body = {"error": why, "newest-versions": newest} if newest else {"error": why}
        headers = [("Allow", allow)] if allow else []
        self.answer = _answer(status, to_json(body), *headers, after_ns=after_ns)


class _NoToken(_Refused):
    """Raised for a request for a token, whose errors have the form of OAuth (RFC 6749, section 5.2)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(400, description)
        self.answer = _answer(400, to_json({"error": error, "error_description": description}))


def answer(
    machine: Machine, instances: Mapping[str, InstanceInfo], guest: str, now: Stamp, request: Request
) -> Answer:
    """The answer to the guest's request. instances: by guest. Invalid requests raise nothing. KeyError: the
    machine does not know the guest."""
    place = _place(request.path)
    try:
        given = _answered(machine, instances, guest, now, request, place)
    except _Refused as refused:
        given = refused.answer
        if place[:1] == _EVENTS:
            machine.refuse(now, guest, str(refused))
    return Answer(given.status, given.headers) if request.verb == "HEAD" else given


def _place(path: str) -> list[str]:
    """The parts of a path below /metadata; one slash at its end is ignored. Nothing is decoded: no path of
    the service contains encoded characters."""
    parts = path.split("/")
    if parts[:2] != ["", "metadata"]:
        return _OUTSIDE
    return parts[2:-1] if parts[-1] == "" else parts[2:]


def _answered(
    machine: Machine,
    instances: Mapping[str, InstanceInfo],
    guest: str,
    now: Stamp,
    request: Request,
    place: list[str],
) -> Answer:
    if place == _OUTSIDE:
        raise _Refused(404, f"{_NOT_FOUND}: all is below /metadata")
    query, doubled = _query(request.query)
    version = query.get("api-version", "")
    preview = place == _EVENTS and version in _EVENTS_VERSIONS and ApiVersion(version).is_preview
    _check_headers(request, place, enforced=not preview)
    verbs, versions = _served(place)
    if request.verb not in verbs:
        why = f"Method not allowed. The endpoint supports {' and '.join(verbs)}"
        raise _Refused(405, why, allow=", ".join(verbs))
    if doubled:
        raise _Refused(400, "Bad request. A query parameter is given more than once")
    if versions and version not in versions:
        what = "is invalid" if version else "was not specified in the request"
        why = f"Bad request. api-version {what}. For more information refer to aka.ms/azureimds"
        raise _Refused(400, why, newest=versions[:-4:-1])
    if place == _EVENTS:
        return _events(machine, instances, guest, now, request, ApiVersion(version))
    if place == _TOKEN:
        # What a machine without an identity says (azure-sdk-for-net, issue 37278). Azure's SDKs take a 404
        # for a service that is being updated, and ask again for 20 s.
        raise _NoToken("invalid_request", "Identity not found")
    if machine.is_over_rate(now, guest):
        raise _Refused(429, _FAULTS[Fault.TOO_MANY])
    if place == ["versions"]:
        return _answer(200, to_json({"apiVersions": instance.VERSIONS}))
    if place[:1] == ["instance"] and guest in instances:
        return _instance(instances[guest], place[1:], query.get("format", "json").lower())
    raise _Refused(404, _NOT_FOUND)


def _served(place: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The verbs of a path, and the versions in which it is served; () for any or none."""
    if place == _EVENTS:
        return ("GET", "POST"), _EVENTS_VERSIONS
    if place[:1] == ["instance"]:
        return ("GET",), instance.VERSIONS
    if place in (["versions"], _TOKEN):
        return ("GET",), ()
    if not place:
        return ("GET",), _ALL_VERSIONS  # whoever looks around is told the versions
    if place[0] in _ABSENT:
        raise _Refused(404, f"{_NOT_FOUND}: the lab has no /metadata/{place[0]}")
    raise _Refused(404, _NOT_FOUND)


def _query(raw: str) -> tuple[dict[str, str], bool]:
    """The parameters, by name in lower case, and whether a name occurs twice."""
    pairs = [(name.lower(), value) for name, value in parse_qsl(raw, keep_blank_values=True)]
    query = dict(pairs)
    return query, len(query) < len(pairs)


def _check_headers(request: Request, place: list[str], enforced: bool) -> None:
    """Check the headers that show that the client intended the request and was not redirected to it."""
    values: list[str] = []
    for name, value in request.headers:
        match name.lower():
            case "x-forwarded-for":
                raise _Refused(400, "Bad request. X-Forwarded-For is not permitted in a request")
            case "metadata":
                values.append(value.strip().lower())
    if enforced and (not values or set(values) != {"true"}):
        if place == _TOKEN:
            raise _NoToken("bad_request_102", "Required metadata header not specified")
        raise _Refused(400, "Bad request. Required metadata header not specified")


# -- /metadata/instance ------------------------------------------------------------------------------


def _instance(about: InstanceInfo, steps: list[str], form: str) -> Answer:
    if form not in ("json", "text"):
        raise _Refused(400, "Bad request. format is json or text")
    node = instance.find(instance.metadata(about), steps)
    if node is None:
        raise _Refused(404, _NOT_FOUND)
    if form == "text":
        return _answer(200, instance.to_text(node).encode(), kind=_TEXT)
    if isinstance(node, str):
        raise _Refused(400, "Bad request. A single value is served as format=text only")
    return _answer(200, to_json(node))


# -- /metadata/scheduledevents -----------------------------------------------------------------------


def _events(
    machine: Machine,
    instances: Mapping[str, InstanceInfo],
    guest: str,
    now: Stamp,
    request: Request,
    version: ApiVersion,
) -> Answer:
    fault, late_ns = machine.admit(now, guest, poll=request.verb == "GET")
    own_name = instances[guest].name if guest in instances else guest
    match fault:
        case Fault.HANG:
            return Answer(0, (), never=True)
        case Fault.EMPTY:
            return _answer(200)
        case Recorded():
            return _answer(200, fault.body.replace(OWN_NAME, own_name).encode())
        case Fault() if fault in _FAULTS:
            return _answer(int(fault.value), to_json({"error": _FAULTS[fault]}))
    if request.verb == "POST":
        if not machine.approve(now, guest, _start_requests(request.body)):
            raise _Refused(400, "Bad request. An EventId is of no event that is shown", after_ns=late_ns)
        return _answer(200, after_ns=late_ns)
    incarnation, events = machine.shown(now, guest)
    tag = etag(incarnation)
    if fault is Fault.NO_EVENTS:
        return _answer(200, to_json({"DocumentIncarnation": incarnation}), ("ETag", tag))
    if fault is None and _matches(request, tag):
        # The guest has not got to see what is shown: after a restart it may hold another document.
        return Answer(304, (("Server", SERVER), ("ETag", tag)), after_ns=late_ns)
    body = to_json(
        document(incarnation, events, version, lambda one: instances[one].name if one in instances else one)
    )
    if fault is Fault.TRUNCATED:
        return replace(_answer(200, body, ("ETag", tag)), cut_at=len(body) // 2)
    machine.saw(now, guest, visible_events(events, version))
    kind = _TEXT if fault is Fault.PLAIN else _JSON
    return _answer(200, body, ("ETag", tag), kind=kind, after_ns=late_ns)


_FAULTS = {
    Fault.NOT_FOUND: _NOT_FOUND,
    Fault.GONE: "Gone. Retry after some time for a max of 70 seconds",
    Fault.TOO_MANY: "Too many requests. API rate limits have been exceeded",
    Fault.BROKEN: "Service error. Retry after some time",
    Fault.UNAVAILABLE: "Service unavailable. Retry after some time",
}
"""Texts of error codes in the documentation of Azure's Instance Metadata Service; 503's is like them."""


def _start_requests(body: bytes) -> list[str]:
    """The ids that a body approves. Other members and the Content-Type are ignored."""
    if len(body) > MOST_BODY_BYTES:
        raise _Refused(400, f"Bad request. The body is larger than {MOST_BODY_BYTES} bytes")
    try:
        # Not bytes: json would take UTF-16 and UTF-32 as well. utf-8-sig: some clients begin with a mark.
        requests = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)["StartRequests"]
        if isinstance(requests, list):
            ids = [entry["EventId"] for entry in requests]
            if all(isinstance(event_id, str) for event_id in ids):
                return ids
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise _Refused(400, 'Bad request. The body is not {"StartRequests": [{"EventId": "..."}]}')


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _matches(request: Request, tag: str) -> bool:
    """True when the client already has this document: RFC 9110, section 13.1.2; weak tags count. A tag
    includes its quotes and contains none, so it can be found in any list of tags."""
    for name, value in request.headers:
        if name.lower() == "if-none-match" and (value.strip() == "*" or tag in value):
            return True
    return False


def refusal(status: HTTPStatus, why: str = "") -> Answer:
    """The answer to a message that is not a valid request. why: the error."""
    words = status.phrase.capitalize().replace("Http", "HTTP") + "."
    return _answer(status.value, to_json({"error": f"{words} {why}".rstrip()}))


# -- answers -----------------------------------------------------------------------------------------


def _answer(
    status: int, body: bytes = b"", *headers: tuple[str, str], kind: str = _JSON, after_ns: int = 0
) -> Answer:
    return Answer(status, (("Server", SERVER), ("Content-Type", kind), *headers), body, after_ns)
