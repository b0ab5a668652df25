"""Signals: the first one ends the work, and what has to be done as a whole is done as a whole."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import GuestError, Interrupted, MachineError
from lab.process.signals import Signals, Teardown, shield
from lab.threads import Worker

AGAIN = "freezelab recover --connect qemu:///system"


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as made:
        yield made


def test_the_first_signal_is_raised_and_the_second_only_reported(
    signals: Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Interrupted, match="interrupted by SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert "cleaning up" in capfd.readouterr().err


def test_a_signal_comes_when_the_shield_is_left(signals: Signals) -> None:
    done = []

    def work() -> None:
        with shield():
            signal.raise_signal(signal.SIGHUP)
            done.append("whole")
        done.append("never")

    with pytest.raises(Interrupted):
        work()
    assert done == ["whole"]


def test_without_signals_and_in_threads_nothing_is_held_back(signals: Signals) -> None:
    seen: list[int] = []

    def work() -> None:
        with shield():
            seen.append(signals._shields)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0], "a thread raises no shield over the main one"


def test_a_worker_whose_join_is_interrupted_is_still_at_work(signals: Signals) -> None:
    go = threading.Event()
    worker = Worker(target=go.wait, daemon=True)
    assert not worker.is_alive()
    worker.start()
    threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM)).start()
    with pytest.raises(Interrupted):
        worker.join(5)
    assert worker.is_alive()
    worker.join(0.01)
    assert worker.is_alive()
    go.set()
    worker.join()
    assert not worker.is_alive()


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_signal_in_a_teardown_leaves_nothing_behind(signals: Signals, interrupted: bool) -> None:
    """The kind of D5: the first signal comes while the first of several things is undone."""
    undone: list[str] = []
    told: list[str] = []

    def first() -> None:
        signal.raise_signal(signal.SIGINT)
        undone.append("guest")

    def work() -> None:
        with Teardown(told.append, AGAIN) as stack:
            for name in ("disk", "seed", "tap"):
                stack.callback(undone.append, name)
            stack.callback(first)
            if interrupted:
                raise GuestError("did not boot")

    with pytest.raises(Interrupted):
        work()
    assert undone == ["guest", "tap", "seed", "disk"]
    assert told == []


def test_every_failed_clean_up_is_reported() -> None:
    told: list[str] = []
    undone: list[str] = []

    def refuse(what: str) -> None:
        raise MachineError(f"{what} cannot be removed")

    def take_down(body: Exception | None) -> None:
        with Teardown(told.append, AGAIN) as stack:
            stack.callback(refuse, "tap 1")
            stack.callback(undone.append, "disk")
            stack.callback(refuse, "tap 2")
            if body is not None:
                raise body

    with pytest.raises(GuestError, match="did not boot"):  # not hidden by what came after it
        take_down(GuestError("did not boot"))
    assert [line.split("\n")[0] for line in told] == [
        "not undone: tap 2 cannot be removed",
        "not undone: tap 1 cannot be removed",
    ]
    assert undone == ["disk"]
    with pytest.raises(MachineError, match="tap 2 cannot be removed"):
        take_down(None)
    assert len(told) == 4


def test_what_a_disk_that_takes_nothing_refuses_is_told_and_keeps_nothing_else(tmp_path: Path) -> None:
    told: list[str] = []
    undone: list[str] = []

    def read_only() -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "agents"))

    stack = Teardown(told.append, AGAIN)
    stack.callback(undone.append, "guest")
    stack.callback(read_only)
    with pytest.raises(MachineError, match="Read-only file system"):
        stack.close()
    assert undone == ["guest"]
    assert told == [f"not undone: {tmp_path}/agents: Read-only file system\ntry again: {AGAIN}"]


BOMBARDED = """
import os, signal, threading, time, traceback
from lab.process.signals import Signals, Teardown
from lab.errors import Interrupted

def bombard(after):
    time.sleep(after)
    os.kill(os.getpid(), signal.SIGINT)

rounds = cut = 0
end = time.monotonic() + 4
while time.monotonic() < end:
    made, undone = [], []
    thread = threading.Thread(target=bombard, args=(rounds % 37 * 2e-5,))
    try:
        with Signals():
            thread.start()
            while True:
                made, undone = [], []
                with Teardown(print, "freezelab recover") as stack:
                    for number in range(3):
                        stack.callback(undone.append, number)
                        made.append(number)
                if not thread.is_alive():
                    time.sleep(0.03)  # it may have been put off
    except Interrupted:
        if len(undone) < len(made):
            cut += 1
            traceback.print_exc()
    thread.join()
    rounds += 1
print(rounds, cut)
"""


def test_no_moment_of_a_teardown_can_be_cut() -> None:
    """Signals at every moment of a short teardown, its first and last instructions too, many times over."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBARDED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rounds, cut = map(int, done.stdout.split())
    assert rounds > 20
    assert cut == 0, done.stderr
