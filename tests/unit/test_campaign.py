"""The campaign's judgement: which cases there are, what it sees in vCPUs' CPU time, what it calls wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.campaign import oracle, processes, table
from tests.campaign.cases import STEPS, Case, Stage, Target, grid, numbered
from tests.campaign.processes import Life, generation, running, standstills

MS = 1_000_000


def life(*spans: tuple[float, float], pid: int = 1, generation: int = 0, ended: bool = False) -> Life:
    """A process whose vCPU is busy in these spans of time, looked at every 10 ms."""
    name = f"guest=freezelab-run-web-0{f'.{generation}' if generation else ''},debug-threads=on"
    moved = [(start + n / 100, 2 * MS) for start, end in spans for n in range(round((end - start) * 100) + 1)]
    last = max((moment for moment, _used in moved), default=0.0)
    return Life(pid, ["qemu-system-x86_64", "-name", name], spans[0][0], last, moved=moved, ended=ended)


def evidence(case: Case, *lives: Life, exit: int | None = 0, **more: Any) -> oracle.Seen:
    fault = SimpleNamespace(at=0.0, over=more.pop("over", 0.0), terminal=SimpleNamespace(hung_up=False))
    until = more.pop("until", max((each.seen for each in lives), default=0.0))
    return oracle.Seen(case, exit, more.pop("text", ""), list(lives), cast(Any, fault), until, **more)


def case(
    fault: str = "nothing", method: str = "suspend", step: str = "event/freeze", delay: int = -1
) -> Case:
    if fault == "nothing":
        return Case(method, "phase/measure", Target.NOTHING, "at all")
    target, action = fault.split("-")
    return Case(method, step, Target(target), action, delay)


# -- cases ----------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_cases_and_more_of_them_go_on_with_it() -> None:
    assert numbered(3, 50) == numbered(3, 80)[:50]
    assert numbered(3, 50) != numbered(4, 50)


def test_the_grid_comes_again_when_it_is_used_up() -> None:
    every = grid()
    twice = numbered(1, 2 * len(every))
    assert len(twice) == 2 * len(every)
    first = {(one.method, one.step, one.fault) for one in twice[: len(every)]}
    assert len(first) == len(every)


def test_patterns_choose_by_method_and_fault() -> None:
    assert {one.fault for one in numbered(1, 500, "in-place/*-kill")} == {
        "controller-kill",
        "deadman-kill",
        "qemu-kill",
        "successor-kill",
        "sshd-kill",
    }
    assert not [one for one in numbered(1, 3000, "", "*/deadman-*") if one.target is Target.DEADMAN]


def test_every_method_has_its_controller_killed_at_every_step() -> None:
    killed = {(one.method, one.step) for one in grid() if one.fault == "controller-kill"}
    assert killed == {(method, step) for method, steps in STEPS.items() for step, _stage in steps}


def test_nothing_is_done_inside_a_guest_that_stands_still() -> None:
    assert {one.stage for one in grid() if one.target.is_inside} == {Stage.BEFORE, Stage.AFTER}


# -- what is seen ---------------------------------------------------------------------------------


def test_a_standstill_is_seen_between_two_signs_of_life() -> None:
    (still,) = standstills([life((10, 12), (13.5, 14))], 14)
    assert (still.since, still.until, still.ended) == (12.0, 13.5, False)


def test_a_guest_goes_on_in_its_successor() -> None:
    old, new = life((10, 12), ended=True), life((12.3, 15), pid=2, generation=1)
    (still,) = standstills([old, new], 15)
    assert still.length == pytest.approx(0.3)


def test_a_process_that_waits_for_a_state_does_not_run_the_guest() -> None:
    waiting = life((11, 11.01), (11.5, 11.5), pid=2, generation=1)
    assert running(waiting) == []
    assert standstills([life((10, 12), ended=True), waiting], 20) == []  # the guest has ended, at once


def test_a_guest_that_stands_still_to_the_end_is_not_one_that_has_ended() -> None:
    (still,) = standstills([life((10, 12))], 20)
    assert (still.length, still.ended) == (8.0, False)


@pytest.mark.parametrize(("name", "number"), [("freezelab-r-web-0", 0), ("freezelab-r-web-0.2", 2)])
def test_a_successors_number_is_in_its_name(name: str, number: int) -> None:
    line = ["/usr/bin/qemu-system-x86_64", "-name", f"guest={name},debug-threads=on"]
    assert processes.is_guest(line)
    assert generation(line) == number


# -- what is wrong --------------------------------------------------------------------------------


def test_a_run_as_it_should_be_has_nothing_wrong() -> None:
    told = {"outcome": "passed", "findings": [], "guests": [{"cycles": [{"pause": None}]}]}
    assert oracle.wrong(evidence(case(), life((10, 12), (13, 15), ended=True), report=told)) == []


def test_a_guest_over_its_budget_is_wrong() -> None:
    slow = evidence(case("controller-stop"), life((10, 12), (19.5, 21), ended=True), exit=3)
    assert oracle.wrong(slow) == ["guest: stood still 7.50 s and ran again (budget 6 s)"]
    within = evidence(case("controller-stop"), life((10, 12), (18.9, 21), ended=True), exit=3)
    assert oracle.wrong(within) == []


def test_a_qemu_that_the_fault_stopped_has_until_it_is_continued() -> None:
    fault = case("qemu-stop", step="phase/measure")
    assert oracle.wrong(evidence(fault, life((10, 12), (20.5, 22), ended=True), over=20.2, exit=3)) == []
    late = oracle.wrong(evidence(fault, life((10, 12), (22.5, 23), ended=True), over=20.2, exit=3))
    assert late == ["guest: stood still 10.50 s and ran again (budget 6 s)"]


def test_two_processes_that_run_one_guest_are_wrong() -> None:
    both = evidence(case(method="in-place"), life((10, 14)), life((12, 15), pid=2, generation=1))
    assert [line for line in oracle.wrong(both) if "two processes" in line]


def test_a_killed_runs_guest_has_to_run() -> None:
    frozen = evidence(case("controller-kill"), life((10, 12)), exit=-9, runs=False, until=13.0)
    assert oracle.wrong(frozen) == ["guest: the killed run's does not run"]


def test_a_pause_that_was_not_is_wrong() -> None:
    pause = {"low_ns": 2_000 * MS, "high_ns": 2_100 * MS}
    told = {"outcome": "passed", "findings": [], "guests": [{"cycles": [{"pause": pause}]}]}
    (line,) = oracle.wrong(evidence(case(), life((10, 12), (13, 15), ended=True), report=told))
    assert line == "pause told as 2.000 to 2.100 s, standstills watched: 1.000 s"


@pytest.mark.parametrize(
    ("code", "outcome", "wrong"),
    [
        (0, "inconclusive", ["exit code 0, but run.json says inconclusive"]),
        (3, "inconclusive", []),
        (None, "inconclusive", ["hangs: the command did not end"]),
        (1, "failed", ["exit code 1, right is 0 or 3"]),
    ],
)
def test_the_exit_code_is_the_verdicts(code: int | None, outcome: str, wrong: list[str]) -> None:
    told = {"outcome": outcome, "findings": [], "guests": []}
    assert oracle.wrong(evidence(case(), life((10, 12), ended=True), exit=code, report=told)) == wrong


def test_what_is_cut_off_is_not_failed() -> None:
    told = {
        "outcome": "failed",
        "findings": [{"outcome": "failed", "metric": "patch", "why": "not applied", "measured": ""}],
        "guests": [{"cycles": [{"pause": None}]}],
    }
    cut = evidence(case("controller-term"), life((10, 12), ended=True), exit=130, report=told)
    assert oracle.wrong(cut) == ["cut off with exit code 130, and called failed: patch: not applied"]


def test_a_patch_that_the_budget_had_no_time_for_may_have_failed() -> None:
    def failed(metric: str, why: str) -> list[str]:
        finding = {"outcome": "failed", "metric": metric, "why": why, "measured": ""}
        report = {"outcome": "failed", "findings": [finding], "guests": []}
        return oracle.wrong(evidence(case("deadman-hup"), life((10, 12), ended=True), exit=1, report=report))

    assert failed("patch", "hold 1 s: held 330 ms of 1 s, then out of time") == []
    assert failed("patch", "exit status 1") == ["exit code 1, right is 0 or 3"]
    assert failed("resync", "out of time") == ["exit code 1, right is 0 or 3"]


def test_a_traceback_is_told_by_its_last_line() -> None:
    text = "Traceback (most recent call last):\n  File x\nOSError: [Errno 30] Read-only file system\n"
    lines = oracle.wrong(
        evidence(case("state-readonly"), life((10, 12), ended=True), exit=4, text=f"freezelab: \n{text}")
    )
    assert lines == ["a traceback: OSError: [Errno 30] Read-only file system"]


# -- the table ------------------------------------------------------------------------------------


def test_the_table_counts_by_fault_and_method(tmp_path: Path) -> None:
    results = [
        {"case": one.as_data(), "label": one.label, "number": number, "void": "", "wrong": wrong}
        for number, (one, wrong) in enumerate(
            [(case(), []), (case("controller-kill"), []), (case("controller-kill"), ["left: /dev/shm/x"])]
        )
    ]
    text = table.render(results)
    assert "| controller-kill | 1 / 1 wrong |" in text
    assert "3 cases, 2 right, 1 wrong." in text
    assert "| left: /dev/shm/x | 1 | 2 suspend/controller-kill at event/freeze |" in text
    damaged = tmp_path / "results.jsonl"
    damaged.write_text('{"number": 0}\n{"numb')
    assert table.read(damaged) == [{"number": 0}]
