"""How a clock is set where there is no Python: the program in each shell, and the host's tries."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from lab.core.clock import Stamp
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.guest import program
from lab.guest.timesync import push, shell_setting
from tests.unit.shells import NOBODY, SHELLS, needed


@pytest.fixture(params=SHELLS, ids=" ".join)
def answers(request: pytest.FixtureRequest) -> list[str]:
    """What it answers to a user who may set no clock: this machine's is not to be stepped."""
    asked = "r 1\nw 2 1\nt 3\nz 4\nr 5\n"
    command = [needed(request.param[0]), *request.param[1:], "-c", program.shell_program("shell_setter")]
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_it_speaks_the_protocol(answers: list[str]) -> None:
    before = time.time_ns()
    assert re.fullmatch(r"H \d+ sh", answers[0])
    assert [line[:3] for line in answers[1:]] == ["R 1", "E 2", answers[3][:3], "Z 4", "R 5"]
    for line in (answers[1], answers[5]):
        upper, lower = (int(word) for word in line.split()[2:])
        assert 0 <= upper - lower < NS_PER_S
        assert abs(lower - before) < 60 * NS_PER_S
    assert "date: " in answers[2]


def test_it_sees_the_rtcs_second_begin_or_says_that_there_is_none(answers: list[str]) -> None:
    if not Path("/sys/class/rtc/rtc0/since_epoch").exists():
        assert answers[3] == "E 3 there is no RTC in /sys/class/rtc"
        return
    letter, number, second, before, after = answers[3].split()
    assert (letter, number) == ("T", "3")
    assert 0 < int(after) - int(before) < NS_PER_S
    assert abs(int(second) * NS_PER_S - int(before)) < 3600 * NS_PER_S


class SlowGuest:
    """A PushChannel to a guest whose date(1) takes `start_ns` to start. resolution_ns: of its clock."""

    patience_s = 5.0
    where = "guest slow"

    def __init__(self, start_ns: int, resolution_ns: int = 1, offset_ns: int = -7 * NS_PER_S) -> None:
        self._start_ns, self._resolution_ns, self.offset_ns = start_ns, resolution_ns, offset_ns
        self._answer = ""
        self.steps = 0

    def now(self) -> Stamp:
        return Stamp(time.monotonic_ns(), time.time_ns())

    def send(self, line: str) -> Stamp:
        letter, number, *argument = line.split()
        sent = self.now()
        if letter == "w":
            time.sleep(self._start_ns / NS_PER_S)
            self.offset_ns = int(argument[0]) * NS_PER_S - time.time_ns()
            self.steps += 1
        shown = (time.time_ns() + self.offset_ns) // self._resolution_ns * self._resolution_ns
        words = f" {shown + self._resolution_ns - 1} {shown}" if letter == "r" else ""
        self._answer = f"{letter.upper()} {number}{words}"
        return sent

    def receive(self, timeout_s: float) -> tuple[str, Stamp]:
        assert timeout_s > 0
        return self._answer, self.now()


def test_what_the_start_of_date_takes_is_taken_off() -> None:
    guest = SlowGuest(40 * NS_PER_MS)
    left = shell_setting.set_clock(guest)
    assert guest.offset_ns in left
    assert abs(guest.offset_ns) < 20 * NS_PER_MS, "half of what the first try leaves"
    assert guest.steps >= 2


def test_a_clock_of_whole_seconds_is_set_once() -> None:
    guest = SlowGuest(5 * NS_PER_MS, resolution_ns=NS_PER_S, offset_ns=3600 * NS_PER_S)
    left = shell_setting.set_clock(guest)
    assert guest.offset_ns in left
    assert guest.steps == 1
    assert -NS_PER_S < push.read(guest).mid_ns < NS_PER_S
