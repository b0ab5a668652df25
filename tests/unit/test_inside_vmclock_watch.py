"""The program that watches vmclock's page, with a file in place of the device."""

from __future__ import annotations

import json
import mmap
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lab.guest.inside import unix_socket, vmclock_watch
from lab.guest.timesync.vmclock import disruption


def page(marker: int, magic: int = vmclock_watch.MAGIC) -> bytes:
    return vmclock_watch.HEAD.pack(magic, mmap.PAGESIZE, 1, 0xFF, 0, 2, marker, 0)


def ask(path: str, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(path)
        peer.sendall(line + b"\n")
        return peer.makefile("rb").readline()


def report(path: str) -> list[dict[str, Any]]:
    letter, _, rest = ask(path, b"report").partition(b" ")
    assert letter == b"D"
    found: list[dict[str, Any]] = json.loads(rest)["found"]
    return found


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "vmclock0"
    path.write_bytes(page(4).ljust(mmap.PAGESIZE, b"\0"))
    monkeypatch.setattr(vmclock_watch, "DEVICE", str(path))
    return path


@pytest.mark.parametrize(("command", "status"), [(["true"], 0), (["false"], 1), (["/no/such"], 127)])
def test_a_move_of_the_marker_runs_the_command_once(device: Path, command: list[str], status: int) -> None:
    listener, path = unix_socket.listen()
    watching = threading.Thread(
        target=vmclock_watch.watch, args=(vmclock_watch.MarkerPage(), command, listener), daemon=True
    )
    watching.start()
    assert report(path) == []
    with device.open("r+b") as file:
        file.write(page(5))
    deadline = time.monotonic() + 20
    found: list[dict[str, Any]] = []
    while not (found and "status" in found[-1]):
        assert time.monotonic() < deadline
        found = found or report(path)
    assert [(one["old"], one["new"], one["status"]) for one in found] == [(4, 5, status)]
    assert 0 <= found[0]["noticed_ns"] <= found[0]["told_ns"] < 20_000_000_000
    assert ask(path, b"stop") == b"E\n"
    watching.join(10)
    assert not watching.is_alive()


def test_a_step_is_one_beyond_what_its_readings_leave_open(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]

    def reading(by_ns: int, late_ns: int) -> None:
        """The next readings: REALTIME is `by_ns` ahead of RAW, and the reader is late between them."""
        stamps = iter([now[0], now[0] + by_ns, now[0] + late_ns, now[0] + late_ns, now[0] + late_ns])
        monkeypatch.setattr(vmclock_watch, "gettime", lambda _clock: next(stamps))

    reading(0, 0)
    seen = vmclock_watch.Disruption.__new__(vmclock_watch.Disruption)
    seen.last, seen.told, seen.bounds = 0, {}, vmclock_watch.real_less_raw()
    reading(64_000_000, 64_700_000)  # a busy host, no step
    seen.look()
    assert "stepped_ns" not in seen.told
    now[0] = 2_000_000_000
    reading(3_000_000_000, 1_000)
    seen.look()
    assert abs(seen.told["step_ns"] - 3_000_000_000) < 1_000_000


def test_another_page_is_refused(device: Path) -> None:
    device.write_bytes(page(4, magic=1).ljust(mmap.PAGESIZE, b"\0"))
    with pytest.raises(ValueError, match="none of vmclock"):
        vmclock_watch.MarkerPage()


def test_a_disruption_in_words() -> None:
    told = {"old": 2, "new": 3, "noticed_ns": 75_300_000, "status": 0, "told_ns": 604_200_000}
    assert disruption(told) == (
        "vmclock's marker moved from 2 to 3, seen after at most 75.3 ms, chronyd told after 604.2 ms"
    )
    stepped = {**told, "stepped_ns": 1_660_200_000, "step_ns": 3_001_100_000}
    assert disruption(stepped).endswith("clock stepped by +3001.1 ms after 1660.2 ms")
    assert "could not be told (exit status 1)" in disruption({**told, "status": 1})
