"""The probe of a shell, in each shell that is here, and the record that the host makes of its samples."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import replace

import pytest

from lab.core.clock import GuestClock, Stamp
from lab.core.findings import findings
from lab.core.judge import measure
from lab.core.plan import Expectations, Regime, ResyncMechanism
from lab.core.rates import SLEWED, steady_rates
from lab.core.timeline import ProbeFacts
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.witnesses import Witness
from lab.guest import probe_protocol, program
from lab.guest.shell_samples import FLOOR_NS, ShellSamples
from tests.unit.scenario import Scenario
from tests.unit.simulation import simulate

NOBODY = 65534
SHELLS = [["dash"], ["bash"], ["busybox", "sh"], ["mksh"]]


@pytest.fixture(params=[shell for shell in SHELLS if shutil.which(shell[0])], ids=" ".join)
def lines(request: pytest.FixtureRequest) -> list[str]:
    """What it answers, and its samples; the shell is this one, not bash."""
    text = shlex.split(program.shell_command())[-1]
    process = subprocess.Popen(
        [*request.param, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write("r 1-1\nc\n")
    process.stdin.flush()
    time.sleep(1.0)
    out, _ = process.communicate("p\nf\nr 1-2\nq\n", timeout=20)
    return out.splitlines()


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
    assert 3 <= len(beats) <= 11
    samples = ShellSamples()
    for _, number, *clocks in beats:
        assert int(number) <= len(beats)
        samples.add([clock.encode() for clock in clocks])
    report = samples.report()
    assert report is not None
    assert report.last_raw_ns - report.first_raw_ns < 2 * NS_PER_S
    assert lines.index("P") > max(n for n, line in enumerate(lines) if line.startswith("B "))


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
    assert (report.floor_ns, report.count, report.usual_ns) == (FLOOR_NS, 8, 110 * NS_PER_MS)


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
    text = shlex.split(program.shell_command())[-1]
    done = subprocess.run(
        ["sh", "-c", text], input=b"r 1-1\nq\n", capture_output=True, user=NOBODY, timeout=20, check=True
    )
    hello, answer = done.stdout.splitlines()
    facts = json.loads(hello[2:])
    assert (facts["steady"], facts["resolution_ns"]) == (GuestClock.BOOT, 10 * NS_PER_MS)
    clocks = answer.split()
    assert abs(int(clocks[2]) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 20 * NS_PER_S
    assert int(clocks[2]) <= int(clocks[9])
