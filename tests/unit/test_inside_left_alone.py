"""What works in a guest beside the lab's cycles ends by itself when the lab was killed."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from lab.core.units import NS_PER_S
from lab.guest import program

MOST_NS = NS_PER_S // 2


class InBackground:
    """A running program of lab/guest/inside."""

    def __init__(self, name: str, *arguments: str) -> None:
        command = program.start_command(name, *arguments)
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=True)
        self.path = json.loads(done.stdout[2:])["path"]
        self.process = psutil.Process(int(self.path.split("/")[2]))

    def ask(self, what: str) -> Any:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(self.path)
            sock.sendall(what.encode() + b"\n")
            return json.loads(sock.makefile("rb").readline()[2:] or "{}")

    def until_idle(self) -> None:
        """Wait until it has used no CPU for a second."""
        end, used = time.monotonic() + 60, -1.0
        while (now := sum(self.process.cpu_times()[:2])) != used:
            assert time.monotonic() < end, "it works on"
            used = now
            time.sleep(1)


@pytest.fixture
def start() -> Iterator[Callable[..., InBackground]]:
    made: list[InBackground] = []

    def begin(*arguments: str) -> InBackground:
        made.append(InBackground(*arguments))
        return made[-1]

    yield begin
    for each in made:
        each.process.kill()


def test_the_writer_writes_no_more(start: Callable[..., InBackground]) -> None:
    writer = start("disk_writer")
    if not writer.ask(f"cycle {MOST_NS}")["writes"]:
        pytest.skip("no folder for its file is on a disk")
    writer.until_idle()
    found = writer.ask("writes")
    assert found["count"] > 0
    assert MOST_NS * 0.9 < found["last_raw_ns"] - found["first_raw_ns"] < 30 * NS_PER_S


def test_the_counter_counts_and_dirties_no_more(start: Callable[..., InBackground]) -> None:
    counter = start("work_counter", str(1 << 20), str(1 << 20))
    counter.ask(f"cycle {MOST_NS}")
    counter.until_idle()
    assert sum(counter.ask("counts")["units"]) > 0
