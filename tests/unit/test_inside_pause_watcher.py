"""The watcher's inside on its own, as a real process: it has to run where the lab does not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.guest import program

TEXT = program.source("pause_watcher")
CHRONYC = """#!/bin/sh
# Stands in for chronyc where there is none, and says what it is told to.
while read -r asked; do
  if [ -e {folder}/gone ]; then echo '506 Cannot talk to daemon'; continue; fi
  case $asked in
    sources) echo '^,*,10.0.2.2,3,0,377,1,-0.000012,-0.000020,0.000300'
             echo '^,?,10.0.2.9,0,6,0,4294967295,0.0,0.0,0.0' ;;
    tracking) cat {folder}/tracking ;;
  esac
done
"""
TRACKING = "0A000202,10.0.2.2,3,1795000000.0,{offset},0.0,0.0,-8.1,0.0,0.1,0.000400,0.000100,1.0,{leap}\n"


def edited(old: bytes, new: bytes) -> bytes:
    """The watcher's text with one place replaced, as program.source() writes it."""
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)


CYCLE = f"cycle {60 * 10**9}"


class Watch:
    """A running one."""

    def __init__(self, names: str, effects: bool, load: float, vcpus: int, source: bytes) -> None:
        command = program.command(source, names, str(int(effects)), str(load), str(vcpus))
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=60, check=True)
        self.path = json.loads(done.stdout[2:])["path"]
        self.process = psutil.Process(int(self.path.split("/")[2]))

    def ask(self, what: str) -> Any:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(self.path)
            sock.sendall(what.encode() + b"\n")
            said = sock.makefile("rb").readline()
        return json.loads(said[2:])

    def cycle(self, seconds: float) -> tuple[dict[str, list[list[Any]]], Any]:
        self.ask(CYCLE)
        time.sleep(seconds)
        return self.ask("claims"), self.ask("effects")


Start = Callable[..., Watch]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Watch] = []

    def begin(
        names: str = "", effects: bool = False, load: float = 0.0, vcpus: int = 2, source: bytes = TEXT
    ) -> Watch:
        made.append(Watch(names, effects, load, vcpus, source))
        return made[-1]

    yield begin
    for each in made:
        if each.process.is_running():
            family = [each.process, *each.process.children(recursive=True)]
            for process in family:
                process.kill()


@contextmanager
def ends_with_all_its_children(watch: Watch) -> Iterator[None]:
    family = [watch.process, *watch.process.children(recursive=True)]
    yield
    gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert len(gone) == len(family)


def test_the_kernels_own_claim(start: Start) -> None:
    claims, effects = start().cycle(1.2)
    assert effects is None
    assert list(claims) == ["adjtimex"]
    rows = claims["adjtimex"]
    assert len(rows) >= 2
    for begun, ended, low, high, synced, bound, text in rows:
        assert begun <= ended
        assert low <= high
        assert synced in (True, False)
        assert f"maxerror {bound // 1000} us" in text
    apart = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
    assert all(abs(apart - row[2]) < 10**9 for row in rows)
    times = [row[0] for row in rows]
    assert times == sorted(times)


@pytest.fixture
def chronyc(tmp_path: Path) -> bytes:
    """The watcher's text with a chronyc of ours on its PATH."""
    program_path = tmp_path / "chronyc"
    program_path.write_text(CHRONYC.format(folder=tmp_path))
    program_path.chmod(0o755)
    (tmp_path / "tracking").write_text(TRACKING.format(offset="-0.000020", leap="Normal"))
    return edited(b"'/usr/sbin:", f"'{tmp_path}:/usr/sbin:".encode())


def test_chronyc_is_asked_and_understood(start: Start, chronyc: bytes, tmp_path: Path) -> None:
    watch = start("chronyc", source=chronyc)
    watch.ask(CYCLE)
    time.sleep(1.6)
    (tmp_path / "tracking").write_text(TRACKING.format(offset="0.0", leap="Not synchronised"))
    time.sleep(1.6)
    (tmp_path / "gone").touch()
    time.sleep(2.5)
    claims = watch.ask("claims")
    tracking = claims["chronyc tracking"]
    assert [row[4] for row in tracking].count(True) >= 1
    assert tracking[0][5] == 20_000 + 100_000 + 200_000 + 1  # |offset| + dispersion + delay / 2
    assert tracking[-2][4] is False
    assert tracking[-1][4:6] == [None, None]  # once, and no more
    assert [row[4:6] for row in tracking].count([None, None]) == 1
    sources = claims["chronyc sources"]
    assert sources[0][4:6] == [True, None]
    assert "10.0.2.2" in sources[0][6]
    assert sources[-1][4] is None


def test_a_program_that_is_missing_claims_nothing(start: Start) -> None:
    nowhere = edited(b"'/usr/sbin:/usr/bin:/sbin:/bin'", b"'/nonexistent'")
    claims, _ = start("chronyc,ntpq,timesync,timedatectl", source=nowhere).cycle(2.5)
    assert list(claims) == ["adjtimex"]


def test_effects_are_watched_until_they_are_asked_for(start: Start) -> None:
    watch = start(effects=True, load=0.3)
    watch.ask(CYCLE)
    time.sleep(3)
    assert watch.process.children()
    claims, effects = watch.ask("claims"), watch.ask("effects")
    assert not watch.process.children()
    assert claims["adjtimex"]
    assert watch.ask("effects") == effects
    kinds = {kind["kind"]: kind for kind in effects["timers"]}
    assert set(kinds) == {"timerfd monotonic", "timerfd realtime", "timerfd boottime", "sleep"}
    for kind in kinds.values():
        assert kind["timers"] == 6
        assert kind["count"] == sum(count for _, count in kind["buckets"]) > 8
        assert kind["early"] == 0
        assert [edge for edge, _ in kind["buckets"]] == sorted(edge for edge, _ in kind["buckets"])
    assert abs(effects["boot_minus_mono_ns"]) < 10**6


def test_the_order_of_looks_is_kept_between_processors(start: Start) -> None:
    _, effects = start(effects=True).cycle(2)
    rows = {
        (clock, one, two): (looks, backward) for clock, one, two, looks, backward, _ in effects["backward"]
    }
    pairs = {(one, two) for _, one, two in rows}
    cpus = sorted(psutil.Process().cpu_affinity() or [])[:2]
    assert {(cpu, cpu) for cpu in cpus} <= pairs
    if len(cpus) == 2:
        assert {(cpus[0], cpus[1]), (cpus[1], cpus[0])} <= pairs
    assert all(looks > 5 for looks, _ in rows.values())
    assert not any(backward for _, backward in rows.values())


def test_a_clock_that_goes_backward_is_found(start: Start) -> None:
    """The looks on one processor come from a clock that sometimes is 5 ms behind itself."""
    cpu = min(os.sched_getaffinity(0))
    doctored = edited(
        b"    return (gettime(RAW), gettime(MONO), gettime(REAL))\n",
        b"    ours = os.sched_getaffinity(0) == {%d}\n"
        % cpu
        + b"    back = 5000000 * (ours and gettime(MONO) // MS % 3 == 0)\n"
        b"    return gettime(RAW) - back, gettime(MONO) - back, gettime(REAL) - back\n",
    )
    _, effects = start(effects=True, source=doctored).cycle(3)
    backward = [row for row in effects["backward"] if row[4]]
    assert {row[0] for row in backward} == {"monotonic raw", "monotonic", "realtime"}
    assert all(0 < row[5] <= 5_000_000 for row in backward)


def test_stopped_it_leaves_nothing(start: Start) -> None:
    watch = start(effects=True, load=1.0)
    watch.ask(CYCLE)
    with ends_with_all_its_children(watch):
        watch.ask("stop")


def test_they_end_by_themselves_when_the_host_does_not_come_back(start: Start) -> None:
    watch = start(effects=True, load=1.0)
    watch.ask("cycle 1000000000")
    _, alive = psutil.wait_procs(watch.process.children(recursive=True), timeout=20)
    assert not alive
    assert watch.ask("effects")["timers"]


def test_its_children_end_with_it(start: Start) -> None:
    watch = start(effects=True, load=0.5)
    watch.ask(CYCLE)
    time.sleep(0.5)
    with ends_with_all_its_children(watch):
        watch.process.kill()
