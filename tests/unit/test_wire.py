"""The stamps of what comes over a socket: the kernel's, not those of the thread that reads it late."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from lab.guest import stamped_socket as module
from lab.guest.stamped_socket import Wire
from lab.process.clock import HostClock

LATE_S = 0.2


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with ours, theirs:
            yield Wire(ours, HostClock()), theirs


def stamped_at_arrival(wire: Wire, peer: socket.socket) -> bool:
    """Whether the kernel stamps what comes by now. Where no socket wanted stamps before, it begins with that
    a little later, on a workqueue (Linux, net/core/dev.c, net_enable_timestamp); what has none until then is
    stamped when it is read."""
    peer.sendall(b"w")
    sent = HostClock().now()
    time.sleep(0.02)
    wire.recv(1)
    return wire.last_received.raw_ns < sent.raw_ns + 10_000_000


def test_a_late_reader_has_the_stamp_of_the_arrival(pair: tuple[Wire, socket.socket]) -> None:
    wire, peer = pair
    assert any(stamped_at_arrival(wire, peer) for _ in range(500))
    before = HostClock().now()
    peer.sendall(b"x" * 100)
    sent = HostClock().now()
    time.sleep(LATE_S)
    assert wire.recv(16) == b"x" * 16
    stamp = wire.last_received
    assert before.raw_ns < stamp.raw_ns < sent.raw_ns + LATE_S * 0.5e9
    assert abs((stamp.real_ns - stamp.raw_ns) - (before.real_ns - before.raw_ns)) < LATE_S * 0.5e9
    time.sleep(0.01)
    assert wire.recv(100) == b"x" * 84  # what had come with it has its stamp
    assert wire.last_received == stamp


def test_a_step_of_the_clock_never_makes_it_early(
    pair: tuple[Wire, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from MONOTONIC_RAW, the kernel's stamp is of the time before the step, and the look after it."""
    wire, peer = pair
    for step in (-5_000_000_000, 5_000_000_000):
        before = HostClock().now()
        peer.sendall(b"x")
        time.sleep(0.01)
        least = module._least_apart_ns()
        monkeypatch.setattr(module, "_least_apart_ns", lambda: least + step)  # noqa: B023 - used at once
        wire._apart_ns = least
        wire.recv(1)
        assert before.raw_ns < wire.last_received.raw_ns <= HostClock().now().raw_ns
        monkeypatch.undo()
