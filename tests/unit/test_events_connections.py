"""The metadata service over HTTP: requests in pieces, slow clients and many connections."""

from __future__ import annotations

import socket
import time

import pytest

from lab.events import protocol
from lab.events.protocol import MOST_CONNECTIONS, REQUEST_S
from lab.events.service import MetadataService
from tests.unit.http_clients import (
    EVENTS,
    POLL,
    Connect,
    approval,
    connections,
    eventually,
    head,
)

pytest_plugins = ["tests.unit.http_clients"]


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
