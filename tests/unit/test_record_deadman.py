"""What the dead-man writes into a run's history: read, and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.plan import FreezeMethod
from lab.core.timeline import Call, Observation
from lab.core.verdict import Finding, Outcome
from lab.errors import RecordError
from lab.record.journal import EVENTS, read_history
from lab.record.model import CycleRecord, Run
from lab.record.run import judge
from tests.unit.history_lines import GONE, deadman_line
from tests.unit.journalled import EXPECT, Journalled, cell, cycle, write
from tests.unit.simulation import MS, S

SILENT = "the controller was silent for 3.0 s"


def run_of(folder: Path, seen: Observation, name: str = "run") -> Path:
    """The history of a run with one cycle."""
    return write(folder, name, [Journalled(cell(FreezeMethod.SUSPEND), [seen])], matrix=False) / EVENTS


def killed(path: Path, seen: Observation, *, frozen: bool = True) -> str:
    """The history of a run whose controller is killed while the guest is frozen: no stop and no resume is
    written. The times of what is written are those of the cycle. frozen: it could still write `freeze`."""
    assert seen.stop is not None
    kept, runs = [], seen.stop.called.raw_ns - 300 * MS
    for text in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(text)
        if event["kind"] == "stop":
            break
        runs += MS
        kept.append(json.dumps({**event, "raw_ns": runs, "real_ns": runs}))
    if frozen:
        at = seen.stop.returned.raw_ns + MS
        told = {"seq": len(kept), "kind": "freeze", "cycle": 0, "raw_ns": at, "real_ns": at}
        kept.append(json.dumps({**told, "guests": ["web-0"], "method": "suspend"}))
    return "\n".join(kept) + "\n"


def cycle_in(path: Path) -> tuple[Run, CycleRecord, list[Finding]]:
    made = judge(read_history(path.parent))[0]
    return made, made.guests[0].cycles[0], [f for f in made.findings if f.outcome is not Outcome.PASSED]


@pytest.mark.parametrize("left", ["", '{"seq":9,"kind":"readi', '{"seq":9,"kind":"readi\n', "\n"])
def test_a_cut_off_end_is_one_whatever_the_deadman_wrote_behind_it(tmp_path: Path, left: str) -> None:
    seen = cycle(FreezeMethod.SUSPEND, 0, 4 * S)
    assert seen.resume is not None
    at = seen.resume.called.raw_ns
    path = run_of(tmp_path, seen)
    text = killed(path, seen)
    path.write_text(
        text + left + deadman_line(at, (at, at + MS)) + deadman_line(at, None, act="ended"), encoding="utf-8"
    )
    history = read_history(path.parent)
    assert [entry.kind for entry in history.entries][-3:] == ["freeze", "deadman", "deadman"]
    assert not history.complete
    whole = "the run was cut off before its end"
    assert history.damage == (f"line {len(text.splitlines()) + 1} is cut off" if len(left) > 1 else whole)


def test_the_deadmans_lines_are_not_counted(tmp_path: Path) -> None:
    seen = cycle(FreezeMethod.SUSPEND, 0, 4 * S)
    path = run_of(tmp_path, seen)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    before = judge(read_history(path.parent))[0]
    guarding = deadman_line(1, None, act="guarding", guest="", cycle=None)
    path.write_text("".join([*lines[:3], guarding, *lines[3:], guarding]), encoding="utf-8")
    history = read_history(path.parent)
    assert history.complete
    assert replace(judge(history)[0], ended=before.ended) == before
    for damage in ('{"seq":null,"kind":"stop"}\n', '{"kind":"deadman"}\n', '{"seq":4,"kind":"deadman"}\n'):
        path.write_text("".join([*lines[:4], damage, *lines[4:]]), encoding="utf-8")
        with pytest.raises(RecordError):
            read_history(path.parent)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_killed_controllers_pause_is_bounded_and_inconclusive(tmp_path: Path, frozen: bool) -> None:
    seen = cycle(FreezeMethod.SUSPEND, 0, 4 * S)
    assert seen.stop is not None
    assert seen.resume is not None
    path = run_of(tmp_path, seen)
    called = seen.resume.called.raw_ns
    given = killed(path, seen, frozen=frozen) + deadman_line(called, (called, called + 2 * MS))
    path.write_text(given, encoding="utf-8")
    made, one, found = cycle_in(path)
    assert made.outcome is one.outcome is Outcome.INCONCLUSIVE
    assert one.disturbed == f"resumed by the dead-man: {GONE}"
    assert one.resumed_by == "dead-man"
    assert f"the run was cut off before its end: {GONE}" in [f.why for f in found]
    assert any(f.why == one.disturbed for f in found)
    assert one.pause is not None
    assert one.pause.low_ns <= called - seen.stop.called.raw_ns <= one.pause.high_ns
    assert one.pause.high_ns < 4600 * MS
    if frozen:
        assert one.pause.low_ns > 3900 * MS


def test_a_pause_that_certainly_exceeded_the_budget_fails(tmp_path: Path) -> None:
    seen = replace(cycle(FreezeMethod.SUSPEND, 0, 4 * S), budget_ns=3 * S)
    assert seen.resume is not None
    path = run_of(tmp_path, seen)
    called = seen.resume.called.raw_ns
    path.write_text(killed(path, seen) + deadman_line(called, (called, called + 2 * MS)), encoding="utf-8")
    made, one, _ = cycle_in(path)
    assert made.outcome is one.outcome is Outcome.FAILED
    assert one.disturbed


def test_a_silent_controller_that_comes_back_is_not_the_one_who_resumed(tmp_path: Path) -> None:
    """It was stopped for longer than it may be silent, and resumes a guest that runs already."""
    seen = cycle(FreezeMethod.SUSPEND, 0, 3 * S)
    assert seen.stop is not None
    assert seen.resume is not None
    by = seen.resume  # in the simulation the guest goes on here; the controller comes 300 ms later
    at, until = by.returned.raw_ns + 300 * MS, by.returned.raw_ns + 302 * MS
    again = Call(replace(by.called, raw_ns=at), replace(by.returned, raw_ns=until))
    rest = tuple(r for r in seen.readings if not by.called.raw_ns <= r.t1.raw_ns <= until)
    path = run_of(tmp_path, replace(seen, resume=again, readings=rest))
    acted = deadman_line(by.called.raw_ns, (by.called.raw_ns, by.returned.raw_ns), SILENT)
    path.write_text(path.read_text(encoding="utf-8") + acted, encoding="utf-8")
    made, one, found = cycle_in(path)
    assert made.complete
    assert one.outcome is Outcome.INCONCLUSIVE
    assert [f.why for f in found if f.outcome is Outcome.FAILED] == []
    assert f"resumed by the dead-man: {SILENT}" in one.problems
    assert one.pause is not None
    assert one.pause.low_ns <= by.called.raw_ns - seen.stop.called.raw_ns + MS
    assert one.pause.high_ns < 3020 * MS
    assert one.closes


@pytest.mark.parametrize("after_ms", [1, 1500])
def test_a_guest_that_the_deadman_resumes_after_the_controller_had_stood_still_again(
    tmp_path: Path, after_ms: int
) -> None:
    """It does nothing about a guest that runs."""
    seen = cycle(FreezeMethod.SUSPEND, 0, 3 * S)
    assert seen.resume is not None
    path = run_of(tmp_path, seen)
    before = cycle_in(path)[1]
    at = seen.resume.returned.raw_ns + after_ms * MS
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + deadman_line(at, (at, at + MS), SILENT), encoding="utf-8")
    made, one, _ = cycle_in(path)
    assert made.outcome is one.outcome is Outcome.INCONCLUSIVE
    assert one.problems == (f"stood still again after its resume, and was resumed by the dead-man: {SILENT}",)
    assert one.resumed_by == ""
    assert one.pause == before.pause


@pytest.mark.parametrize(
    ("act", "text"), [("ended", "its QEMU process has ended"), ("failed", "libvirt does not answer")]
)
def test_a_guest_that_nobody_resumed_is_reported_with_the_reason(tmp_path: Path, act: str, text: str) -> None:
    seen = cycle(FreezeMethod.SUSPEND, 0, 4 * S)
    assert seen.resume is not None
    path = run_of(tmp_path, seen)
    acted = deadman_line(seen.resume.called.raw_ns, None, act=act, text=text)
    path.write_text(killed(path, seen) + acted, encoding="utf-8")
    _run, _cycle, findings = cycle_in(path)
    assert f"not resumed by the dead-man: {text}" in [finding.why for finding in findings]


def test_a_deadman_that_failed_or_found_it_running_changes_nothing(tmp_path: Path) -> None:
    seen = cycle(FreezeMethod.SUSPEND, 0, 3 * S)
    assert seen.resume is not None
    path = run_of(tmp_path, seen)
    before = judge(read_history(path.parent))[0]
    late = seen.resume.returned.raw_ns + MS
    whole = path.read_text(encoding="utf-8")
    for given in (
        deadman_line(late, (late, late + MS), act="running"),
        deadman_line(late, None, act="failed", text="no such domain"),
    ):
        path.write_text(whole + given, encoding="utf-8")
        assert replace(judge(read_history(path.parent))[0], ended=before.ended) == before
    assert EXPECT.in_time_within_ns is not None
