"""The control socket of a metadata service that runs without a playbook: a Unix socket with HTTP and JSON.
Its client is events.client.

Each service has a folder, HOME/events/NAME, with `control` and the guests' sockets. The service locks the
folder while it runs, so a folder without a lock was left by a killed service, and is reused.

    GET  /service                the service and its guests
    GET  /events                 all events that were announced
    POST /events                 announce
    POST /events/ID/VERB         approve, start, cancel, finish
    GET  /openapi.json           what these take and answer (events.openapi)
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.core.scheduled.model import EventSource, EventType, OnPurpose, Recorded, on_purpose
from lab.core.scheduled.requests import Answer, Request
from lab.errors import FreezelabError, MachineError, UsageError
from lab.events.client import NAME
from lab.events.event_operator import EventOperator
from lab.events.openapi import ANNOUNCE, SCHEMA, VERBS, mismatch, openapi
from lab.events.protocol import HttpListener

if TYPE_CHECKING:
    from lab.core.plan import Announcement


@contextmanager
def claimed(home: Path, name: str) -> Iterator[Path]:
    """A context with the empty, locked folder of the service `name`; it is removed at the end. UsageError
    when a service of this name is already running, or the name is not valid. MachineError when the folder
    cannot be created."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"not a name for a service: {name!r}", hint="letters, digits, dots and dashes, 32 at most"
        )
    folder = home / "events" / name
    handle = _locked(folder)
    try:
        _empty(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)
        with suppress(OSError):
            folder.parent.rmdir()


def _locked(folder: Path) -> int:
    while True:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # the previous service has just removed it
        except OSError as error:
            raise MachineError(f"the folder cannot be created: {error.strerror}", where=str(folder)) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), folder.stat()):
                    return handle
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                f"a service named {folder.name!r} is running already",
                hint="end it, or start another: --name NAME",
            ) from None
        os.close(handle)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_socket():
            path.unlink()


def control_listener(desk: EventOperator, about: dict[str, Any]) -> HttpListener:
    """The control socket's listener. about: members of the answer to GET /service beside the guests."""

    def answer(request: Request) -> Answer:
        try:
            return _json(HTTPStatus.OK, _act(desk, about, request))
        except FreezelabError as error:
            return _error(error.what, error.where, error.hint)
        except (ValueError, RecursionError) as error:
            return _error(f"invalid: {error}")

    return HttpListener(answer, lambda status, why: _error(f"{status.phrase.lower()}: {why}"))


def _act(desk: EventOperator, about: dict[str, Any], request: Request) -> dict[str, Any]:
    if any(name.lower() == "origin" for name, _ in request.headers):
        raise UsageError("not for pages in a browser", hint="a request has no Origin header")
    match request.verb, request.path.strip("/").split("/"):
        case "GET", ["openapi.json"]:
            return openapi()
        case "GET", ["service"]:
            return {"schema": SCHEMA, **about, "guests": desk.guests()}
        case "GET", ["events"]:
            return {"schema": SCHEMA, "events": desk.events()}
        case "POST", ["events"]:
            asked = json.loads(request.body)
            if why := mismatch(asked, ANNOUNCE):
                raise UsageError(why)
            made = desk.announce(
                asked.get("guests", ()),
                asked.get("all", False),
                _announcement(asked, desk),
                asked.get("over_after_ns"),
            )
            return {"schema": SCHEMA, "events": made}
        case "POST", ["events", event, verb] if verb in VERBS:
            return desk.act(verb, event)
    raise UsageError(f"no {request.verb} {request.path}", hint=f"verbs of an event: {', '.join(VERBS)}")


def _answer(given: str | dict[str, str]) -> OnPurpose:
    """The fault for an answer in the request's JSON: a fault's name, or an object with a text."""
    if isinstance(given, str):
        return on_purpose(given, lambda _: "")
    return Recorded(given["name"], given["body"])


def _json(status: HTTPStatus, value: object) -> Answer:
    headers = (("Content-Type", "application/json; charset=utf-8"),)
    return Answer(status.value, headers, json.dumps(value).encode())


def _error(what: str, where: str = "", hint: str = "") -> Answer:
    return _json(HTTPStatus.BAD_REQUEST, {"error": {"what": what, "where": where, "hint": hint}})


def _announcement(asked: dict[str, Any], desk: EventOperator) -> Announcement:
    from lab.core.plan import Announcement, ServiceFaults

    return Announcement(
        type=EventType(asked.get("type", EventType.FREEZE)),
        notice_ns=asked.get("notice_ns"),
        duration_s=asked.get("duration_s"),
        source=EventSource(asked.get("source", EventSource.PLATFORM)),
        description=asked.get("description", ""),
        time_factor=desk.time_factor,
        cloud=desk.cloud,
        service=ServiceFaults(
            answers=tuple(map(_answer, asked.get("answers", ()))), restarts=asked.get("restarts", False)
        ),
    )
