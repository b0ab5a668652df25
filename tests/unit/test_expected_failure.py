"""Negative controls pass by failing as they must, and everything that is told of the run agrees."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lab.core.expected_failure import Failure, MustFail
from lab.core.plan import (
    Cell,
    CycleSpec,
    Expectations,
    FreezeMethod,
    GuestSpec,
    HoldPatch,
    Plan,
    ResyncMechanism,
)
from lab.core.verdict import Finding, Outcome, worst
from lab.errors import PlaybookError
from lab.playbook import parse
from lab.record.journal import read_history
from lab.record.run import Run, judge
from lab.report.junit import write_junit
from lab.report.terminal import render
from tests.unit.journalled import Journalled, write
from tests.unit.simulation import MS, Repair, S, Scenario, simulate

IN_TIME, DRIFT = Failure.IN_TIME, Failure.DRIFT
P, F, OPEN = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE


def found(**outcomes: Outcome) -> list[Finding]:
    return [
        Finding("web-0", 0, metric.replace("_", " "), "so", "thus", outcome, "why")
        for metric, outcome in outcomes.items()
    ]


@pytest.mark.parametrize(
    ("must", "given", "outcome"),
    [
        (MustFail((IN_TIME,)), found(in_time=F, closure=P), P),
        (MustFail((IN_TIME,)), found(in_time=P, closure=P), F),
        (MustFail((IN_TIME,)), found(in_time=OPEN, closure=P), OPEN),
        (MustFail((IN_TIME,)), found(in_time=F, closure=OPEN), OPEN),
        (MustFail((IN_TIME,)), found(in_time=F, budget=F), F),
        (MustFail((IN_TIME, DRIFT)), found(in_time=F), OPEN),
        (MustFail((IN_TIME, DRIFT)), found(in_time=F, drift=P), F),
        (MustFail(), found(in_time=F, closure=P), P),
        (MustFail(), found(in_time=P, closure=P), F),
        (MustFail(), found(in_time=P, closure=OPEN), OPEN),
        (MustFail(), found(in_time=F, closure=OPEN), OPEN),
    ],
)
def test_what_fails_as_it_must_passes(must: MustFail, given: list[Finding], outcome: Outcome) -> None:
    judged = must.judged(given)
    judged += must.missing(judged)
    assert worst(one.outcome for one in judged) is outcome


def control(folder: Path, repair: Repair) -> Run:
    """A guest of which in time and final offset have to fail."""
    obs, _ = simulate(
        Scenario(pause_ns=2 * S, watch_ns=4 * S, before_ns=2 * S, rtt_ns=2 * MS, late_ns=MS, repair=repair)
    )
    expect = Expectations(
        in_time_within_ns=2 * S, hold_ns=S, final_offset_ns=100 * MS,
        must_fail=MustFail((IN_TIME, Failure.FINAL_OFFSET)),
    )  # fmt: skip
    spec = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(2 * S), watch_ns=4 * S)
    cell = Cell("", (), (GuestSpec("web-0"),), ResyncMechanism.NONE, spec, expect)
    return judge(read_history(write(folder, "control", [Journalled(cell, [obs])], matrix=False)))[0]


def failures(run: Run, folder: Path) -> int:
    write_junit(run, folder / "junit.xml")
    return (folder / "junit.xml").read_text().count("<failure")


def shown(run: Run) -> str:
    text = io.StringIO()
    console = Console(file=text, width=100, highlight=False, markup=False, emoji=False, soft_wrap=True)
    render(run, console, verbose=True)
    return text.getvalue()


def test_report_junit_and_verdict_of_a_negative_control_agree(tmp_path: Path) -> None:
    run = control(tmp_path, Repair.NONE)
    assert run.outcome is Outcome.PASSED
    assert run.outcome.exit_code == 0
    (cycle,) = run.guests[0].cycles
    assert cycle.outcome is Outcome.PASSED
    assert {f.metric for f in run.findings if f.failed_as_expected} == {"in time", "final offset"}
    assert failures(run, tmp_path) == 0
    text = shown(run)
    assert "as expected in time fails: still 200" in " ".join(text.split())
    assert "as expected   final offset fails: -200" in text
    assert text.splitlines()[-1].endswith("checks, 2 failed as expected")


def test_a_negative_control_that_holds_fails(tmp_path: Path) -> None:
    run = control(tmp_path, Repair.AGENT)
    assert run.outcome is Outcome.FAILED
    assert run.outcome.exit_code == 1
    assert failures(run, tmp_path) == 2
    assert "in time has to fail, but holds" in shown(run)


PLAYBOOK = "name: t\nresync: none\ncycle: {{patch: {{hold: 3s}}}}\nexpect: {{{}}}\n"


def plan(expect: str) -> Plan:
    return parse(PLAYBOOK.format(expect).encode(), "t.yaml")


def test_a_playbook_says_what_has_to_fail() -> None:
    asked = "in_time: {within: 5s}, outcome: failed, failures: [in time]"
    assert plan(asked).expectations.must_fail == MustFail((IN_TIME,))
    assert plan("outcome: failed").expectations.must_fail == MustFail()
    assert plan("outcome: passed").expectations.must_fail is None


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ("failures: [budget]", "failures are listed, but the run is not expected to fail"),
        ("outcome: failed, failures: [in time]", "in time has to fail, but is not checked"),
        ("outcome: failed, failures: [in tim]", "'in tim' is not a check that can fail"),
        ("outcome: inconclusive", "is not an expectation"),
    ],
)
def test_what_cannot_be_expected_to_fail_is_refused(expect: str, words: str) -> None:
    with pytest.raises(PlaybookError, match=words.replace("(", r"\(")):
        plan(expect)
