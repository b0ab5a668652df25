"""All that a program has started is killed with it, wherever it has hidden."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from lab.core.units import NS_PER_S
from lab.errors import Interrupted
from lab.process import scope
from lab.process.clock import HostClock
from lab.process.runner import execute
from tests.unit.processes import alive, gone

CLOCK = HostClock()


def test_descendants_in_other_sessions_die_too() -> None:
    marker = f"62.{os.getpid()}"
    stop_at = CLOCK.now().raw_ns + NS_PER_S
    done = execute(("sh", "-c", f"setsid sleep {marker} & wait"), CLOCK, stop_at_raw_ns=stop_at, tree=True)
    assert done.overran
    assert gone(marker)


DAEMON = "(setsid sh -c 'sleep {0} & exit 0' &) ; "
"""A daemon as daemons start: in a session of its own, its parent gone."""


@pytest.fixture(params=["cgroup", "mark"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the processes of a program are known."""
    if request.param == "mark":
        monkeypatch.setattr(scope, "_make", lambda _name: None)
    elif not scope.may_be_sure():
        pytest.skip("no cgroup may be had here")
    return str(request.param)


def cgroups() -> list[str]:
    """This process's own: other tests have theirs at the same time."""
    return [str(path) for path in Path("/sys/fs/cgroup").rglob(f"freezelab-{os.getpid()}-*")]


def test_cgroups_of_killed_processes_are_removed() -> None:
    if not scope.may_be_sure():
        pytest.skip("no cgroup may be had here")
    one = scope.Scope()
    (mine,) = [Path(path) for path in cgroups()]
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = mine.parent / f"freezelab-{ended.pid}-x"
    left.mkdir()
    one.close()
    scope.Scope().close()
    assert not left.exists()


@pytest.mark.usefixtures("way")
def test_daemons_do_not_outlive_the_deadline() -> None:
    """Not even those that have a session of their own and no parent any more."""
    marker = f"66.{os.getpid()}"
    done = execute(
        ("sh", "-c", f"{DAEMON.format(marker)} sleep {marker}"),
        CLOCK,
        stop_at_raw_ns=CLOCK.now().raw_ns + NS_PER_S,
        tree=True,
    )
    assert done.overran
    assert gone(marker)
    assert cgroups() == []


@pytest.mark.usefixtures("way")
def test_daemons_of_an_interrupted_program_die_too() -> None:
    marker = f"67.{os.getpid()}"

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted("SIGUSR1")

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Interrupted):
            execute(
                ("sh", "-c", f"{DAEMON.format(marker)} sleep {marker}"),
                CLOCK,
                stop_at_raw_ns=CLOCK.now().raw_ns + 60 * NS_PER_S,
                tree=True,
            )
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert gone(marker)
    assert cgroups() == []


def test_in_a_cgroup_nothing_escapes(way: str) -> None:
    """Not even a daemon that has cleared its environment."""
    if way != "cgroup":
        return
    marker = f"68.{os.getpid()}"
    done = execute(
        ("sh", "-c", f"(env -i setsid sh -c 'sleep {marker} & exit 0' &) ; sleep {marker}"),
        CLOCK,
        stop_at_raw_ns=CLOCK.now().raw_ns + NS_PER_S,
        tree=True,
    )
    assert done.overran
    assert gone(marker)


@pytest.mark.usefixtures("way")
def test_a_daemon_of_a_program_that_was_in_time_lives_on() -> None:
    marker = f"69.{os.getpid()}"
    done = execute(
        ("sh", "-c", f"{DAEMON.format(marker)} sleep 1"),
        CLOCK,
        stop_at_raw_ns=CLOCK.now().raw_ns + 20 * NS_PER_S,
        tree=True,
    )
    assert done.ok, done.why
    there = alive(marker)
    assert there
    for pid in there:
        os.kill(pid, signal.SIGKILL)
    assert cgroups() == []
