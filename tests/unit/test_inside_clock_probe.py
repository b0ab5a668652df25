"""The probe on its own, as a real process: it has to run where the lab does not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from lab.core.depth import Depth
from lab.core.timeline import SamplerReport
from lab.guest import program
from lab.guest.probe_command import PROGRAM, start_command

COMMANDS = b"c\nr 1\nr 2\ns\nf\nq\n"
NOBODY = 65534


@pytest.fixture(scope="module")
def answers() -> list[str]:
    argv = ["/bin/sh", "-c", start_command()]
    done = subprocess.run(argv, input=COMMANDS, capture_output=True, timeout=60, check=True)
    return [line for line in done.stdout.decode().splitlines() if not line.startswith("B ")]


def test_it_answers_in_order_and_ends_when_told(answers: list[str]) -> None:
    assert [line[0] for line in answers] == list("HCRRSF")


def test_a_reading_reads_raw_first_and_last(answers: list[str]) -> None:
    """core.offsets.apart relies on it."""
    _, number, *clocks = answers[2].split()
    raw, real, mono, boot, boot2, mono2, real2, raw2 = map(int, clocks)
    assert number == "1"
    assert (raw <= raw2, real <= real2, mono <= mono2, boot <= boot2) == (True,) * 4


def test_lines_that_come_together_have_receipts_of_their_own(answers: list[str]) -> None:
    """The second one may have come when the first one's clocks had been read."""
    first, second = ([int(word) for word in line.split()[2:]] for line in answers[2:4])
    assert second[0] >= first[-1]


def test_it_tells_what_the_probe_needs(answers: list[str]) -> None:
    facts, sampler = json.loads(answers[0][2:]), json.loads(answers[4][2:])
    assert facts["boot_id"] and facts["clocksource"] and facts["resolution_ns"] == 1
    assert set(sampler) == {field.name for field in fields(SamplerReport)}
    assert sampler["count"] >= 1
    assert sampler["first_raw_ns"] <= sampler["last_raw_ns"]


def test_a_guest_without_python_says_so() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", start_command().replace("/usr/", "/nowhere/")],
        env={"PATH": "/nonexistent"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 127
    assert b"no python3" in done.stderr


@pytest.mark.parametrize(("wanted", "begun"), [(Depth.AUTO, "shell"), (Depth.PYTHON, "python")])
def test_a_python_without_json_is_as_good_as_none(tmp_path: Path, wanted: Depth, begun: str) -> None:
    """Debian's python3-minimal, where a shell would do."""
    minimal = tmp_path / "python3"
    minimal.write_text(f'#!/bin/sh\ncase "$*" in *" json;"*) exit 1 ;; esac\nexec {sys.executable} "$@"\n')
    minimal.chmod(0o755)
    command = start_command(wanted).replace("/usr/", "/nowhere/")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", command], env=env, input=COMMANDS, capture_output=True, timeout=60, check=True
    )
    hello = json.loads(done.stdout.splitlines()[0][2:])
    assert hello.get("depth", "python") == begun


class Host:
    """One end of the protocol: a pair of pipes, or a socket."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write, self._waiting = read, write, b""

    def say(self, text: bytes) -> None:
        os.write(self.write, text)

    def line(self, letter: str = "") -> str:
        """The next line that starts with `letter`; the very next one without."""
        while True:
            while b"\n" not in self._waiting:
                data = os.read(self.read, 65536)
                if not data:
                    raise EOFError
                self._waiting += data
            line, self._waiting = self._waiting.split(b"\n", 1)
            if line.decode().startswith(letter):
                return line.decode()

    def leave(self) -> None:
        for end in {self.read, self.write}:
            os.close(end)


class RunningProbe:
    """A running probe, and the host that started it."""

    def __init__(self, text: bytes) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", program.command(text)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.first = Host(os.dup(self.process.stdout.fileno()), os.dup(self.process.stdin.fileno()))
        self.process.stdin.close()
        self.process.stdout.close()
        self.hello = json.loads(self.first.line("H")[2:])
        self.path: str = self.hello["path"]

    def come_back(self) -> Host:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self.path)
        end = peer.detach()
        return Host(end, end)


@pytest.fixture
def start() -> Iterator[Callable[..., RunningProbe]]:
    """Starts probes, with parts of their text replaced; what still runs in the end is killed."""
    started: list[RunningProbe] = []

    def make(**replaced: str) -> RunningProbe:
        text = program.source(PROGRAM)
        for name, value in replaced.items():
            lines = text.splitlines(keepends=True)
            assert sum(line.startswith(f"{name} = ".encode()) for line in lines) == 1
            text = b"".join(
                f"{name} = {value}\n".encode() if line.startswith(f"{name} = ".encode()) else line
                for line in lines
            )
        started.append(RunningProbe(text))
        return started[-1]

    yield make
    for probe in started:
        probe.process.kill()
        probe.process.wait()


Start = Callable[..., RunningProbe]


def test_what_it_knows_outlives_its_host(start: Start) -> None:
    probe = start()
    probe.first.say(b"c\ns\n")
    first = json.loads(probe.first.line("S")[2:])
    beat = int(probe.first.line("B").split()[1])
    probe.first.leave()
    time.sleep(0.2)
    host = probe.come_back()
    beats = int(host.line("A").split()[1])
    assert int(host.line("B").split()[1]) == beats + 1
    host.say(b"s\n")
    later = json.loads(host.line("S")[2:])
    assert later["first_raw_ns"] == first["first_raw_ns"]
    # It went on sampling and counting in between: holes would be the probe's own.
    assert later["count"] - first["count"] > 0.2e9 / later["period_ns"] / 2
    assert beats > beat + 3


def test_at_rest_it_answers_and_does_nothing_else(start: Start) -> None:
    probe = start()
    probe.first.say(b"p\n")
    probe.first.line("P")
    time.sleep(0.3)
    probe.first.say(b"r 1\ns\n")
    assert probe.first.line().startswith("R 1 "), "no heartbeat came in between"
    before = json.loads(probe.first.line("S")[2:])["count"]
    time.sleep(0.1)
    probe.first.say(b"s\n")
    assert json.loads(probe.first.line()[2:])["count"] == before + 1, "only asking looks"
    probe.first.say(b"c\n")
    probe.first.line("C")
    first = int(probe.first.line("B").split()[1])
    assert int(probe.first.line("B").split()[1]) == first + 1


def test_a_line_cut_off_by_the_loss_is_forgotten(start: Start) -> None:
    probe = start()
    probe.first.say(b"r 1")
    time.sleep(0.05)
    probe.first.leave()
    host = probe.come_back()
    host.line("A")
    host.say(b"r 2\n")
    assert host.line("R").split()[1] == "2"


def test_an_answer_cut_off_by_the_loss_is_forgotten(start: Start) -> None:
    probe = start()
    for _ in range(40):  # nobody reads: more than a pipe holds
        probe.first.say(b"s\n" * 40)
        time.sleep(0.01)
    host = probe.come_back()
    seen = os.read(host.read, 65536)
    assert seen.startswith(b"A ")
    host.say(b"r 3\n")
    assert host.line("R").split()[1] == "3"


def test_a_host_that_comes_back_takes_over_from_one_that_seems_alive(start: Start) -> None:
    probe = start()
    host = probe.come_back()
    host.line("A")
    host.say(b"r 1\n")
    assert host.line("R")
    with pytest.raises(EOFError):
        probe.first.line("R")


def test_it_is_taken_over_again_and_again_and_keeps_no_descriptors(start: Start) -> None:
    probe = start()
    folder = Path(f"/proc/{probe.process.pid}/fd")
    before = len(list(folder.iterdir()))
    for number in range(20):
        host = probe.come_back()
        host.line("A")
        host.say(b"r %d\n" % number)
        assert host.line("R").split()[1] == str(number)
        if number % 2:
            host.leave()
    host = probe.come_back()
    host.line("A")
    assert len(list(folder.iterdir())) == before


def test_it_sees_that_nobody_reads_it_any_more(start: Start) -> None:
    probe = start()
    os.close(probe.first.read)  # its input stays open: only the next heartbeat can tell
    deadline = time.monotonic() + 20
    while str(Path(f"/proc/{probe.process.pid}/fd/0").readlink()) != "/dev/null":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert probe.come_back().line("A")


def test_without_a_host_it_ends_and_leaves_nothing(start: Start) -> None:
    probe = start(STAY_NS="300000000")
    os.close(probe.first.write)
    assert probe.process.wait(20) == 0
    assert not Path(probe.path).exists()
    assert not [
        f for folder in ("/run", "/dev/shm", "/tmp") for f in Path(folder).glob("freezelab-" + "?" * 32)
    ]


def test_with_a_host_it_does_not_end(start: Start) -> None:
    probe = start(STAY_NS="300000000")
    probe.first.leave()
    host = probe.come_back()
    host.line("A")
    time.sleep(0.6)
    host.say(b"r 1\n")
    assert host.line("R")
    host.say(b"q\n")
    assert probe.process.wait(20) == 0


def test_where_it_cannot_be_found_again_it_ends_with_its_host(start: Start) -> None:
    probe = start(FOLDERS='("/nonexistent",)')
    assert probe.path == ""
    probe.first.leave()
    assert probe.process.wait(20) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_does_not_reach_it(start: Start) -> None:
    probe = start()
    attempt = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", attempt, probe.path],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "PermissionError" in done.stderr
    probe.first.say(b"r 1\n")
    assert probe.first.line("R")
