"""The probe of a shell, in each shell that is here, and the record that the host makes of its samples."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.clock import GuestClock, Stamp
from lab.core.depth import Depth, ProbeLimits, bounds
from lab.core.findings import findings
from lab.core.judge import measure
from lab.core.plan import Expectations, Regime, ResyncMechanism
from lab.core.rates import SLEWED, steady_rates
from lab.core.timeline import ProbeFacts
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.witnesses import Witness
from lab.errors import GuestError
from lab.guest import probe_protocol, program
from lab.guest.probe_command import start_command
from lab.guest.shell_samples import PERIOD_NS, ShellSamples
from tests.unit.scenario import Scenario
from tests.unit.shells import NOBODY, SHELLS, needed
from tests.unit.simulation import simulate


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return [needed(request.param[0]), *request.param[1:]]


def talk(argv: list[str], path: str = "", samples: int = 0) -> list[str]:
    """The answers to r, c, p, f, r, q, and at least so many samples between c and p. path: before PATH."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None,
    )
    limit = threading.Timer(60, process.kill)
    limit.start()
    try:
        lines = _talk(process, samples)
    finally:
        limit.cancel()
        process.kill()
        process.wait()
    return lines


def _talk(process: subprocess.Popen[str], samples: int) -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    lines = []
    with process.stdin, process.stdout:
        process.stdin.write("r 1-1\nc\n")
        process.stdin.flush()
        for line in process.stdout:  # a busy machine may take seconds for what comes before the first sample
            lines.append(line.rstrip("\n"))
            if "C" in lines and sum(line.startswith("B ") for line in lines) >= samples:
                break
        process.stdin.write("p\nf\nr 1-2\nq\n")
        process.stdin.flush()
        return lines + process.stdout.read().splitlines()


@pytest.fixture
def lines(shell: list[str]) -> list[str]:
    """What it answers, and its samples; the shell is this one, not bash."""
    return talk([*shell, "-c", program.shell_program()], samples=4)


def test_it_speaks_the_probes_protocol(lines: list[str]) -> None:
    answers = [line for line in lines if not line.startswith("B ")]
    assert [line[0] for line in answers] == list("HRCPFR")
    hello = json.loads(answers[0][2:])
    assert (hello["depth"], hello["python"], bool(hello["boot_id"])) == ("shell", "", True)
    before, after = Stamp(time.monotonic_ns(), time.time_ns()), Stamp(time.monotonic_ns(), time.time_ns())
    reading = probe_protocol.reading(
        lambda *_: (before, after, answers[-1][5:].encode()), b"", hello["resolution_ns"], "ssh", bytes
    )
    assert set(reading.t2) == set(reading.t3) == {GuestClock.RAW, GuestClock.REAL}
    assert 0 <= reading.t3[GuestClock.RAW] - reading.t2[GuestClock.RAW] < NS_PER_S
    assert abs(reading.t2[GuestClock.REAL] - time.time_ns()) < 30 * NS_PER_S
    facts = probe_protocol.facts(lambda *_: (before, after, answers[4][2:].encode()))
    assert ProbeFacts(**facts).steady in (GuestClock.MONO, GuestClock.BOOT)
    assert facts["kernel_lines"] in (None, ()) or all(facts["kernel_lines"])


def test_it_samples_until_it_is_to_rest(lines: list[str]) -> None:
    beats = [line.split() for line in lines if line.startswith("B ")]
    assert len(beats) >= 4
    samples = ShellSamples()
    for _, number, *clocks in beats:
        assert int(number) <= len(beats)
        samples.add([clock.encode() for clock in clocks])
    report = samples.report()
    assert report is not None
    spent_ns = report.last_raw_ns - report.first_raw_ns
    assert (len(beats) - 1) * PERIOD_NS * 0.9 < spent_ns < 60 * NS_PER_S
    assert lines.index("P") > max(n for n, line in enumerate(lines) if line.startswith("B "))


SLOWLY = 'printf() { case $1 in B*) ;; *) sleep 0.3 ;; esac; command printf "$@"; }\n'
"""Waits before it writes anything but a sample."""


def test_no_sample_comes_in_the_middle_of_an_answer(shell: list[str]) -> None:
    """Though the guest may take long to write it. It samples again afterwards."""
    process = subprocess.Popen(
        [*shell, "-c", SLOWLY + program.shell_program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    limit = threading.Timer(60, process.kill)
    limit.start()
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        process.stdin.write(b"c\nf\n")
        process.stdin.flush()
        lines = iter(process.stdout.readline, b"")
        answer = next(line for line in lines if line.startswith(b"F "))
        sample = next((line for line in lines if line.startswith(b"B ")), b"")
        process.stdin.write(b"q\n")
    process.wait()
    limit.cancel()
    assert ProbeFacts(**probe_protocol.facts(lambda *_: (Stamp(1, 1), Stamp(2, 2), answer[2:]))).boot_id
    assert len(sample.split()) == 5


def broken_answers() -> Iterator[tuple[str, bytes]]:
    """As they arrive from a connection or a guest that mixes up what it writes."""
    for cut in (b"", b"{", b'{"boot_id":"x","kernel_lines":[],B 5 6 7 8', b"[]", b'{"holes":[1]}', b"\xff"):
        for kind in ("facts", "samples", "hello"):
            yield kind, cut
    for cut in (b"", b"1 2 3 4 5 6 7", b"1 2 3 4 - - - x", b"1 2 3 4 5 6 7 8 x 1"):
        yield "reading", cut


@pytest.mark.parametrize(("kind", "answer"), [*broken_answers()])
def test_an_answer_that_is_not_valid_is_the_guests_failure(kind: str, answer: bytes) -> None:
    def exchange(*_: bytes) -> tuple[Stamp, Stamp, bytes]:
        return Stamp(1, 1), Stamp(2, 2), answer

    asks: dict[str, Callable[[], object]] = {
        "facts": lambda: probe_protocol.facts(exchange),
        "samples": lambda: probe_protocol.samples(exchange),
        "hello": lambda: probe_protocol.hello(answer),
        "reading": lambda: probe_protocol.reading(exchange, b"1", 1, "ssh", bytes),
    }
    with pytest.raises(GuestError, match="the probe's answer is not valid"):
        asks[kind]()


BSD = {
    "uname": "case $1 in -s) echo FreeBSD ;; -sr) echo FreeBSD 14.1-RELEASE ;; esac",
    "date": 'case $1 in +%N) echo N ;; +%s%N) echo no %N; exit 1 ;; *) exec /bin/date "$@" ;; esac',
    "sleep": 'case $1 in *.*) echo usage: sleep number >&2; exit 1 ;; *) exec /bin/sleep "$@" ;; esac',
    "dmesg": "echo CPU: a real one; exit 0",
}
"""How the programs of a BSD differ from Linux's: date writes N for %N. An old sleep takes whole seconds."""


def as_bsd(folder: Path) -> str:
    """The path of a folder with those programs."""
    for name, text in BSD.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_a_system_without_proc_has_realtime_alone(shell: list[str], tmp_path: Path) -> None:
    """As on a BSD. Nothing of a kernel's log is said that nobody understands."""
    text = program.shell_program().replace("/proc/", "/nowhere/").replace("/sys/", "/nowhere/")
    lines = talk([*shell, "-c", text], as_bsd(tmp_path))
    assert [line[0] for line in lines] == list("HRCPFR")  # nothing is sampled
    hello = json.loads(lines[0][2:])
    assert (hello["steady"], hello["boot_id"], hello["clocksource"]) == ("", "", "")
    assert (hello["kernel"], hello["kernel_lines"]) == ("FreeBSD 14.1-RELEASE", None)
    assert hello["resolution_ns"] == (1000 if has_clock(shell) else NS_PER_S)
    assert hello["period_ns"] == (PERIOD_NS if shell[0].endswith("ksh93") else NS_PER_S)  # its own sleep
    before, after = Stamp(1, time.time_ns()), Stamp(2, time.time_ns())
    answer = lines[-1][5:].encode()
    reading = probe_protocol.reading(
        lambda *_: (before, after, answer), b"", hello["resolution_ns"], "ssh", bytes
    )
    assert set(reading.t2) == set(reading.t3) == {GuestClock.REAL}
    assert abs(reading.offset(GuestClock.REAL).mid_ns) < 30 * NS_PER_S
    assert reading.offset(GuestClock.REAL).half_width_ns >= hello["resolution_ns"] - 1
    limits = ProbeLimits(hello["resolution_ns"], hello["steady"], hello["period_ns"])
    assert ("in whole seconds" in bounds(Depth.SHELL, limits)) is not has_clock(shell)
    assert "no lag, no gap and no silence" in bounds(Depth.SHELL, limits)


def has_clock(shell: list[str]) -> bool:
    """Whether the shell has the time itself, without date."""
    script = 'test -n "${EPOCHREALTIME-}"'
    return subprocess.run([*shell, "-c", script], check=False, timeout=20).returncode == 0


def test_busyboxs_date_has_whole_seconds(tmp_path: Path) -> None:
    """Debian's is built without %N. The other clock is good, but no better than what is read with it."""
    date = tmp_path / "date"
    date.symlink_to(needed("busybox"))
    sleep = tmp_path / "sleep"
    sleep.symlink_to(date)
    lines = talk([needed("dash"), "-c", program.shell_program()], str(tmp_path), samples=12)
    hello = json.loads(lines[0][2:])
    assert (hello["resolution_ns"], hello["period_ns"]) == (NS_PER_S, PERIOD_NS)
    samples = ShellSamples(ProbeLimits(hello["resolution_ns"], hello["steady"], hello["period_ns"]))
    for line in lines:
        if line.startswith("B "):
            samples.add([word.encode() for word in line.split()[2:]])
    report = samples.report()
    assert report is not None and report.steps == ()  # the seconds' own steps are none
    assert report.unseen_step_ns(0) > 2 * NS_PER_S


@pytest.mark.parametrize(
    ("wanted", "python", "found"),
    [("shell", "python", "shell"), ("auto", "python", "python"), ("auto", "no-python", "shell")],
)
def test_a_login_shell_may_be_a_csh(wanted: str, python: str, found: str) -> None:
    """FreeBSD's root had one until 14.0. sshd calls it with -c. python: what is asked for in its place."""
    command = start_command(Depth(wanted)).replace("python", python)
    lines = talk([needed("tcsh"), "-f", "-c", command])
    assert "".join(line[0] for line in lines if not line.startswith("B ")) == "HRCPFR"
    assert json.loads(lines[0][2:]).get("depth", "python") == found


def test_a_sleep_of_whole_seconds_samples_every_second() -> None:
    samples = ShellSamples(ProbeLimits(1, GuestClock.MONO, NS_PER_S))
    for at in (0, 1010, 2020, 3030, 9000, 10010):
        samples.add([str((at + part) * NS_PER_MS).encode() for part in (0, 1, 2)])
    report = samples.report()
    assert report is not None
    assert [hole.length_ns for hole in report.holes] == [5968 * NS_PER_MS]
    assert (report.period_ns, report.floor_ns) == (NS_PER_S, 2 * NS_PER_S)


def sampled(*taken: tuple[int, int, int]) -> ShellSamples:
    made = ShellSamples()
    for clocks in taken:
        made.add([str(value * NS_PER_MS).encode() for value in clocks])
    return made


def test_a_hole_and_a_step_are_recorded() -> None:
    report = sampled((0, 1000, 2), (110, 1111, 112), (2110, 8111, 2112), (2220, 8221, 2222)).report()
    assert report is not None
    assert [hole.length_ns for hole in report.holes] == [1998 * NS_PER_MS]
    assert [step.by_ns for step in report.steps] == [5000 * NS_PER_MS]
    assert (report.floor_ns, report.count, report.usual_ns) == (2 * PERIOD_NS, 8, 110 * NS_PER_MS)


def test_what_a_sample_could_not_tell_is_no_step_and_is_the_floor() -> None:
    report = sampled((0, 1000, 40), (110, 1140, 150), (220, 1220, 221)).report()
    assert report is not None
    assert report.steps == ()
    assert report.unseen_step_ns(0) >= 80 * NS_PER_MS


def test_a_sample_with_the_pause_in_it_says_nothing_of_the_other_clock() -> None:
    report = sampled((0, 1000, 1), (100, 9000, 3100), (3200, 4200, 3201)).report()
    assert report is not None
    assert report.steps == ()
    assert [hole.length_ns for hole in report.holes] == [3000 * NS_PER_MS]


def test_without_a_steady_clock_there_is_no_record() -> None:
    samples = ShellSamples()
    samples.add([b"-", b"1000", b"-"])
    assert samples.report() is None


def test_a_clock_that_may_be_slewed_has_no_rate_of_its_own() -> None:
    seen = simulate(Scenario())[0]
    facts = seen.facts_before
    assert facts is not None
    assert steady_rates(seen, [], [], None) != (SLEWED, SLEWED)
    slewed = replace(seen, facts_before=replace(facts, steady=GuestClock.MONO))
    assert steady_rates(slewed, [], [], None) == (SLEWED, SLEWED)


@pytest.mark.parametrize("regime", [Regime.RESUMED, Regime.JUMPED])
def test_a_slewed_clock_is_judged_with_wider_bounds(regime: Regime) -> None:
    seen = simulate(Scenario(regime=regime))[0]
    assert seen.facts_before is not None
    slewed = replace(seen, facts_before=replace(seen.facts_before, steady=GuestClock.MONO))
    lags = []
    for each in (seen, slewed):
        result = measure(each, ResyncMechanism.NONE, Expectations())
        assert result.pause is not None and result.pause.regime is regime
        [closure] = [finding for finding in findings(result, Expectations()) if finding.metric == "closure"]
        assert closure.outcome == "passed"
        lags.append(result.pause.witnesses[Witness.LAG])
    assert lags[1].low_ns < lags[0].low_ns <= lags[0].high_ns < lags[1].high_ns


def test_a_closure_that_rules_nothing_out_is_not_passed() -> None:
    """The last reading was eight pauses before the stop."""
    seen = simulate(Scenario(before_ns=10 * NS_PER_S, pause_ns=NS_PER_S))[0]
    assert seen.facts_before is not None and seen.stop is not None and seen.resume is not None
    pause_ns = seen.resume.called.raw_ns - seen.stop.returned.raw_ns
    until = seen.stop.called.raw_ns - 8 * pause_ns
    sparse = [r for r in seen.readings if r.t4.raw_ns < until or r.t1.raw_ns > seen.resume.returned.raw_ns]
    slewed = replace(seen, readings=sparse, facts_before=replace(seen.facts_before, steady=GuestClock.MONO))
    result = measure(slewed, ResyncMechanism.NONE, Expectations())
    [closure] = [finding for finding in findings(result, Expectations()) if finding.metric == "closure"]
    assert closure.outcome == "inconclusive"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_is_not_root_has_a_coarser_clock() -> None:
    done = subprocess.run(
        ["sh", "-c", program.shell_program()],
        input=b"r 1-1\nq\n",
        capture_output=True,
        user=NOBODY,
        timeout=20,
        check=True,
    )
    hello, answer = done.stdout.splitlines()
    facts = json.loads(hello[2:])
    assert (facts["steady"], facts["resolution_ns"]) == (GuestClock.BOOT, 10 * NS_PER_MS)
    clocks = answer.split()
    assert abs(int(clocks[2]) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 20 * NS_PER_S
    assert int(clocks[2]) <= int(clocks[9])
