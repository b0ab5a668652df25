"""run(): the one door to programs, and the host's clocks."""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import psutil
import pytest

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import Interrupted, MachineError
from lab.host import facts
from lab.host.clocks import HostClock
from lab.host.run import run

CLOCK = HostClock()


def test_output_and_status() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2"], 20)
    assert (done.status, done.stdout, done.stderr) == (0, "out\n", "err\n")
    assert done.ok
    assert done.why == ""


def test_failure_can_be_pasted() -> None:
    argv = ["sh", "-c", "echo 'it broke'; exit 7"]
    with pytest.raises(MachineError) as caught:
        run(argv, 20)
    first, _, rest = str(caught.value).rpartition(": exit status 7: ")
    assert shlex.split(first) == argv
    assert rest == "it broke"


def test_failure_unchecked() -> None:
    done = run(["sh", "-c", "kill -SEGV $$"], 20, check=False)
    assert done.why == "ended by SIGSEGV"


def test_timeout() -> None:
    with pytest.raises(MachineError, match="still running after"):
        run(["sleep", "60"], 0.1)


def test_missing_program() -> None:
    with pytest.raises(MachineError, match="no such program"):
        run(["freezelab-no-such-program"], 1)


def test_environment_and_folder(tmp_path: Path) -> None:
    done = run(["/bin/sh", "-c", "echo $ONLY; pwd"], 20, env={"ONLY": "this"}, cwd=tmp_path)
    assert done.stdout.splitlines() == ["this", str(tmp_path)]


def test_standard_input_is_empty() -> None:
    assert run(["cat"], 20).stdout == ""


def test_bytes_that_are_no_text() -> None:
    assert run(["printf", r"\377ok"], 20).stdout.endswith("ok")


@pytest.fixture
def interrupt_soon() -> Iterator[None]:
    """As the command line does: a signal becomes Interrupted in the main thread."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    yield
    timer.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("interrupt_soon")
def test_an_interrupt_passes_through_and_kills_the_group() -> None:
    marker = f"61.{os.getpid()}"
    with pytest.raises(Interrupted):
        run(["sh", "-c", f"sleep {marker} & sleep {marker}"], 60)
    end = time.monotonic() + 10
    while any(marker in (p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.usefixtures("interrupt_soon")
def test_an_interrupt_passes_through_a_sleep() -> None:
    began = CLOCK.now().raw_ns
    with pytest.raises(Interrupted):
        CLOCK.sleep_until(began + 60 * NS_PER_S)
    assert CLOCK.now().raw_ns < began + 60 * NS_PER_S


def test_no_descriptor_is_left_open() -> None:
    run(["true"], 20)
    before = psutil.Process().num_fds()
    for _ in range(5):
        run(["true"], 20)
        run(["sleep", "60"], 0.01, check=False)
    assert psutil.Process().num_fds() == before


def test_sleep_until_never_returns_early() -> None:
    for length in (0, 100_000, 1 * NS_PER_MS, 30 * NS_PER_MS):
        end = CLOCK.now().raw_ns + length
        CLOCK.sleep_until(end)
        assert CLOCK.now().raw_ns >= end


def test_sleep_until_the_past_returns() -> None:
    CLOCK.sleep_until(0)


def test_stamps_go_forward() -> None:
    first, second = CLOCK.now(), CLOCK.now()
    assert second.raw_ns >= first.raw_ns
    assert abs(first.real_ns - time.time_ns()) < NS_PER_S


def test_facts() -> None:
    seen = facts.look()
    assert seen.kernel == os.uname().release
    assert 0 < seen.memory_free_bytes <= seen.memory_bytes
    assert seen.cpus >= 1
    assert seen.governor
