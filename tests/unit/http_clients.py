"""Raw HTTP clients of a metadata service, and services for tests. `pytest_plugins` of a test module names it
for its fixtures."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.core.plan import CycleSpec, FreezeMethod, HoldPatch
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Rules
from lab.events.service import MetadataService
from lab.process.clock import HostClock

S = 1_000_000_000
CYCLE = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(5 * S))
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
PATIENCE_S = 20
ABOUTS = (
    InstanceInfo("web-0", "web_web-0", "id-0", "size", availability_set="web"),
    InstanceInfo("web-1", "web_web-1", "id-1", "size", availability_set="web"),
    InstanceInfo("db-0", "lab_db-0", "id-2", "size"),
    InstanceInfo("web", "lab_web", "id-3", "size"),  # in no set, and called like one
)


def head(path: str = EVENTS, verb: str = "GET", *more: str) -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", "Host: 169.254.169.254", "Metadata: true", *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def approval(*ids: str) -> bytes:
    body = json.dumps({"StartRequests": [{"EventId": one} for one in ids]}).encode()
    return head(EVENTS, "POST", f"Content-Length: {len(body)}") + body


POLL = head()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return dict(json.loads(self.body))

    @property
    def ids(self) -> list[str]:
        return [event["EventId"] for event in json.loads(self.body)["Events"]]


class Client:
    """One connection. Replies are read off it one by one, however they arrive."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(PATIENCE_S)
        self.socket, self._file = connected, connected.makefile("rb")

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def reply(self) -> Reply:
        line = self._file.readline()
        if not line:
            raise EOFError
        headers = {}
        while (text := self._file.readline().decode("latin-1").strip()) != "":
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        return Reply(int(line.split()[1]), headers, self._file.read(int(headers.get("content-length", 0))))

    def ask(self, raw: bytes = POLL) -> Reply:
        self.send(raw)
        return self.reply()

    def is_at_end(self) -> bool:
        """The service has closed it."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()


Connect = Callable[[str], Client]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: pytest's own may be too long for a socket."""
    made = Path(tempfile.mkdtemp(prefix="fl-"))
    yield made / "doors"
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def running() -> Iterator[MetadataService]:
    """For tests that leave no event and no fault behind: a start and an end are a fifth of a second."""
    made = Path(tempfile.mkdtemp(prefix="fl-"))
    with MetadataService(ABOUTS, Rules(), HostClock(), made) as service:
        yield service
    assert service.trouble == ""
    made.rmdir()


@pytest.fixture
def service(folder: Path) -> Iterator[MetadataService]:
    with MetadataService(ABOUTS, Rules(), HostClock(), folder) as running:
        yield running
    assert running.trouble == ""


@contextmanager
def clients_of(service: MetadataService) -> Iterator[Connect]:
    made: list[Client] = []

    def one(guest: str) -> Client:
        made.append(Client(service.connect(guest)))
        return made[-1]

    yield one
    for client in made:
        client.close()


@pytest.fixture
def connect(running: MetadataService) -> Iterator[Connect]:
    with clients_of(running) as one:
        yield one


@pytest.fixture
def enter(service: MetadataService) -> Iterator[Connect]:
    """Into the service of this test alone."""
    with clients_of(service) as one:
        yield one


def connections(service: MetadataService) -> int:
    return sum(len(door.connections) for _, door in service._open)


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()
