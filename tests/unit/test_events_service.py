"""The metadata service on real sockets: whose door it is, bad input, patience, and how it ends."""

from __future__ import annotations

import json
import shutil
import socket
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.plan import Announcement, CycleSpec, FreezeMethod, HoldPatch, ServiceFaults
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Fault, Kind, Late, Rules, State
from lab.core.scheduled.requests import MOST_BODY_BYTES
from lab.errors import MachineError
from lab.events import protocol
from lab.events import service as service_module
from lab.events.protocol import MOST_CONNECTIONS, MOST_HEAD_BYTES, REQUEST_S
from lab.events.service import MetadataService
from lab.process.clock import HostClock
from tests.unit.strategies import cases

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


# -- whose door it is --------------------------------------------------------------------------------


def test_a_guest_is_shown_events_of_its_own_availability_set_only(
    service: MetadataService, enter: Connect
) -> None:
    clients = {about.guest: enter(about.guest) for about in ABOUTS}
    for client in clients.values():
        assert client.ask().ids == []
    assert [guest for guest in clients if service.has_asked(guest)] == list(clients)
    (event,) = service.announcer.announce(["web-0"], Announcement(), CYCLE)
    assert {guest: client.ask().ids for guest, client in clients.items()} == {
        "web-0": [event], "web-1": [event], "db-0": [], "web": [],
    }  # fmt: skip
    for guest in ("db-0", "web"):
        assert clients[guest].ask(approval(event)).status == 400
    assert service.announcer.state([event]) is State.SCHEDULED
    reply = clients["web-1"].ask(approval(event.lower()))
    assert (reply.status, reply.body) == (200, b"")
    assert service.announcer.state([event]) is State.STARTED


def test_what_a_client_says_of_itself_counts_for_nothing(connect: Connect) -> None:
    client = connect("db-0")
    asked = head("/metadata/instance/compute/name?api-version=2021-02-01&format=text")
    for lie in (b"Host: web-0", b"Host: x\r\nX-Guest: web-0", b"Host: x\r\nForwarded: for=web-0;host=web-0"):
        assert client.ask(asked.replace(b"Host: 169.254.169.254", lie)).body == b"lab_db-0"
    assert client.ask(head(EVENTS, "GET", "X-Forwarded-For: 10.0.0.1")).status == 400


def test_doors_are_for_their_owner_alone(service: MetadataService, folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for about in ABOUTS:
        assert stat.S_IMODE(service.path(about.guest).stat().st_mode) == 0o600
    with pytest.raises(KeyError):
        service.connect("nobody")


def test_a_tcp_door_is_one_guest_s(service: MetadataService) -> None:
    here = {guest: service.listen("127.0.0.1", 0, guest) for guest in ("web-0", "db-0")}
    anywhere = service.listen("0.0.0.0", 0, "db-0")  # noqa: S104 - for as long as the test
    event = ""
    for guest, address in {**here, "db-0 again": ("127.0.0.1", anywhere[1])}.items():
        client = Client(socket.create_connection(address))
        assert client.ask().ids == []
        event = event or service.announcer.announce(["web-0"], Announcement(), CYCLE)[0]
        assert client.ask().ids == ([event] if guest == "web-0" else [])
        client.close()
    with pytest.raises(KeyError):
        service.listen("127.0.0.1", 0, "nobody")


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "on an interface"), ("no such host", "no such address"), ("taken", "another program")],
)
def test_an_address_that_cannot_be_had(running: MetadataService, host: str, said: str) -> None:
    port = 0
    if host == "taken":
        host, port = running.listen("127.0.0.1", 0, "db-0")
    with pytest.raises(MachineError, match=said) as told:
        running.listen(host, port, "web-0")
    assert len(str(told.value).splitlines()) <= 2


# -- input of every kind -----------------------------------------------------------------------------

TOO_LARGE = MOST_BODY_BYTES + 1

BAD = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "empty lines": (b"\r\n\r\nfoo\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /metadata/versions\r\n\r\n", 400),
    "no host": (b"GET /metadata/versions HTTP/1.1\r\nMetadata: true\r\n\r\n", 400),
    "NUL in a header": (head(EVENTS, "GET", "X: a\0b"), 400),
    "junk for a header": (head(EVENTS, "GET", "no colon at all"), 400),
    "space in a name": (head(EVENTS, "GET", "Some Header: x"), 400),
    "bytes above ASCII": (head(EVENTS, "GET", "X: \xff\xfe\xe4"), 200),
    "a large head": (head(EVENTS, "GET", "X: " + "a" * 4 * MOST_HEAD_BYTES), 431),
    "many headers": (head(EVENTS, "GET", *[f"X-{n}: {n}" for n in range(4000)]), 431),
    "a long path": (head("/metadata/" + "a" * 4 * MOST_HEAD_BYTES), 431),
    "a large body": (head(EVENTS, "POST", f"Content-Length: {TOO_LARGE}") + b"a" * TOO_LARGE, 413),
    "a body said to be huge": (head(EVENTS, "POST", "Content-Length: 99999999999"), 413),
    "huge, and it asks first": (head(EVENTS, "POST", "Content-Length: 9999999", "Expect: 100-continue"), 413),
    "large in chunks": (
        head(EVENTS, "POST", "Transfer-Encoding: chunked") + b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
        + b"".join(b"8000\r\n" + b"b" * 0x8000 + b"\r\n" for _ in range(4)) + b"0\r\n\r\n", 413,
    ),
    "chunks that are none": (head(EVENTS, "POST", "Transfer-Encoding: chunked") + b"zz\r\nabc\r\n", 400),
    "no length": (head(EVENTS, "POST", "Content-Length: many"), 400),
    "less than nothing": (head(EVENTS, "POST", "Content-Length: -1"), 400),
    "two lengths": (head(EVENTS, "POST", "Content-Length: 1", "Content-Length: 2") + b"ab", 400),
    "an unknown coding": (head(EVENTS, "POST", "Transfer-Encoding: gzip"), 501),
    "no JSON": (head(EVENTS, "POST", "Content-Length: 3") + b"{{{", 400),
    "no approval": (head(EVENTS, "POST", "Content-Length: 2") + b"[]", 400),
    "nested deeply": (head(EVENTS, "POST", "Content-Length: 60000") + b"[" * 60000, 400),
    "another verb": (head(EVENTS, "DELETE"), 405),
    "a tunnel": (b"CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n", 404),
    "a verb of its own": (head(EVENTS, "FREEZE"), 405),
    "another path": (head("/latest/meta-data/"), 404),
    "up and away": (head("/metadata/../../../etc/passwd"), 404),
    "up, in disguise": (head("/metadata/%2e%2e/%2e%2e/etc/passwd"), 404),
    "up, at last": (head("/metadata/scheduledevents/..%2f..%2finstance?api-version=2021-02-01"), 404),
    "the absolute form": (head("http://169.254.169.254/metadata/versions"), 200),
    "the absolute form, of another name": (head("HTTP://metadata:80" + EVENTS), 200),
    "the absolute form without a path": (head("http://169.254.169.254"), 404),
    "another scheme": (head("ftp://169.254.169.254/metadata/versions"), 404),
    "an empty line before it": (b"\r\n" + POLL, 200),
    "HTTP/2": (POLL.replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.0": (POLL.replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    "a length and chunks": (
        head(EVENTS, "POST", "Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400,
    ),
    "a long query": (head(EVENTS + "&x=" + "a" * MOST_HEAD_BYTES), 431),
    "a query as long as may be": (head(EVENTS + "&x=" + "a" * (MOST_HEAD_BYTES - 200)), 200),
    "a length beyond all numbers": (head(EVENTS, "POST", "Content-Length: " + "9" * 5000), 400),
    "no version": (head("/metadata/scheduledevents"), 400),
    "a version twice": (head(EVENTS + "&api-version=2020-07-01"), 400),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_answered_honestly_and_hurts_nobody(running: MetadataService, what: str) -> None:
    raw, status = BAD[what]
    other, client, third = (Client(running.connect(guest)) for guest in ("db-0", "web-0", "web-0"))
    other.send(POLL[:20])
    sending = threading.Thread(target=_send_all, args=(client, raw))
    sending.start()
    reply = client.reply()
    sending.join()
    assert reply.status == status
    assert reply.headers["server"].startswith("IMDS/")
    assert reply.headers["date"].endswith(" GMT")
    assert uuid.UUID(reply.headers["x-ms-request-id"]).version == 4
    if status >= 400:
        assert set(reply.json) <= {"error", "newest-versions"}
        assert len(reply.body) < 1000
        assert "b'" not in reply.body.decode(), "no bytes as Python writes them"
    other.send(POLL[20:])
    assert other.reply().status == 200
    assert third.ask().status == 200
    for one in (client, other, third):
        one.close()


def _send_all(client: Client, raw: bytes) -> None:
    with suppress(ConnectionError):  # it may be refused before all of it was sent
        client.send(raw)


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_left_of_a_large_body_is_never_a_request(connect: Connect, at_once: bool) -> None:
    client, inside = connect("web-0"), POLL * 1000
    start, rest = (
        head(EVENTS, "POST", f"Content-Length: {len(inside) + TOO_LARGE}"),
        inside + b"a" * TOO_LARGE,
    )
    if at_once:
        _send_all(client, start + rest)
    else:
        client.send(start)
        time.sleep(0.1)
        _send_all(client, rest)
    assert client.reply().status == 413
    with suppress(EOFError, ConnectionError):  # it may be closed
        assert client.ask(head("/metadata/versions")).body.startswith(b'{"apiVersions"')


@given(data=st.data())
@cases(60)
def test_noise_never_ends_the_service(running: MetadataService, data: st.DataObject) -> None:
    """Requests with bytes changed, cut out, put in and cut off; then true ones."""
    raw = bytearray(
        data.draw(st.sampled_from([POLL, approval("A" * 36), head("/metadata/instance?api-version=x")])) * 2
    )
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    client = Client(running.connect("web-0"))
    for part in (bytes(raw[: len(raw) // 2]), bytes(raw[len(raw) // 2 :])):
        _send_all(client, part)
    with suppress(OSError):
        client.socket.shutdown(socket.SHUT_WR)
    with suppress(EOFError, ConnectionError):
        while True:
            assert client.reply().status in (200, 400, 404, 405, 413, 431, 501, 505)
    client.close()
    good = Client(running.connect("web-1"))
    assert good.ask().status == 200
    good.close()
    assert running.trouble == ""


ROW = {
    "poll": (POLL, 200),
    "approval": (approval("A" * 36), 400),
    "no events": (head(EVENTS, "POST", "Content-Length: 20") + b'{"StartRequests":[]}', 200),
    "chunks": (
        head(EVENTS, "POST", "Transfer-Encoding: chunked")
        + b'5\r\n{"Sta\r\nf;x=y\r\nrtRequests":[]}\r\n0\r\nTrailer: t\r\n\r\n', 200,
    ),
    "body of another verb": (head(EVENTS, "PUT", "Content-Length: 5") + b"GET /", 405),
    "no such path": (head("/metadata/nothing"), 404),
    "absolute": (head("http://h/metadata/versions"), 200),
    "upgrade": (head(EVENTS, "GET", "Connection: Upgrade", "Upgrade: h2c"), 200),
}  # fmt: skip


@given(data=st.data())
@cases(60)
def test_requests_are_told_apart_however_they_arrive(running: MetadataService, data: st.DataObject) -> None:
    """Whatever comes after whatever, with empty lines between them, in pieces of any size."""
    row = data.draw(st.lists(st.sampled_from(list(ROW)), min_size=1, max_size=12))
    gaps = data.draw(st.lists(st.sampled_from([b"", b"\r\n", b"\n\r\n"]), min_size=12, max_size=12))
    raw = b"".join(gap + ROW[one][0] for gap, one in zip(gaps, row, strict=False))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    client = Client(running.connect("web-0"))
    for start, end in pairwise([0, *cuts, len(raw)]):
        client.send(raw[start:end])
        if data.draw(st.booleans()):
            time.sleep(0.0002)  # else they mostly arrive as one
    assert [client.reply().status for _ in row] == [ROW[one][1] for one in row]
    client.close()


def test_requests_in_a_row_are_answered_in_a_row(connect: Connect) -> None:
    paths = [EVENTS, "/metadata/nothing", "/metadata/versions"] * 100
    client = connect("web-0")
    client.send(b"".join(map(head, paths)))
    assert [client.reply().status for _ in paths] == [200, 404, 200] * 100


def test_empty_lines_between_requests_are_ignored(connect: Connect) -> None:
    """RFC 9112, section 2.2: old clients end the body of a POST with one."""
    client = connect("web-0")
    client.send(approval("A" * 36) + b"\r\n" + POLL + b"\r\n\r\n" * 10 + POLL)
    assert [client.reply().status for _ in range(3)] == [400, 200, 200]
    for byte in b"\r\n\r\n":
        client.send(bytes([byte]))
    assert client.ask().status == 200


def test_a_length_beside_chunks_ends_the_connection(connect: Connect) -> None:
    """RFC 9112, section 6.1: what follows may be part of the body for others."""
    client = connect("web-0")
    both = head(EVENTS, "POST", "Content-Length: 3", "Transfer-Encoding: chunked")
    reply = client.ask(both + b"0\r\n\r\n" + POLL)
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    assert reply.json == {"error": "Bad request. Content-Length together with Transfer-Encoding"}
    assert client.is_at_end()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (head(EVENTS, "GET", "no colon at all"), "Bad request. illegal header line"),
        (b"GET /x HTTP/1.1 and more\r\n\r\n", "Bad request. illegal request line"),
        (BAD["chunks that are none"][0], "Bad request. illegal chunk header"),
        (
            head(EVENTS, "POST", "Transfer-Encoding: chunked") + b"1\r\naXY",
            "Bad request. malformed chunk footer",
        ),
        (BAD["HTTP/2"][0], "HTTP version not supported. only HTTP/1.1 and 1.0 are supported"),
    ],
)
def test_errors_do_not_quote_bytes_as_python_does(connect: Connect, raw: bytes, said: str) -> None:
    assert connect("web-0").ask(raw).json == {"error": said}


def test_what_a_client_sends_ahead_is_bounded_while_it_waits(folder: Path) -> None:
    """It may not fill the service's memory with requests that wait for one which hangs."""
    with MetadataService(ABOUTS, Rules(), HostClock(), folder) as running, clients_of(running) as connect:
        client = connect("web-0")
        assert client.ask().status == 200
        hang = ServiceFaults(answers=(Fault.HANG,))
        running.announcer.announce(["web-0"], Announcement(service=hang), CYCLE)
        client.send(POLL)
        client.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.socket.sendall(POLL * 500_000)
        (one,) = running._open[0][1].connections
        assert len(one._ahead) < 1 << 20


def test_an_upgrade_is_not_taken_and_does_no_harm(connect: Connect) -> None:
    """Java's client asks for HTTP/2 with each request that it makes in the clear."""
    client = connect("web-0")
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    for _ in range(3):
        assert client.ask(head(EVENTS, "GET", *upgrade)).status == 200
        assert client.ask().status == 200


# -- patience ----------------------------------------------------------------------------------------


def test_no_freeze_is_longer_than_the_service_s_patience() -> None:
    assert REQUEST_S >= 3600


@pytest.mark.parametrize("raw", [POLL, approval("A" * 36)])
def test_a_request_may_come_in_pieces(connect: Connect, raw: bytes) -> None:
    client = connect("web-0")
    for byte in raw[:-1]:
        client.send(bytes([byte]))
        time.sleep(0.0005)
    time.sleep(0.2)
    client.send(raw[-1:])
    assert client.reply().status == (200 if raw is POLL else 400)


@pytest.mark.parametrize("raw", [POLL[:30], approval("A" * 36)[:-4], POLL + POLL[:-1]])
def test_a_request_that_never_ends_is_given_up(
    monkeypatch: pytest.MonkeyPatch, running: MetadataService, connect: Connect, raw: bytes
) -> None:
    monkeypatch.setattr(protocol, "REQUEST_S", 0.1)
    idle, slow = connect("web-1"), connect("web-0")
    idle.ask()
    slow.send(raw)
    if raw.startswith(POLL):
        assert slow.reply().status == 200
    assert slow.reply().status == 408
    assert slow.is_at_end()
    slow.close()
    assert idle.ask().status == 200
    assert eventually(lambda: connections(running) == 1)


def test_each_request_has_its_own_time(service: MetadataService, enter: Connect) -> None:
    """Also where the end of one comes with the beginning of the next."""
    client = enter("web-0")

    def gives_up() -> float:
        timers = [one._too_late for _, door in service._open for one in door.connections]
        return max((timer.when() for timer in timers if timer is not None), default=0.0)

    client.send(POLL[:30])
    assert eventually(lambda: gives_up() > 0)
    first = gives_up()
    client.send(POLL[30:] + POLL[:30])
    assert client.reply().status == 200
    assert eventually(lambda: gives_up() > first)
    client.send(POLL[30:])
    assert client.reply().status == 200
    assert eventually(lambda: gives_up() == 0)


def test_whoever_leaves_in_the_middle_leaves_nothing(running: MetadataService, connect: Connect) -> None:
    for raw in (b"", POLL[:10], POLL[:-2], approval("A" * 36)[:-3], POLL, POLL * 50):
        client = connect("web-0")
        client.send(raw)
        client.close()
    assert eventually(lambda: connections(running) == 0)


def test_a_client_that_closed_its_sending_side_is_still_answered(connect: Connect) -> None:
    """As `printf … | nc` does."""
    client = connect("web-0")
    client.send(POLL)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.reply().status == 200
    assert client.is_at_end()


@pytest.mark.parametrize(
    "raw", [POLL.replace(b"HTTP/1.1", b"HTTP/1.0"), head(EVENTS, "GET", "Connection: close")]
)
def test_a_client_that_wants_one_answer_gets_the_end_with_it(connect: Connect, raw: bytes) -> None:
    client = connect("web-0")
    assert client.ask(raw + POLL).status == 200
    assert client.is_at_end()


def test_two_hundred_idle_connections_are_no_burden(running: MetadataService, connect: Connect) -> None:
    idle = [connect("web-0") for _ in range(200)]
    for number, client in enumerate(idle):
        if number % 3 == 0:
            assert client.ask().status == 200
        elif number % 3 == 1:
            client.send(POLL[:25])
    busy = [connect("web-0"), connect("db-0")]
    for _ in range(200):
        for client in busy:
            assert client.ask().status == 200
    for number, client in enumerate(idle):
        client.send(POLL[25:] if number % 3 == 1 else POLL)
        assert client.reply().status == 200


def test_a_guest_that_opens_too_many_loses_those_it_does_not_use(connect: Connect) -> None:
    other, first = connect("db-0"), connect("web-0")
    assert first.ask().status == 200
    crowd = [connect("web-0") for _ in range(MOST_CONNECTIONS)]
    assert first.is_at_end()
    assert crowd[-1].ask().status == 200
    assert crowd[0].ask().status == 200
    assert other.ask().status == 200


# -- answers that are wrong on purpose ---------------------------------------------------------------


def test_faults_are_answered_in_turn_and_then_the_truth(service: MetadataService, enter: Connect) -> None:
    client, mate, other = enter("web-0"), enter("web-1"), enter("db-0")
    assert [one.ask().status for one in (client, mate, other)] == [200, 200, 200]
    faults = ServiceFaults(answers=(Fault.GONE, Fault.TOO_MANY, Fault.BROKEN))
    service.announcer.announce(["web-0"], Announcement(service=faults), CYCLE)
    for one in (client, mate):
        assert [one.ask().status for _ in range(4)] == [410, 429, 500, 200]
    assert other.ask().status == 200


def test_a_truncated_document_ends_the_connection(service: MetadataService, enter: Connect) -> None:
    client = enter("web-0")
    true = client.ask()
    faults = ServiceFaults(answers=(Fault.TRUNCATED,))
    service.announcer.announce(["db-0", "web-1"], Announcement(service=faults), CYCLE)
    cut = client.ask()
    assert int(cut.headers["content-length"]) > len(cut.body) > 0
    assert cut.headers["content-type"] == true.headers["content-type"]
    assert client.is_at_end()
    assert len(enter("web-0").ask().ids) == 1


def test_a_late_answer_holds_nobody_else_up(service: MetadataService, enter: Connect) -> None:
    client, other = enter("web-0"), enter("web-1")
    assert [one.ask().status for one in (client, other)] == [200, 200]
    faults = ServiceFaults(answers=(Late(S // 5),))
    service.announcer.announce(["web-0"], Announcement(service=faults), CYCLE)
    began = time.monotonic()
    client.send(POLL + head("/metadata/versions"))
    assert len(client.reply().ids) == 1
    assert time.monotonic() - began >= 0.2
    assert "apiVersions" in client.reply().json
    assert other.ask().status == 200


def test_a_hanging_answer_ends_with_the_client_or_the_service(folder: Path) -> None:
    with MetadataService(ABOUTS, Rules(), HostClock(), folder) as running:
        leaves, stays, other = (Client(running.connect(guest)) for guest in ("web-0", "web-1", "db-0"))
        assert [one.ask().status for one in (leaves, stays, other)] == [200, 200, 200]
        hang = ServiceFaults(answers=(Fault.HANG,))
        running.announcer.announce(["web-0"], Announcement(service=hang), CYCLE)
        leaves.send(POLL)
        stays.send(POLL)
        again = Client(running.connect("web-1"))
        assert eventually(lambda: again.ask().status == 200)  # the one that hangs was its first
        leaves.close()
        assert eventually(lambda: connections(running) == 3)
        stays.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stays.reply()
        stays.socket.settimeout(PATIENCE_S)
        assert other.ask().status == 200
    for client in (stays, again, other):
        assert client.socket.recv(1) == b""
        client.close()
    assert running.trouble == ""


def test_the_first_answer_may_be_late(folder: Path) -> None:
    with MetadataService(ABOUTS, Rules(60, first_answer_s=18), HostClock(), folder) as running:
        client, other = Client(running.connect("web-0")), Client(running.connect("db-0"))
        before = time.monotonic()
        client.send(POLL)
        other.send(head("/metadata/versions"))
        assert other.reply().status == 200
        assert client.reply().status == 200
        assert time.monotonic() - before >= 0.3
        client.close()
        other.close()


def test_a_mistake_inside_is_one_request_s_misfortune(
    monkeypatch: pytest.MonkeyPatch, running: MetadataService, connect: Connect
) -> None:
    client = connect("web-0")

    def broken(*_: object) -> None:
        raise RuntimeError("on purpose")

    with monkeypatch.context() as during:
        during.setattr(service_module, "answer", broken)
        assert client.ask().status == 500
    assert "on purpose" in running.trouble
    running.trouble = ""
    assert client.ask().status == 200


# -- many at once ------------------------------------------------------------------------------------


def test_polls_from_everywhere_while_events_come_and_go(service: MetadataService) -> None:
    """Each connection sees incarnations that never fall, and its own set's events alone."""
    ended = threading.Event()

    def poll(guest: str) -> set[str]:
        client, last, seen = Client(service.connect(guest)), 0, set[str]()
        while not ended.is_set():
            reply = client.ask()
            now = json.loads(reply.body)["DocumentIncarnation"]
            assert reply.status == 200
            assert last <= now
            last = now
            seen.update(reply.ids)
            if reply.ids and guest == "web-1":
                assert client.ask(approval(reply.ids[0])).status in (200, 400)  # it may be gone by now
        client.close()
        return seen

    guests = ["web-0", "web-1", "web-0", "web-1", "db-0", "web"]
    with ThreadPoolExecutor(len(guests)) as pool:
        polls = [pool.submit(poll, guest) for guest in guests]
        made: set[str] = set()
        try:
            assert eventually(lambda: all(map(service.has_asked, set(guests))))
            for _ in range(40):
                events = service.announcer.announce(["web-0", "web-1"], Announcement(), CYCLE)
                made.update(events)
                assert eventually(lambda events=events: service.announcer.state(events) is State.STARTED)  # type: ignore[misc]
                service.announcer.all_clear(events)
        finally:
            ended.set()
        seen = dict(zip(guests, [one.result() for one in polls], strict=True))
    assert seen["db-0"] == seen["web"] == set()
    assert seen["web-0"] <= made
    assert seen["web-1"] <= made
    told = [one.kind for one in service.announcer.happened()]
    assert told.count(Kind.STARTED) == told.count(Kind.GONE) == 40


# -- beginning and end -------------------------------------------------------------------------------


def test_it_leaves_nothing_behind(folder: Path) -> None:
    threads = set(threading.enumerate())
    files = len(list(Path("/proc/self/fd").iterdir()))
    with MetadataService(ABOUTS, Rules(), HostClock(), folder) as running:
        port = running.listen("127.0.0.1", 0, "db-0")[1]
        clients = [Client(running.connect("web-0")) for _ in range(50)]
        for client in clients[::2]:
            client.ask()
        clients[1].send(POLL[:30])
    assert not folder.exists()
    assert set(threading.enumerate()) == threads
    for client in clients:
        assert client.is_at_end()
        client.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(MachineError, match="does not run"):
        running.connect("web-0")


def test_it_ends_while_an_error_passes_through(folder: Path) -> None:
    with pytest.raises(ValueError, match="mine"), MetadataService(ABOUTS, Rules(), HostClock(), folder):
        raise ValueError("mine")
    assert not folder.exists()


def test_a_folder_of_the_caller_s_stays_and_old_sockets_are_replaced(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    (folder / "mine").write_text("kept")
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(folder / "0"))
    with MetadataService(ABOUTS, Rules(), HostClock(), folder) as running:
        client = Client(running.connect("web-0"))
        assert client.ask().status == 200
        client.close()
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_a_file_in_the_way_is_not_removed(folder: Path) -> None:
    folder.mkdir()
    (folder / "1").write_text("mine")
    with (
        pytest.raises(MachineError, match="no socket"),
        MetadataService(ABOUTS, Rules(), HostClock(), folder),
    ):
        pytest.fail("it has begun")
    assert (folder / "1").read_text() == "mine"


def test_a_socket_path_that_is_too_long_is_refused_with_that_reason(folder: Path) -> None:
    long = folder / ("x" * 100)
    with (
        pytest.raises(MachineError, match="too long") as told,
        MetadataService(ABOUTS, Rules(), HostClock(), long),
    ):
        pytest.fail("it has begun")
    assert "FREEZELAB_HOME" in told.value.hint
    assert not long.exists()
