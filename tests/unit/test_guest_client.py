"""The host's end of programs that go on in the background, against the real programs: they run on this host,
behind as much of an SSH connection as the client uses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import paramiko
import psutil
import pytest

from lab.core.mechanism import ResyncMechanism
from lab.errors import GuestError
from lab.guest import fill as fill_module
from lab.guest.client import BackgroundProgram, ChannelLines
from lab.guest.fill import PAGE, Fill
from lab.guest.ssh import SSH
from lab.guest.watcher import GuestWatcher

SIZE = 100 * PAGE


class LocalSSH:
    """A shell of this host, and its Unix sockets. losses: how many of the next connections are lost
    before an answer comes. answer: what commands print instead of being run."""

    address = SimpleNamespace(guest="web-0")

    def __init__(self) -> None:
        self.losses = 0
        self.answer: str | None = None
        self.connections = 0

    def check(self, command: str, timeout_s: float) -> str:
        if self.answer is not None:
            return self.answer
        argv = ["/bin/sh", "-c", command]
        return subprocess.run(argv, capture_output=True, timeout=timeout_s, check=True, text=True).stdout

    def socket(self, path: str, timeout_s: float) -> socket.socket | None:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(timeout_s)
        try:
            peer.connect(path)
        except OSError:
            peer.close()
            return None
        self.connections += 1
        if self.losses:
            self.losses -= 1
            peer.shutdown(socket.SHUT_RD)
        return peer


@pytest.fixture
def ssh() -> LocalSSH:
    return LocalSSH()


@pytest.fixture
def filled(ssh: LocalSSH, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fill]:
    monkeypatch.setattr(fill_module, "RESERVE_BYTES", 0)  # this host has less than a guest to spare at times
    fill = Fill(lambda: cast(SSH, ssh), SIZE).start()
    yield fill
    fill.stop()


def process(fill: Fill) -> int:
    return int(fill.program.path.split("/")[2])


def test_memory_is_filled_and_verified(filled: Fill) -> None:
    filled.wait()
    found = filled.verify()
    assert found.ok
    assert found.pages == SIZE // PAGE


def test_progress_comes_before_the_answer(filled: Fill) -> None:
    told: list[tuple[int, int]] = []
    filled.verify(progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (SIZE, SIZE)


def test_the_guests_program_is_asked_again_when_the_connection_is_lost(ssh: LocalSSH, filled: Fill) -> None:
    ssh.losses, ssh.connections = 2, 0
    assert filled.verify().ok
    assert ssh.connections == 3


def test_it_is_asked_three_times(ssh: LocalSSH, filled: Fill) -> None:
    ssh.losses = 3
    with pytest.raises(GuestError, match="the connection to the program that fills the memory was lost"):
        filled.wait()


def test_a_program_that_is_gone_is_an_error_of_its_guest(filled: Fill) -> None:
    os.kill(process(filled), signal.SIGKILL)
    with pytest.raises(GuestError, match="has ended") as error:
        filled.wait()
    assert error.value.where == "guest web-0"


def test_a_program_that_does_not_answer_in_time_is_an_error(filled: Fill) -> None:
    os.kill(process(filled), signal.SIGSTOP)
    try:
        with pytest.raises(GuestError, match="did not answer 'verify' within 0 s"):
            filled.verify(timeout_s=0.2)
    finally:
        os.kill(process(filled), signal.SIGCONT)


def test_stopped_it_is_gone(filled: Fill) -> None:
    filled.wait()
    path, running = filled.program.path, psutil.Process(process(filled))
    filled.stop()
    assert filled.program.path == ""
    running.wait(20)  # it answers before it ends
    assert LocalSSH().socket(path, 1) is None


def test_what_does_not_fit_is_refused(ssh: LocalSSH) -> None:
    fill = Fill(lambda: cast(SSH, ssh), 1 << 50)
    with pytest.raises(GuestError, match="do not fit"):
        fill.start()
    fill.stop()


@pytest.mark.parametrize("answer", ["", "sh: not found\n", "R {}\n", 'R {"path": ""}\n', "R nonsense\n"])
def test_a_program_that_does_not_start_is_an_error(ssh: LocalSSH, answer: str) -> None:
    ssh.answer = answer
    program = BackgroundProgram(lambda: cast(SSH, ssh), "pause_watcher", "the watcher")
    with pytest.raises(GuestError, match=r"the watcher does not start: \S"):
        program.start()
    assert program.ask("claims", "W", 1) is None


def test_a_watcher_that_is_gone_is_started_anew(ssh: LocalSSH) -> None:
    """As after a reboot of its guest."""
    watcher = GuestWatcher("web-0", lambda: cast(SSH, ssh), ResyncMechanism.NONE, False, 0.0, 1, 10**9)
    with watcher:
        watcher.start_cycle()
        first = watcher._program.path
        os.kill(int(first.split("/")[2]), signal.SIGKILL)
        assert watcher.claims() == []
        watcher.start_cycle()
        assert watcher._program.path != first
        assert watcher.effects() is None


def test_lines_are_taken_apart_however_they_come() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lines = ChannelLines(cast(paramiko.Channel, ours))
        theirs.sendall(b"one\ntwo\nth")
        far = time.monotonic() + 30
        assert (lines.read(far), lines.read(far)) == (b"one", b"two")
        with pytest.raises(TimeoutError):
            lines.read(0.0)
        theirs.sendall(b"ree\nrest")
        assert lines.read(far) == b"three"
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(EOFError):
            lines.read(far)
