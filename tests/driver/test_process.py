"""Stopping and continuing a process that looks like a domain's QEMU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core.units import NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor.process import QemuProcess
from lab.process.clock import HostClock

CLOCK = HostClock()
SPIN = """
import threading, time
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def name() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def running(name: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SPIN, "-uuid", name], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_stopped_means_every_thread(running: subprocess.Popen[str], name: str) -> None:
    with QemuProcess.find(name, "web-0") as process:
        assert process.pid == running.pid
        assert process.alive
        for _ in range(5):
            process.send_stop()
            assert process.wait_stopped(CLOCK, CLOCK.now().raw_ns + 5 * NS_PER_S)
            used = process.cpu_time_ns()
            time.sleep(0.05)
            assert process.cpu_time_ns() == used
            process.send_continue()
            end = time.monotonic() + 10
            while process.cpu_time_ns() == used:
                assert time.monotonic() < end


def test_waiting_for_a_cpu_is_seen(running: subprocess.Popen[str], name: str) -> None:
    with QemuProcess.find(name, "web-0") as process:
        one = min(os.sched_getaffinity(0))
        for task in Path(f"/proc/{running.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {one})
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as rival:
            os.sched_setaffinity(rival.pid, {one})
            before, end = process.cpu_wait_ns(), time.monotonic() + 30
            while process.cpu_wait_ns() < before + NS_PER_S // 5:
                assert time.monotonic() < end
                time.sleep(0.05)
            rival.kill()
        running.kill()
        running.wait()
        assert process.cpu_wait_ns() == 0


def test_an_ended_process_is_not_alive_and_gets_no_signal(running: subprocess.Popen[str], name: str) -> None:
    with QemuProcess.find(name, "web-0") as process:
        running.kill()
        os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        assert not process.alive
        running.wait()
        assert not process.alive
        with pytest.raises(ProcessLookupError):
            process.send_stop()
        assert process.cpu_time_ns() == 0


def test_none_or_several(running: subprocess.Popen[str], name: str) -> None:
    with pytest.raises(HypervisorError, match="not on this host"):
        QemuProcess.find(str(uuid.uuid4()), "web-0")
    with subprocess.Popen(running.args, stdout=subprocess.PIPE, text=True) as twin:
        assert twin.stdout is not None
        twin.stdout.readline()
        with pytest.raises(HypervisorError, match="several QEMU processes"):
            QemuProcess.find(name, "web-0")
        twin.kill()


def test_a_reused_number_is_not_taken_for_ours(running: subprocess.Popen[str]) -> None:
    assert QemuProcess.open(running.pid, "/some/root/") is None
