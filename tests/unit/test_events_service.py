"""The metadata service on real sockets: whose door it is, bad input, patience, and how it ends."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.core.plan import Announcement, ServiceFaults
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.model import Fault, Kind, Late, Rules, State
from lab.errors import MachineError
from lab.events.service import MetadataService
from lab.process.clock import HostClock
from tests.unit.http_clients import (
    ABOUTS,
    CYCLE,
    EVENTS,
    PATIENCE_S,
    POLL,
    Client,
    Connect,
    S,
    approval,
    connections,
    eventually,
    head,
)

pytest_plugins = ["tests.unit.http_clients"]


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
        during.setattr(CloudAnswers, "answer", broken)
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
