"""The client of a running metadata service's control socket, for `freezelab events …` (see
events.control)."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import MachineError, UsageError

if TYPE_CHECKING:
    from lab.ports import Clock

SOCKET = "control"
START = "freezelab events serve"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
PATIENCE_S = 10
LOOK_NS = 100_000_000
IDS = "freezelab events list --all shows their ids"


class Control:
    """A running service. UsageError when none is running, none has that name, or several run and no name is
    given."""

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

    def follow(
        self, made: Sequence[Mapping[str, Any]], clock: Clock, report: Callable[[str], None]
    ) -> list[Mapping[str, Any]]:
        """Wait until the events no longer change by themselves. report: called with one line for each
        change."""
        known = {one["id"]: one for one in made}
        while True:
            there = {one["id"]: one for one in self.events()}
            for name, before in known.items():
                now = known[name] = there[name]
                changes = [f"seen by {who}" for who in now["seen"][len(before["seen"]) :]]
                changes += [f"approved by {who}" for who in now["approved"][len(before["approved"]) :]]
                changes += [now["state"]] if now["state"] != before["state"] else []
                for text in changes:
                    report(f"{name[:8]}  {text}")
            if not any(_changes(one) for one in known.values()):
                return list(known.values())
            clock.sleep_until(clock.now().raw_ns + LOOK_NS)

    def _ask(self, verb: str, path: str, body: object = None) -> dict[str, Any]:
        connection = _Connection(self._path)
        try:
            connection.request(verb, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            reply = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise MachineError(f"the service does not answer: {error}", where=str(self._path)) from None
        finally:
            connection.close()
        if response.status != 200:
            refused = reply["error"]
            raise UsageError(refused["what"], where=refused["where"], hint=refused["hint"])
        return dict(reply)


def _changes(one: Mapping[str, Any]) -> bool:
    """Whether the event will start or end by itself."""
    return one["state"] == "scheduled" or (one["state"] == "started" and one["over_after_s"] is not None)


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
        raise UsageError(f"not a name for a service: {name!r}")
    running = [path.parent.name for path in sorted((home / "events").glob(f"*/{SOCKET}")) if _runs(path)]
    if name in running:
        return str(name)
    if name is None and len(running) == 1:
        return running[0]
    if name is None and running:
        raise UsageError(f"which service? Running: {', '.join(running)}", hint=f"--name {running[0]}")
    if name is None:
        raise UsageError("no service is running", hint=f"start one: {START}")
    hint = f"running: {', '.join(running)}" if running else f"start it: {START} --name {name}"
    raise UsageError(f"no service named {name!r} is running", hint=hint)


def _runs(path: Path) -> bool:
    """Whether a service listens on the socket; the file may be left from one that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PATIENCE_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _checked(event: str) -> str:
    """An event's id, or the beginning of one, that is safe in a URL's path. UsageError when it cannot be
    one."""
    if not re.fullmatch(r"[0-9A-Fa-f-]{1,36}", event):
        raise UsageError(f"there is no event {event!r}", hint=IDS)
    return event
