"""This process reaps orphans that end, and leaves its own children to who has started them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from lab.hypervisor import reaper
from lab.process import runner

ORPHAN = "(setsid sleep {lasts} 3>&- & echo $! >&3) 3>&1 >/dev/null"
"""A program as libvirt starts QEMU: in a session of its own, its first parent gone."""


@pytest.fixture(autouse=True)
def reaping() -> None:
    reaper.start()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_an_orphan_is_reaped_when_it_ends() -> None:
    done = subprocess.run(["sh", "-c", ORPHAN.format(lasts=60)], stdout=subprocess.PIPE, check=True)
    pid = int(done.stdout)
    assert parent_of(pid) == os.getpid()
    end = time.monotonic() + 10
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < end
    os.kill(pid, 9)
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_status_of_a_program_of_the_runner_is_its_starters() -> None:
    process = runner.start(["sh", "-c", "exit 7"])
    time.sleep(0.2)
    assert Path(f"/proc/{process.pid}").exists()  # a zombie, until its starter waits for it
    assert process.wait(5)
    assert process.status == 7


def test_nor_is_that_of_one_that_ends_at_once() -> None:
    for _ in range(100):
        assert runner.run(["false"], 5, check=False).status == 1
