"""The clients of streams, TLS, HAProxy and media: their parts, and whole ones against the guests' own
programs on this host's loopback interface."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.core.workload.shipped import tls, udp_stream
from lab.host.clients.haproxy import servers
from lab.host.clients.iperf3_protocol import Iperf3Refused, begin
from lab.host.clients.tcp_info import tcp_info
from lab.host.clients.udp_stream import GIVE_UP_NS, PacketWindow

S = 1_000_000_000


def test_packets_that_are_missing_late_twice_and_out_of_order() -> None:
    window = PacketWindow()
    assert [window.arrived(n, 0, sent_by_us=False) for n in (0, 1, 4, 3)] == [
        "",
        "",
        "",
        udp_stream.REORDERED,
    ]
    assert window.arrived(3, 1, sent_by_us=False) == udp_stream.TWICE
    assert window.lost(GIVE_UP_NS - 1) == 0
    assert window.lost(GIVE_UP_NS) == 1
    assert window.arrived(2, 5, sent_by_us=False) == udp_stream.LATE


def test_what_haproxys_statistics_say() -> None:
    text = "# pxname,svname,status\napp,a,UP 1/3\napp,local,DOWN\n"
    text += "app,BACKEND,UP\nweb,FRONTEND,OPEN\napp,n,no check\n"
    assert servers(text) == {"a": "UP", "local": "DOWN", "n": "no"}
    assert servers("<html>") == {}


def test_tcp_info_of_a_real_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        socket.create_connection(door.getsockname()) as one,
        door.accept()[0] as other,
    ):
        one.sendall(b"x" * 5000)
        assert len(other.recv(5000, socket.MSG_WAITALL)) == 5000
        time.sleep(0.1)
        info = tcp_info(one)
    assert 5000 <= info.acked <= 5001  # SYN counts in some kernels
    assert info.unacked == 0
    assert info.retransmits == 0
    assert 0 < info.rtt_ns < S
    assert info.rto_ns >= 200_000_000


def test_an_iperf3_that_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        pid = os.fork()
        if not pid:
            other = door.accept()[0]
            other.recv(37, socket.MSG_WAITALL)
            other.send(struct.pack("b", -1))  # ACCESS_DENIED
            os._exit(0)
        try:
            with pytest.raises(Iperf3Refused, match="busy"):
                begin(door.getsockname(), down=True, bits_per_s=10**6, block=1000, timeout_s=10)
        finally:
            os.waitpid(pid, 0)


# -- whole clients ---------------------------------------------------------------------------------------


@contextmanager
def _program(text: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A guest's program, on this host."""
    path = tmp_path / "program.py"
    path.write_text(text)
    with subprocess.Popen([sys.executable, "-u", path]) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


@contextmanager
def _client(name: str, period_ns: int, **options: str) -> Iterator[Iterator[dict[str, Any]]]:
    argv = [sys.executable, "-P", "-m", f"lab.host.clients.{name}", "--period-ns", str(period_ns)]
    argv += ["--guest=a=127.0.0.1", *(f"--option={key}={value}" for key, value in options.items())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield (json.loads(line) for line in process.stdout)
        finally:
            process.terminate()


def _requests(lines: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = next(lines)
        if "seq" in line:
            found.append(line)
    return found


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("direction", udp_stream.DIRECTIONS)
def test_a_udp_stream_stands_still_while_the_program_does(direction: str, tmp_path: Path) -> None:
    if not _port_is_free(udp_stream.PORT):
        pytest.skip(f"port {udp_stream.PORT} of this host is in use")
    with (
        _program(udp_stream.PROGRAM, tmp_path) as program,
        _client("udp_stream", 100_000_000, direction=direction, rate="500kbit", size="500") as lines,
    ):
        while not _requests(lines, 1)[0]["ok"]:
            pass
        good = _requests(lines, 5)
        assert all(one["ok"] for one in good)
        assert all(abs(one["stamp"] - time.time_ns()) < 60 * S for one in good)
        program.send_signal(signal.SIGSTOP)
        still = _requests(lines, 8)
        assert not any(one["ok"] for one in still[2:])
        program.send_signal(signal.SIGCONT)
        assert any(one["ok"] for one in _requests(lines, 10))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl(1) to make certificates")
@pytest.mark.parametrize("backdate", ["0s", "10s"])
def test_a_certificate_of_this_moment_is_good_for_a_clock_in_time(backdate: str, tmp_path: Path) -> None:
    if not _port_is_free(tls.PORT):
        pytest.skip(f"port {tls.PORT} of this host is in use")
    with _program(tls.PROGRAM, tmp_path), _client("tls", 200_000_000, backdate=backdate) as lines:
        found = _requests(lines, 8)
    assert found[-1]["ok"], found[-1]["error"]
    assert {one["error"] for one in found} <= {"", "no answer"}
