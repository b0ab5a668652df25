"""The control door of a metadata service that runs alone: a Unix socket that speaks HTTP and JSON, and the
client that knocks at it.

A service has a folder of its own, HOME/events/NAME: `control`, and the guests' doors. It holds a lock on it
while it runs. So a folder without a lock was left by one that was killed, and is taken over.

    GET  /service                what it serves, and to whom
    GET  /events                 all that were announced
    POST /events                 announce: guests, all, type, notice_ns, duration_s, source, description,
                                 answers, restarts, over_after_ns
    POST /events/ID/VERB         approve, start, cancel, finish
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.core.plan import Announcement, ServiceFaults
from lab.core.scheduled.model import EventSource, EventType, OnPurpose, Recorded, on_purpose
from lab.core.scheduled.requests import Answer, Request
from lab.errors import FreezelabError, MachineError, UsageError
from lab.events.protocol import Door

if TYPE_CHECKING:
    from lab.events.desk import Desk

SCHEMA = "freezelab.service/1"
SOCKET = "control"
START = "freezelab events serve"
VERBS = ("approve", "start", "cancel", "finish")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
PATIENCE_S = 10
IDS = "freezelab events list --all tells their ids"


# -- the service's side ------------------------------------------------------------------------------


@contextmanager
def claimed(home: Path, name: str) -> Iterator[Path]:
    """The folder of the service of this name, empty, as long as the context is not left; then it is removed.
    UsageError when a service of this name runs already, or it can have no such name."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"no name for a service: {name!r}", hint="letters, digits, dots and dashes, 32 at most"
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
            continue  # the one before us has just removed it
        except OSError as error:
            raise MachineError(f"the folder cannot be made: {error.strerror}", where=str(folder)) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), folder.stat()):
                    return handle
        except BlockingIOError:
            os.close(handle)
            raise UsageError(
                f"a service called {folder.name!r} runs already",
                hint="end it, or start another one: --name NAME",
            ) from None
        os.close(handle)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_socket():
            path.unlink()


def control_door(desk: Desk, about: dict[str, Any]) -> Door:
    """What answers at the control door. about: what is told of the service beside its guests."""

    def answer(request: Request) -> Answer:
        try:
            return _json(HTTPStatus.OK, _act(desk, about, request))
        except FreezelabError as error:
            return _error(error.what, error.where, error.hint)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _error(f"not understood: {error}")

    return Door(answer, lambda status, why: _error(f"{status.phrase.lower()}: {why}"))


def _act(desk: Desk, about: dict[str, Any], request: Request) -> dict[str, Any]:
    match request.verb, request.path.strip("/").split("/"):
        case "GET", ["service"]:
            return {"schema": SCHEMA, **about, "guests": desk.guests()}
        case "GET", ["events"]:
            return {"schema": SCHEMA, "events": desk.events()}
        case "POST", ["events"]:
            asked = json.loads(request.body)
            over_after = asked.get("over_after_ns")
            made = desk.announce(
                list(map(str, asked.get("guests", ()))),
                bool(asked.get("all")),
                _announcement(asked, desk.time_factor),
                None if over_after is None else int(over_after),
            )
            return {"schema": SCHEMA, "events": made}
        case "POST", ["events", event, verb] if verb in VERBS:
            return desk.act(verb, event)
    raise UsageError(f"no {request.verb} {request.path}", hint=f"verbs of an event: {', '.join(VERBS)}")


def _answer(given: str | dict[str, str]) -> OnPurpose:
    """As the operator's side sends it: its words, or a document with its text."""
    if isinstance(given, str):
        return on_purpose(given, lambda _: "")
    return Recorded(str(given["name"]), str(given["body"]))


def _json(status: HTTPStatus, value: object) -> Answer:
    headers = (("Content-Type", "application/json; charset=utf-8"),)
    return Answer(status.value, headers, json.dumps(value).encode())


def _error(what: str, where: str = "", hint: str = "") -> Answer:
    return _json(HTTPStatus.BAD_REQUEST, {"error": {"what": what, "where": where, "hint": hint}})


def _announcement(asked: dict[str, Any], time_factor: float) -> Announcement:
    kind, notice, duration = asked.get("type"), asked.get("notice_ns"), asked.get("duration_s")
    return Announcement(
        type=None if kind is None else EventType(kind),
        notice_ns=None if notice is None else int(notice),
        duration_s=None if duration is None else int(duration),
        source=EventSource(asked.get("source", EventSource.PLATFORM)),
        description=str(asked.get("description", "")),
        time_factor=time_factor,
        service=ServiceFaults(
            answers=tuple(map(_answer, asked.get("answers", ()))), restarts=bool(asked.get("restarts"))
        ),
    )


# -- the operator's side -----------------------------------------------------------------------------


class Control:
    """A running service. UsageError when there is none (of that name), or which one is not clear."""

    def __init__(self, home: Path, name: str | None) -> None:
        self._path = home / "events" / _choose(home, name) / SOCKET

    def service(self) -> dict[str, Any]:
        return self._ask("GET", "/service")

    def events(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/events")["events"])

    def announce(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        return list(self._ask("POST", "/events", asked)["events"])

    def act(self, verb: str, event: str) -> dict[str, Any]:
        return self._ask("POST", f"/events/{_checked(event)}/{verb}")

    def _ask(self, verb: str, path: str, body: object = None) -> dict[str, Any]:
        connection = _Connection(self._path)
        try:
            connection.request(verb, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            told = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise MachineError(f"the service does not answer: {error}", where=str(self._path)) from None
        finally:
            connection.close()
        if response.status != 200:
            said = told["error"]
            raise UsageError(said["what"], where=said["where"], hint=said["hint"])
        return dict(told)


class _Connection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def _choose(home: Path, name: str | None) -> str:
    if name is not None and not NAME.fullmatch(name):
        raise UsageError(f"no name for a service: {name!r}")
    running = [path.parent.name for path in sorted((home / "events").glob(f"*/{SOCKET}")) if _runs(path)]
    if name in running:
        return str(name)
    if name is None and len(running) == 1:
        return running[0]
    if name is None and running:
        raise UsageError(f"which service? running: {', '.join(running)}", hint=f"--name {running[0]}")
    if name is None:
        raise UsageError("no service is running", hint=f"start one: {START}")
    hint = f"running: {', '.join(running)}" if running else f"start it: {START} --name {name}"
    raise UsageError(f"no service called {name!r} is running", hint=hint)


def _runs(path: Path) -> bool:
    """Somebody listens: the file alone says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _checked(event: str) -> str:
    """What may be the beginning of an id, and goes into a path."""
    if not re.fullmatch(r"[0-9A-Fa-f-]{1,36}", event):
        raise UsageError(f"no event {event!r}", hint=IDS)
    return event
