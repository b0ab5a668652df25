"""Programs of the host: run to their end, or started to stay; and the host's clocks."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import Interrupted, MachineError
from lab.process import packages, runner
from lab.process.clock import HostClock
from lab.process.runner import Stop, run, start
from lab.process.signals import Signals
from tests.unit.processes import alive, gone

CLOCK = HostClock()
KILLED = -signal.SIGKILL


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
def interrupt_soon() -> Iterator[Callable[[], None]]:
    """As the command line does: a signal becomes Interrupted in the main thread. Called, it has one sent."""
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    with Signals():
        yield timer.start
        timer.join()


def test_an_interrupt_passes_through_and_kills_the_group(interrupt_soon: Callable[[], None]) -> None:
    marker = f"61.{os.getpid()}"
    interrupt_soon()
    with pytest.raises(Interrupted):
        run(["sh", "-c", f"sleep {marker} & sleep {marker}"], 60)
    assert gone(marker)


def test_an_interrupt_passes_through_a_sleep(interrupt_soon: Callable[[], None]) -> None:
    began = CLOCK.now().raw_ns
    interrupt_soon()
    with pytest.raises(Interrupted):
        CLOCK.sleep_until(began + 60 * NS_PER_S)
    assert CLOCK.now().raw_ns < began + 60 * NS_PER_S


def test_an_interrupt_at_any_moment_of_a_program_leaves_nothing() -> None:
    """From before its start until after its end, which is a deadline that it overruns."""
    marker = f"63.{os.getpid()}"

    def interrupted_after(delay_s: float) -> None:
        def send() -> None:
            time.sleep(delay_s)
            os.kill(os.getpid(), signal.SIGTERM)

        with Signals():
            sender = threading.Thread(target=send)
            sender.start()
            run(["sleep", marker], 0.005, check=False)
            time.sleep(60)

    for step in range(200):
        with pytest.raises(Interrupted):
            interrupted_after(step * 100e-6)
    assert gone(marker)


def test_an_interrupt_while_a_process_is_started_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    real, pids = subprocess.Popen, []

    def interrupted(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        process = real(*args, **kwargs)
        pids.append(process.pid)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with Signals(), pytest.raises(Interrupted):
        start(["sleep", "60"])
    assert not psutil.pid_exists(pids[0])


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


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_lines_of_both_outputs_come_in_order() -> None:
    lines: list[str] = []
    script = r"echo one; echo ' two ' >&2; echo; printf 'three\rfour\nno end'"
    done = run(["sh", "-c", script], 20, on_line=lines.append)
    assert lines == ["one", "two", "three", "four", "no end"]
    assert "two" in done.stdout
    assert done.stderr == ""


def test_a_line_without_an_end_is_cut() -> None:
    lines: list[str] = []
    run(["sh", "-c", f"head -c {3 * runner.OUTPUT_MAX} /dev/zero | tr '\\0' x"], 20, on_line=lines.append)
    assert len(lines) > 1
    assert sum(map(len, lines)) == 3 * runner.OUTPUT_MAX


def test_a_program_whose_output_is_enough_is_killed() -> None:
    marker = f"63.{os.getpid()}"
    script = f"echo 'this is it'; sleep {marker}"
    done = run(["sh", "-c", script], 60, on_line=lambda line: "is it" in line)
    assert done.enough
    assert (done.ok, done.why, done.status) == (True, "", KILLED)
    assert done.took_ns < 60 * NS_PER_S
    assert gone(marker)


def test_a_program_that_ends_without_enough() -> None:
    assert not run(["echo", "that"], 20, on_line=lambda line: "this" in line).enough


def test_what_a_line_raises_passes_through_and_kills_the_group() -> None:
    marker = f"64.{os.getpid()}"

    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="one"):
        run(["sh", "-c", f"echo one; echo two; sleep {marker}"], 60, on_line=refuse)
    assert gone(marker)


@pytest.mark.parametrize("tidy", [False, True])
def test_an_interrupted_program_may_tidy_up_if_it_shall(
    interrupt_soon: Callable[[], None], tmp_path: Path, tidy: bool
) -> None:
    mark = tmp_path / "tidy"
    script = f"trap 'sleep 0.1; echo >{mark}; exit' TERM; while :; do sleep 0.01; done"
    interrupt_soon()
    with pytest.raises(Interrupted):
        run(["sh", "-c", script], 60, stop=Stop(grace_ns=20 * NS_PER_S, interrupted_too=tidy))
    assert mark.exists() is tidy


def test_descriptors_are_inherited_by_wish() -> None:
    ours, its = os.pipe()
    try:
        os.set_inheritable(its, False)
        run(["sh", "-c", f"echo through >/proc/self/fd/{its}"], 20, pass_fds=(its,))
        assert os.read(ours, 100) == b"through\n"
    finally:
        os.close(ours)
        os.close(its)


def test_programs_in_sbin_are_found_without_a_path_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert runner.which("ldconfig") in ("/usr/sbin/ldconfig", "/sbin/ldconfig")
    shown = run(["sh", "-c", "command -v ldconfig; echo $PATH"], 20).stdout.splitlines()
    assert shown == [runner.which("ldconfig"), "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"]
    assert run(["ldconfig", "--version"], 20).ok


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    [package] = [one for one in packages.listed() if one.program == "qemu-img"]
    monkeypatch.setattr(runner, "which", lambda _name: None)
    with pytest.raises(MachineError, match="qemu-img is not installed") as caught:
        runner.find("qemu-img")
    assert caught.value.hint == packages.how_to_get([package])


def test_long_arguments_are_shortened_for_show_only() -> None:
    assert runner.quote(["a b", "c"], 400) == "'a b' c"
    assert len(runner.quote(["x" * 5000], 400)) < 300
    assert runner.quote(["x" * 5000]) == "x" * 5000


def test_a_started_process_is_stopped_with_its_group() -> None:
    marker = f"70.{os.getpid()}"
    process = start(["sh", "-c", f"sleep {marker} & wait"])
    until(lambda: bool(alive(marker)))
    running = process.status
    assert running is None
    assert os.getsid(process.pid) == process.pid
    process.stop(20)
    assert process.status == -signal.SIGTERM
    assert gone(marker)
    process.stop(20)  # it has ended: nothing happens


def test_a_started_process_that_does_not_end_is_killed() -> None:
    marker = f"71.{os.getpid()}"
    process = start(["sh", "-c", f"trap '' TERM; sleep {marker}"])
    until(lambda: bool(alive(marker)))
    process.stop(0.05)
    assert process.status == KILLED
    assert gone(marker)


def test_a_started_process_may_end_by_itself() -> None:
    process = start(["sh", "-c", "sleep 0.3; exit 7"])
    process.stop(20, first=None)
    assert process.status == 7


def test_an_interrupt_passes_through_a_stop_and_kills_the_group(interrupt_soon: Callable[[], None]) -> None:
    process = start(["sleep", "60"])
    interrupt_soon()
    with pytest.raises(Interrupted):
        process.stop(60, first=signal.SIGCONT)  # it takes no notice
    assert process.status == KILLED


def test_a_program_ends_by_itself_after_an_interrupted_stop(interrupt_soon: Callable[[], None]) -> None:
    process = start(["sh", "-c", "sleep 1; exit 7"])
    interrupt_soon()
    with pytest.raises(Interrupted):
        process.stop(60, first=None)
    until(lambda: process.status is not None)
    assert process.status == 7


def test_a_service_is_started_for_good(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        service = start(
            ("sh", "-c", "echo $MARK $PWD; exec sleep 60"),
            env={"MARK": "here", "PATH": os.environ["PATH"]},
            cwd=tmp_path,
            stdout=out.fileno(),
            stderr=out.fileno(),
            for_good=True,
        )
    try:
        until(lambda: (tmp_path / "out").read_text() == f"here {tmp_path}\n")
        assert service.status is None
    finally:
        service.stop(0)
    with pytest.raises(MachineError, match="no such program"):
        start(("/no/such/program",))
