"""The metadata service over HTTP: invalid and unusual requests."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.plan import Announcement, ServiceFaults
from lab.core.scheduled.model import Fault, Rules
from lab.core.scheduled.requests import MOST_BODY_BYTES
from lab.events.protocol import MOST_HEAD_BYTES
from lab.events.service import MetadataService
from lab.process.clock import HostClock
from tests.unit.http_clients import (
    ABOUTS,
    CYCLE,
    EVENTS,
    POLL,
    Client,
    Connect,
    approval,
    clients_of,
    head,
)
from tests.unit.strategies import cases

pytest_plugins = ["tests.unit.http_clients"]


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
