"""What ends all waiting for a guest, and work on several guests that is called off."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import GuestError, GuestGone, Interrupted
from lab.guest.address import Address
from lab.guest.connections import GuestConnections
from lab.guest.console import ConsoleLog, Panicked
from lab.guest.ssh import SSH
from lab.image.identity import make_key, write_key
from lab.process.clock import HostClock
from lab.process.signals import Signals
from lab.session.parallel import together

LONG_S = 60.0
"""No test waits for so long; what is tried would."""

ENDED = GuestGone("has ended: it powered itself off", where="guest web-0", ended=True)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[Address]:
    """Of a guest that accepts connections and says nothing: one that boots, or has gone."""
    private, public = make_key("web-0")
    write_key(tmp_path / "key", private, public)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Address("web-0", "127.0.0.1", listener.getsockname()[1], "root", tmp_path / "key", public)


def test_a_cut_wakes_whoever_reads() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        life = GuestConnections()
        link = life.link(ours)
        threading.Timer(0.1, life.cut, (ENDED,)).start()
        assert ours.recv(1) == b""
        assert link.why is ENDED
        life.check()  # another connection may be made


def test_what_has_ended_takes_no_connection_any_more() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        life = GuestConnections()
        life.end(ENDED)
        for ask in (life.check, lambda: life.link(ours)):
            with pytest.raises(GuestGone, match="powered itself off") as raised:
                ask()
            assert raised.value.ended
            assert raised.value is not ENDED


def test_waiting_for_sshd_ends_at_once_when_the_guest_ends(address: Address) -> None:
    life = GuestConnections()
    threading.Timer(0.2, life.end, (ENDED,)).start()
    begun = time.monotonic()
    with pytest.raises(GuestGone, match="powered itself off"):
        SSH.connect(address, HostClock(), LONG_S, life)
    assert time.monotonic() - begun < LONG_S / 6


def test_waiting_for_a_handshake_ends_at_once_when_the_guest_ends(address: Address) -> None:
    """sshd has spoken, and then its guest was gone."""
    life = GuestConnections()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-silent\r\n")
                kept.append(connection)

        kept: list[socket.socket] = []
        threading.Thread(target=speak, daemon=True).start()
        there = Address(
            "web-0", "127.0.0.1", listener.getsockname()[1], "root", address.key, address.host_key
        )
        threading.Timer(1.0, life.cut, (ENDED,)).start()
        begun = time.monotonic()
        with pytest.raises(GuestGone, match="powered itself off"):
            SSH.connect(there, HostClock(), LONG_S, life)
        assert time.monotonic() - begun < LONG_S / 6
        for connection in kept:
            connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_no_worker_behind(address: Address, number: signal.Signals) -> None:
    """The kind of D4: workers wait for guests, and would for long; the main thread is interrupted."""
    lives = [GuestConnections() for _ in range(2)]
    before = set(threading.enumerate())

    def call_off() -> None:
        for life in lives:
            life.end(GuestGone("called off", ended=True))

    timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, number))

    def work() -> None:
        with Signals():
            timer.start()
            together(lives, lambda life: SSH.connect(address, HostClock(), LONG_S, life), call_off)

    begun = time.monotonic()
    with pytest.raises(Interrupted, match=number.name):
        work()
    assert time.monotonic() - begun < LONG_S / 6
    timer.join()
    left = [thread for thread in set(threading.enumerate()) - before if not thread.daemon]
    assert left == [], "the interpreter would wait for it"


def test_the_first_failure_is_raised_when_all_are_done() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 0:
            time.sleep(0.05)
            raise GuestError("did not boot")
        time.sleep(0.2)
        done.append(number)
        return number

    with pytest.raises(GuestError, match="did not boot"):
        together([0, 1], work)
    assert done == [1]


def test_a_panic_is_read_from_the_console(tmp_path: Path) -> None:
    """M1: as QEMU writes it, in pieces; what an earlier boot has left there is not this one's."""
    path = tmp_path / "console.log"
    path.write_bytes(b"[    0.5] Kernel panic - not syncing: of an earlier boot\r\n")
    console = ConsoleLog("web-0", path)
    console.look()
    with path.open("ab") as file:
        file.write(b"[    0.1] Linux version 6.1\r\n[    0.9] Kernel panic - not syncing: IO-APIC + timer")
        file.flush()
        console.look()  # the line is not whole
        file.write(b" doesn't work!  Boot with apic=debug\r\n[    0.9] CPU: 0 PID: 1\r\n")
    for _ in range(2):
        with pytest.raises(Panicked, match=r"panicked: IO-APIC \+ timer doesn't work!") as raised:
            console.look()
        assert raised.value.ended
    again = raised.value.again()
    assert isinstance(again, Panicked)
    assert again.hint == raised.value.hint


def test_a_console_that_is_not_there_yet_says_nothing(tmp_path: Path) -> None:
    ConsoleLog("web-0", tmp_path / "console.log").look()
