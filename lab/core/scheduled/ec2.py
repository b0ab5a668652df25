"""EC2's instance metadata service: the answer to a client's request, without HTTP itself.

`events/maintenance/scheduled` has the guest's events from their publication until they are over, `history`
those that are over or called off. A preemption is told by `spot/instance-action`, `spot/termination-time` and
`events/recommendations/rebalance` instead. Nobody needs to ask to get a notice, and nobody can end it.
docs/notices.md has the sources, field by field, and what they leave open.

A session token (IMDSv2) is the time until which it is valid and a keyed digest of that and the guest, so the
service keeps none, and a token is of no use to another guest. Tokens expire by the host's clock, also while
their guest is frozen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

from lab.core.clock import Stamp
from lab.core.scheduled import ec2_instance
from lab.core.scheduled.documents import day_date, iso_date
from lab.core.scheduled.ec2_instance import Node
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import Event, EventType, Fault, Recorded, State
from lab.core.scheduled.requests import Answer, Request
from lab.core.scheduled.wrong_answers import is_correct, spoiled
from lab.core.units import NS_PER_S

LONGEST_TTL_S = 21_600

TOKEN, TTL = "x-aws-ec2-metadata-token", "x-aws-ec2-metadata-token-ttl-seconds"
_TOKENS = ["latest", "api", "token"]
_SCHEDULED = ["meta-data", "events", "maintenance", "scheduled"]
_SPOT = (
    ["meta-data", "spot", "instance-action"],
    ["meta-data", "spot", "termination-time"],
    ["meta-data", "events", "recommendations", "rebalance"],
)
_CODES = {
    EventType.FREEZE: "system-maintenance",
    EventType.REBOOT: "system-reboot",
    EventType.REDEPLOY: "instance-stop",
    EventType.TERMINATE: "instance-retirement",
}
_SECONDS = re.compile(r"[0-9]{1,5}")
_TIME_BYTES = 8


@dataclass(frozen=True)
class ImdsOptions:
    """A guest's metadata options. v1: requests without a token are answered. hop_limit: the most hops of the
    answer with a token. secret: of the service, for tokens."""

    v1: bool = True
    hop_limit: int = 1
    secret: bytes = b""


class _Ec2Refusal(Exception):
    """Raised for a request that is answered with an error."""

    def __init__(self, status: int, why: str = "", *headers: tuple[str, str]) -> None:
        super().__init__(f"{status}: {why or HTTPStatus(status).phrase}")
        self.answer = error(status, why, *headers)


def error(status: int, why: str = "", *headers: tuple[str, str]) -> Answer:
    """The answer with an error."""
    title = f"{status} - {HTTPStatus(status).phrase}"
    page = (
        f'<?xml version="1.0"?>\n<html><head><title>{title}</title></head><body><h1>{title}</h1>{why}</body>'
    )
    return _answer(status, f"{page}</html>\n".encode(), *headers, kind="text/html")


def answer(
    machine: Machine,
    instances: Mapping[str, InstanceInfo],
    guest: str,
    now: Stamp,
    request: Request,
    options: ImdsOptions,
) -> Answer:
    """The answer to the guest's request; see requests.answer."""
    try:
        given = _answered(machine, instances.get(guest), guest, now, request, options)
    except _Ec2Refusal as refused:
        given = refused.answer
        if given.status != HTTPStatus.NOT_FOUND:  # which is how clients learn that there is nothing
            machine.refuse(now, guest, str(refused))
    return replace(given, body=b"") if request.verb == "HEAD" else given


def _answered(
    machine: Machine,
    about: InstanceInfo | None,
    guest: str,
    now: Stamp,
    request: Request,
    options: ImdsOptions,
) -> Answer:
    steps = [step for step in request.path.split("/") if step]
    headers = {name.lower(): value.strip() for name, value in request.headers}
    if request.verb == "PUT":
        return _token(guest, now, steps, headers, options)
    if request.verb not in ("GET", "HEAD"):
        raise _Ec2Refusal(405, "", ("Allow", "GET, HEAD, PUT"))
    if TOKEN in headers:
        if not _is_valid(headers[TOKEN], guest, now, options.secret):
            raise _Ec2Refusal(401, "the token is not valid")
    elif not options.v1:
        raise _Ec2Refusal(401, "there is no token")
    if not steps:
        return _answer(200, "\n".join(ec2_instance.VERSIONS).encode())
    mine = tuple(event for event in machine.shown(now, guest)[1] if guest in event.notice.resources)
    past = tuple((event, state) for event, state in machine.past(guest) if guest in event.notice.resources)
    place = steps[1:]
    read = _events_in(place, mine)
    fault: Fault | Recorded | None = None
    late_ns = 0
    if read is not None:
        fault, late_ns = machine.admit(now, guest)
    elif machine.is_over_rate(now, guest):
        raise _Ec2Refusal(HTTPStatus.TOO_MANY_REQUESTS)
    node: Node | None = None
    if about is not None and steps[0] in ec2_instance.VERSIONS:
        preempted = any(event.preempts for event in (*mine, *(event for event, _ in past)))
        lifecycle = "spot" if preempted else "on-demand"
        node = ec2_instance.find(ec2_instance.tree(about, _live(mine, past), lifecycle), place)
    truth = error(404) if node is None else _answer(200, ec2_instance.to_text(node, place).encode())
    if read is not None and is_correct(fault):
        machine.saw(now, guest, read)
    return replace(spoiled(truth, fault, guest, error), after_ns=late_ns)


# -- tokens ------------------------------------------------------------------------------------------


def _token(
    guest: str, now: Stamp, steps: Sequence[str], headers: Mapping[str, str], options: ImdsOptions
) -> Answer:
    if steps[1:] == _TOKENS[1:] and steps != _TOKENS:
        raise _Ec2Refusal(403, "tokens are below /latest alone")
    if steps != _TOKENS:
        raise _Ec2Refusal(405, "", ("Allow", "GET, HEAD"))
    if "x-forwarded-for" in headers:
        raise _Ec2Refusal(403, "X-Forwarded-For is not permitted in a request for a token")
    asked = headers.get(TTL, "")
    if not _SECONDS.fullmatch(asked) or not 1 <= int(asked) <= LONGEST_TTL_S:
        raise _Ec2Refusal(400, f"{TTL} is a number of seconds from 1 to {LONGEST_TTL_S}")
    until = (now.raw_ns + int(asked) * NS_PER_S).to_bytes(_TIME_BYTES, "big")
    made = b64encode(until + _digest(options.secret, guest, until))
    return replace(_answer(200, made, (TTL, asked)), hops=options.hop_limit)


def _digest(secret: bytes, guest: str, until: bytes) -> bytes:
    return hmac.digest(secret, guest.encode() + b"\0" + until, hashlib.sha256)


def _is_valid(token: str, guest: str, now: Stamp, secret: bytes) -> bool:
    try:
        given = b64decode(token.encode("ascii"), validate=True)
    except (NotBase64, ValueError):
        return False
    until, digest = given[:_TIME_BYTES], given[_TIME_BYTES:]
    if not hmac.compare_digest(digest, _digest(secret, guest, until)):
        return False
    return now.raw_ns < int.from_bytes(until, "big")


# -- events ------------------------------------------------------------------------------------------


def _events_in(place: Sequence[str], mine: Sequence[Event]) -> list[Event] | None:
    """The events that the answer has; None when it is about something else."""
    if place == _SCHEDULED:
        return [event for event in mine if not event.preempts]
    return [event for event in mine if event.preempts] if place in _SPOT else None


def _live(mine: Sequence[Event], past: Sequence[tuple[Event, State]]) -> dict[str, Node]:
    """The members of meta-data that events change."""
    scheduled = [_maintenance(event, "active") for event in mine if not event.preempts]
    history = [
        _maintenance(event, "canceled" if state is State.CANCELLED else "completed")
        for event, state in past
        if not event.preempts
    ]
    maintenance: dict[str, Node] = {"history": _document(history), "scheduled": _document(scheduled)}
    preemption = next((event for event in mine if event.preempts), None)
    if preemption is None:
        return {"events": {"maintenance": maintenance}}
    at = iso_date(preemption.not_before.real_ns)
    notice = json.dumps({"noticeTime": iso_date(preemption.published.real_ns)})
    return {
        "events": {"maintenance": maintenance, "recommendations": {"rebalance": notice}},
        "spot": {
            "instance-action": json.dumps({"action": "terminate", "time": at}),
            "termination-time": at,
        },
    }


def _maintenance(event: Event, state: str) -> dict[str, str]:
    prefix = "" if state == "active" else f"[{state.capitalize()}] "
    return {
        "NotBefore": day_date(event.not_before.real_ns),
        "Code": _CODES[event.notice.type],
        "Description": prefix + event.notice.description,
        "EventId": f"instance-event-{event.id.replace('-', '').lower()[:17]}",
        "NotAfter": day_date(event.window_end_real_ns),
        "State": state,
    }


def _document(events: Sequence[dict[str, str]]) -> str:
    return json.dumps(events, indent=2, separators=(",", " : "))


# -- answers -----------------------------------------------------------------------------------------


def _answer(status: int, body: bytes = b"", *headers: tuple[str, str], kind: str = "text/plain") -> Answer:
    return Answer(status, (("Server", "EC2ws"), ("Content-Type", kind), *headers), body)
