"""Waiting for sshd's first word, on real sockets: ports that refuse, stay silent, come back."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lab.guest import banner
from lab.guest.banner import wait_for_banner


def hopeful() -> None:
    return None


@pytest.fixture
def port() -> int:
    """A port on the loopback that refuses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A port that accepts, and never speaks by itself: as QEMU's, while the guest boots."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only counted


def test_a_port_that_comes_back_is_found(port: int) -> None:
    kept: list[socket.socket] = []

    def come_back() -> None:
        listener = socket.create_server(("127.0.0.1", port))
        peer = listener.accept()[0]
        peer.sendall(b"SSH-2.0-here\r\n")
        kept.extend((listener, peer))

    timer = threading.Timer(0.3, come_back)
    timer.start()
    with wait_for_banner("127.0.0.1", port, time.monotonic() + 60, hopeful) as sock:
        sock.settimeout(10)
        assert sock.recv(100) == b"SSH-2.0-here\r\n"  # nothing of it was taken away
    timer.join()
    for each in kept:
        each.close()


def test_a_port_that_only_refuses_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banner, "REFUSED_S", 0.2)
    before = descriptors()
    with pytest.raises(ConnectionRefusedError):
        wait_for_banner("127.0.0.1", port, time.monotonic() + 60, hopeful)
    assert descriptors() == before


def test_a_silent_port_is_waited_for_until_the_deadline(server: socket.socket) -> None:
    before = descriptors()
    with pytest.raises(TimeoutError):
        wait_for_banner("127.0.0.1", server.getsockname()[1], time.monotonic() + 1, hopeful)
    assert descriptors() == before


def test_a_port_that_accepts_is_not_called_refused_later(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts once and hangs up, and refuses from then on: a guest that is being exchanged."""
    monkeypatch.setattr(banner, "REFUSED_S", 0.2)

    def once() -> None:
        server.accept()[0].close()
        server.close()

    thread = threading.Thread(target=once)
    thread.start()
    with pytest.raises(TimeoutError):
        wait_for_banner("127.0.0.1", server.getsockname()[1], time.monotonic() + 1.5, hopeful)
    thread.join()


def test_a_lost_attempt_does_not_hold_up_the_next(server: socket.socket) -> None:
    """The first is swallowed, the second answered: QEMU's forwarding to a guest without a network yet."""
    kept: list[socket.socket] = []

    def answer_second() -> None:
        kept.append(server.accept()[0])
        kept.append(server.accept()[0])
        kept[1].sendall(b"SSH-2.0-x\r\n")

    thread = threading.Thread(target=answer_second)
    thread.start()
    with wait_for_banner("127.0.0.1", server.getsockname()[1], time.monotonic() + 60, hopeful) as sock:
        thread.join()
        assert sock.getsockname() == kept[1].getpeername()
    for each in kept:
        each.close()


def test_an_answer_that_takes_long_is_waited_for(server: socket.socket) -> None:
    """sshd on a busy host: each attempt is answered after the time in which six more are made."""
    answers: list[threading.Timer] = []
    kept: list[socket.socket] = []

    def answer(peer: socket.socket) -> None:
        with suppress(OSError):  # the attempt was given up
            peer.sendall(b"SSH-2.0-x\r\n")

    def serve() -> None:
        with suppress(OSError):
            while True:
                kept.append(server.accept()[0])
                answers.append(threading.Timer(6.5 * banner.STAGGER_S, answer, [kept[-1]]))
                answers[-1].start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        wait_for_banner("127.0.0.1", server.getsockname()[1], time.monotonic() + 60, hopeful).close()
        assert len(kept) < 10, "sshd's MaxStartups"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for each in answers:
        each.join()
    for peer in kept:
        peer.close()


def test_a_closed_attempt_is_soon_repeated(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU accepts, and closes when the guest refuses: its sshd does not listen yet."""
    monkeypatch.setattr(banner, "STAGGER_S", 30.0)
    kept: list[socket.socket] = []

    def answer_third() -> None:
        server.accept()[0].close()
        server.accept()[0].close()
        kept.append(server.accept()[0])
        kept[0].sendall(b"SSH-2.0-x\r\n")

    thread = threading.Thread(target=answer_third)
    thread.start()
    wait_for_banner("127.0.0.1", server.getsockname()[1], time.monotonic() + 20, hopeful).close()
    thread.join()
    kept[0].close()


def test_there_is_no_waiting_without_hope(server: socket.socket) -> None:
    def hopeless() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        wait_for_banner("127.0.0.1", server.getsockname()[1], time.monotonic() + 60, hopeless)
