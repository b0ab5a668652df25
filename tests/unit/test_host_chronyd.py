"""A real chronyd as the guests' NTP server, and the small SNTP client that checks it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import MachineError
from lab.host import chronyd, sntp
from lab.process.clock import HostClock

CLOCK = HostClock()
ROOT = Path(__file__).parents[2]


def test_it_serves_the_hosts_clock(chronyd_program: Path, tmp_path: Path) -> None:
    work = tmp_path / "wörk, 100 %"
    with chronyd.Chronyd(chronyd_program, work, CLOCK) as server:
        answer = sntp.query(server.address, server.port, CLOCK, 5)
        assert answer.stratum == chronyd.STRATUM
        assert 0 in answer.offset.widened(100_000)  # the server's own stamping is not ours
        server.check()
        pid = server.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)
    written = {path.name for path in work.iterdir()}
    assert written <= {"chronyd.conf", "chronyd.log", "chronyd.pid"}


@pytest.mark.parametrize("offset_ns", [2 * NS_PER_S, -2 * NS_PER_S, 37 * NS_PER_MS, 3600 * NS_PER_S])
def test_a_server_that_is_wrong_on_purpose_is_wrong_by_the_given_offset(
    chronyd_program: Path, tmp_path: Path, offset_ns: int
) -> None:
    host = CLOCK.now()
    with chronyd.Chronyd(chronyd_program, tmp_path, CLOCK, offset_ns=offset_ns) as server:
        for _ in range(3):
            answer = sntp.query(server.address, server.port, CLOCK, 5)
            assert offset_ns in answer.offset.widened(NS_PER_MS)
        for pid in (pids := [int(path.read_text()) for path in tmp_path.rglob("chronyd.pid")]):
            assert "-x" in psutil.Process(pid).cmdline()
        assert len(pids) == 2
        server.check()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    # The host's own clock has not moved.
    now = CLOCK.now()
    assert abs((now.real_ns - host.real_ns) - (now.raw_ns - host.raw_ns)) < NS_PER_MS


def test_the_death_of_the_true_server_behind_a_wrong_one_is_noticed(
    chronyd_program: Path, tmp_path: Path
) -> None:
    with chronyd.Chronyd(chronyd_program, tmp_path, CLOCK, offset_ns=NS_PER_S) as server:
        true = int((tmp_path / "true" / "chronyd.pid").read_text())
        os.kill(true, signal.SIGKILL)
        psutil.Process(true).wait(5)
        with pytest.raises(MachineError, match="chronyd has ended"):
            server.check()


def test_it_never_controls_the_clock(chronyd_program: Path, tmp_path: Path) -> None:
    with chronyd.Chronyd(chronyd_program, tmp_path, CLOCK) as server:
        assert server.pid is not None
        assert "-x" in psutil.Process(server.pid).cmdline()
        assert "Disabled control of system clock" in server.log.read_text()


def test_two_at_once(chronyd_program: Path, tmp_path: Path) -> None:
    with (
        chronyd.Chronyd(chronyd_program, tmp_path / "a", CLOCK) as one,
        chronyd.Chronyd(chronyd_program, tmp_path / "b", CLOCK) as two,
    ):
        assert one.port != two.port


def test_a_port_in_use(chronyd_program: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((chronyd.ADDRESS, 0))
        port = taken.getsockname()[1]
        server = chronyd.Chronyd(chronyd_program, tmp_path, CLOCK, port=port)
        with pytest.raises(MachineError, match=f"UDP port {port} .* in use"), server:
            pass
        assert server.pid is None


def test_a_server_that_dies_is_noticed(chronyd_program: Path, tmp_path: Path) -> None:
    with chronyd.Chronyd(chronyd_program, tmp_path, CLOCK) as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        psutil.Process(server.pid).wait(5)
        with pytest.raises(MachineError, match="chronyd has ended"):
            server.check()


def test_a_program_that_is_no_chronyd(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match="chronyd has ended"),
        chronyd.Chronyd(Path("/bin/false"), tmp_path, CLOCK),
    ):
        pass


def test_the_server_ends_when_its_parent_is_killed(chronyd_program: Path, tmp_path: Path) -> None:
    source = f"""
        import sys, time
        from pathlib import Path
        from lab.host.chronyd import Chronyd
        from lab.process.clock import HostClock
        with Chronyd(Path({str(chronyd_program)!r}), Path({str(tmp_path)!r}), HostClock()) as server:
            print(server.pid, flush=True)
            time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as lab:
        assert lab.stdout is not None
        served = int(lab.stdout.readline())
        lab.kill()
    end = time.monotonic() + 10
    while psutil.pid_exists(served) and psutil.Process(served).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_none_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_named: None)
    with pytest.raises(MachineError, match="not installed"):
        chronyd.find(tmp_path)


def answering(reply: bytes, *, echo: bool) -> tuple[socket.socket, int]:
    """A server that answers one query with `reply`, the originate field filled in when `echo`."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        query, sender = server.recvfrom(512)
        answer = reply[:24] + query[40:48] + reply[32:] if echo else reply
        server.sendto(answer, sender)

    threading.Thread(target=serve, daemon=True).start()
    return server, server.getsockname()[1]


@pytest.mark.parametrize(
    ("reply", "echo"),
    [
        pytest.param(b"", False, id="empty"),
        pytest.param(b"short", False, id="short"),
        pytest.param(bytes([0x24, 2]) + bytes(46), False, id="not to us"),
        pytest.param(bytes([0x23, 2]) + bytes(46), True, id="a client"),
        pytest.param(bytes([0xE4, 2]) + bytes(46), True, id="unsynchronised"),
        pytest.param(bytes([0x24, 0]) + bytes(46), True, id="kiss of death"),
        pytest.param(bytes([0x24, 16]) + bytes(46), True, id="stratum 16"),
    ],
)
def test_answers_that_are_none(reply: bytes, echo: bool) -> None:
    server, port = answering(reply, echo=echo)
    with server, pytest.raises(ValueError, match=r"NTP|server"):
        sntp.query("127.0.0.1", port, CLOCK, 5)


def test_a_query_to_a_silent_server_times_out() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TimeoutError):
            sntp.query("127.0.0.1", silent.getsockname()[1], CLOCK, 0.05)


def test_the_next_era() -> None:
    # 2036-02-07 06:28:16 UTC is second 0 of NTP's era 1: RFC 5905, figure 4.
    assert sntp._unix_ns(bytes(8)) == 2_085_978_496 * 10**9
    assert sntp._unix_ns((2_208_988_800).to_bytes(4, "big") + b"\x80\0\0\0") == 500_000_000
