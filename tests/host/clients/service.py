"""`freezelab events serve` in a network namespace, and its control door, which is a path and so the same
everywhere."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import FreezelabError
from lab.events.client import Control
from tests.host.clients.namespaces import SERVICE, Namespace, running

OWN = f"{SERVICE}:80"
"""web-0's door: what unmodified clients ask."""

MATE = "127.0.0.1:8170"
"""The door of web-1, of the same availability set."""

OTHER = "127.0.0.1:8171"
"""The door of db-0, of another one."""

READY_S = 30
RELAY = Path(__file__).with_name("relay.py")
FREEZELAB = [sys.executable, str(Path(sys.executable).with_name("freezelab"))]


def command(home: Path, *words: str) -> list[str]:
    return ["env", f"FREEZELAB_HOME={home}", *FREEZELAB, *words]


@dataclass(frozen=True)
class Service:
    """Of real time: an event that nobody approves stays Scheduled for as long as a test can
    last."""

    home: Path

    @property
    def control(self) -> Control:
        return Control(self.home, None)

    def command(self, *words: str) -> str:
        """freezelab events WORDS; what it prints."""
        done = subprocess.run(
            command(self.home, "events", *words), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def announce(self, *guests: str, kind: str = "Freeze", answers: Sequence[str] = ()) -> str:
        """The event's id. answers: with which errors the next requests of each guest are answered."""
        asked = {"guests": guests, "type": kind, "answers": list(answers)}
        (made,) = self.control.announce(asked)
        assert made["state"] == "scheduled", made
        return str(made["id"])

    def finish(self, event: str) -> None:
        self.control.act("finish", event)

    def cancel(self, event: str) -> None:
        self.control.act("cancel", event)

    def event(self, event: str) -> dict[str, Any]:
        (found,) = (one for one in self.control.events() if one["id"] == event)
        return found

    def clear(self) -> None:
        """End every event, as if it had run its course."""
        for one in self.control.events():
            if one["state"] == "scheduled":
                self.cancel(one["id"])
            elif one["state"] == "started":
                self.finish(one["id"])

    def state(self, event: str) -> str:
        return str(self.event(event)["state"])

    def seen_by(self, event: str) -> list[str]:
        return list(self.event(event)["seen"])

    def approved_by(self, event: str) -> list[str]:
        return list(self.event(event)["approved"])


@contextlib.contextmanager
def served(inside: Namespace, home: Path, *options: str) -> Iterator[Service]:
    """web-0 and web-1 are the scale set web, so events call them web_0 and web_1; db-0 is a set of its
    own. options: of the command."""
    doors = [f"--listen={address}={guest}" for guest, address in GUESTS.items()]
    sets = ["--scale-set", "web=web-0,web-1", "--set", "db=db-0"]
    argv = command(home, "events", "serve", *doors, *sets, "--real-time", *options)
    with (
        (home / "log").open("w", encoding="utf-8") as log,
        running(inside.argv(argv), stdout=log, stderr=log) as process,
    ):
        service = Service(home)
        deadline = time.monotonic() + READY_S
        while not _is_ready(service):
            said = (home / "log").read_text("utf-8")
            assert process.poll() is None, f"it ended with status {process.returncode}: {said}"
            assert time.monotonic() < deadline, f"not ready within {READY_S} s: {said}"
            time.sleep(0.05)
        yield service


@contextlib.contextmanager
def relayed(near: Namespace, far: Namespace, door: str) -> Iterator[None]:
    """What asks 169.254.169.254 in `near` comes to a door in `far`."""
    argv = [sys.executable, str(RELAY), near.name, far.name, *door.split(":")]
    with running(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


GUESTS = {"web-0": OWN, "web-1": MATE, "db-0": OTHER}


def _is_ready(service: Service) -> bool:
    try:
        return len(service.control.service()["guests"]) == len(GUESTS)
    except FreezelabError:
        return False
