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
from lab.host.clients.hls_player import Segment, Viewer, segments
from lab.host.clients.iperf3_protocol import Iperf3Refused, begin
from lab.host.clients.playout import Playout, Slot
from lab.host.clients.rtp import SequenceNumbers
from lab.host.clients.tcp_info import tcp_info
from lab.host.clients.transcoding import FrameCounter, pictures
from lab.host.clients.udp_stream import GIVE_UP_NS, PacketWindow

S = 1_000_000_000
PLAYLIST = """\
#EXTM3U
#EXT-X-VERSION:3
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:13
#EXTINF:2.000000,
live13.ts
#EXTINF:1.500000,
live14.ts
"""


def test_a_playlist() -> None:
    assert segments(PLAYLIST) == [Segment(13, 2 * S, "live13.ts"), Segment(14, 1500 * S // 1000, "live14.ts")]
    with pytest.raises(ValueError, match="no playlist"):
        segments("<html>")


def _listed(first: int, count: int) -> list[Segment]:
    return [Segment(number, 2 * S, f"{number}.ts") for number in range(first, first + count)]


def _load_all(viewer: Viewer, listed: list[Segment], now: int) -> None:
    while (segment := viewer.wanted(listed)) is not None:
        viewer.loaded(segment, now)


def test_a_viewer_plays_its_buffer_and_stalls_when_it_is_empty() -> None:
    viewer = Viewer(3)
    _load_all(viewer, _listed(10, 6), 0)
    assert viewer.playing
    assert viewer.buffered_ns == 6 * S
    assert viewer.advance(5 * S) is None
    assert viewer.buffered_ns == S
    assert viewer.advance(8 * S) == 6 * S  # when it came to a standstill
    assert (viewer.playing, viewer.stalls, viewer.buffered_ns) == (False, 1, 0)
    _load_all(viewer, _listed(11, 6), 9 * S)
    assert viewer.playing
    assert viewer.buffered_ns == 2 * S


def test_a_viewer_that_falls_behind_the_list_skips() -> None:
    viewer = Viewer(2)
    _load_all(viewer, _listed(1, 3), 0)
    assert viewer.skipped == 0
    assert viewer.wanted(_listed(8, 3)) == _listed(8, 1)[0]
    assert viewer.skipped == 4  # 4 to 7


def test_a_viewer_waits_for_a_whole_buffer_at_first() -> None:
    viewer = Viewer(3)
    _load_all(viewer, _listed(0, 2), 0)
    assert not viewer.started
    _load_all(viewer, _listed(0, 3), S)
    assert viewer.started


def test_a_sender_in_time_fills_every_slot() -> None:
    playout = Playout(20, 200, 1000)
    for number in range(5):
        assert playout.arrived(number, 1000 + 20 * number) == (False, False)
    assert playout.over(1300) == [Slot(n, 1000 + 20 * n, 1000 + 20 * n) for n in range(5)]


def test_what_does_not_come_in_time_has_failed_and_is_late() -> None:
    playout = Playout(20, 200, 1000)
    playout.arrived(0, 0)
    assert [slot.at_ns for slot in playout.over(300)] == [0, None, None, None, None]
    assert playout.arrived(1, 310) == (True, False)


def test_a_sender_that_is_behind_begins_anew_after_a_while() -> None:
    """Its packets come 500 too late from number 10 on; the slots go on all the time."""
    playout = Playout(20, 200, 1000)
    found: list[Slot] = []
    moved = 0
    for tick in range(200):
        now = 20 * tick
        number = tick if tick < 10 else tick - 25
        if tick < 10 or number >= 10:
            late, behind = playout.arrived(number, now)
            moved += behind
            assert late == (tick >= 35 and now <= 35 * 20 + 1000)
        found += playout.over(now)
    assert moved == 1
    assert [slot.number for slot in found] == list(range(len(found)))
    failed = [slot.due_ns for slot in found if slot.at_ns is None]
    assert failed[0] == 200
    # Until it is noticed, 1000 after the first late packet; then the shift fills the slots of now.
    assert 1500 <= failed[-1] <= 1720
    assert all(slot.at_ns is not None for slot in found if slot.due_ns > failed[-1])


def test_a_burst_after_a_hole_is_late_and_then_in_time() -> None:
    playout = Playout(20, 200, 1000)
    for number in range(10):
        playout.arrived(number, 20 * number)
    late = [playout.arrived(number, 2000)[0] for number in range(10, 101)]
    assert late == [2000 - 20 * number > 200 for number in range(10, 101)]


def test_sequence_numbers_wrap_around() -> None:
    numbers = SequenceNumbers(65534)
    assert [numbers.unwrap(n % 65536) for n in (65534, 65535, 65537, 65536, 65538)] == [0, 1, 3, 2, 4]


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


def test_pictures_of_a_stream_and_frames_across_pieces() -> None:
    one, two = b"\xff\xd8aa\xff\x00b\xff\xd9", b"\xff\xd8\xff\xd9"
    assert pictures(one + two + one) == [one, two, one]
    with pytest.raises(ValueError, match="no stream"):
        pictures(b"")
    counter = FrameCounter()
    stream = b"\x00\x00\x00\x01\x09\xf0xx\x00\x00\x01\x09yy" * 3
    assert sum(counter.feed(stream[at : at + 1]) for at in range(len(stream))) == 6
    assert FrameCounter().feed(stream) == 6


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


def _in_a_row(lines: Iterator[dict[str, Any]], count: int, *, ok: bool) -> list[dict[str, Any]]:
    """As many requests one after another that are ok, or are not: a busy host spoils some in between."""
    found: list[dict[str, Any]] = []
    for _ in range(200):
        (one,) = _requests(lines, 1)
        found = [*found, one] if one["ok"] is ok else []
        if len(found) == count:
            return found
    raise AssertionError(f"never {count} in a row with ok: {ok}")


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
        good = _in_a_row(lines, 3, ok=True)
        assert all(abs(one["stamp"] - time.time_ns()) < 60 * S for one in good)
        program.send_signal(signal.SIGSTOP)
        _in_a_row(lines, 5, ok=False)
        program.send_signal(signal.SIGCONT)
        _in_a_row(lines, 1, ok=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl(1) to make certificates")
@pytest.mark.parametrize("backdate", ["0s", "10s"])
def test_a_certificate_of_this_moment_is_good_for_a_clock_in_time(backdate: str, tmp_path: Path) -> None:
    if not _port_is_free(tls.PORT):
        pytest.skip(f"port {tls.PORT} of this host is in use")
    with _program(tls.PROGRAM, tmp_path), _client("tls", 200_000_000, backdate=backdate) as lines:
        found = _requests(lines, 8)
    assert found[-1]["ok"], found[-1]["error"]
    assert {one["error"] for one in found} <= {"", "no answer"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl(1) to make certificates")
def test_the_certificates_are_gone_when_the_client_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended while it makes them, one after another."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with _client("tls", 5_000_000, backdate="0s") as lines:
        assert next(lines)["freezelab"] == 1
        time.sleep(0.5)
        assert list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
