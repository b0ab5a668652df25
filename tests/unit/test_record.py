"""A run on disk: written, read back, cut off at every byte, damaged, judged again."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab.core.clock import Stamp
from lab.core.plan import CycleSpec, Expectations, GuestSpec, HoldPatch, Plan, Regime, ResyncMechanism
from lab.core.timeline import Observation
from lab.core.verdict import Outcome
from lab.errors import MachineError, RecordError
from lab.record.journal import EVENTS, SCHEMA, FileJournal, History, read_history
from lab.record.rebuild import observations_of, plan_of
from lab.record.run import judge, schema, to_json, write
from tests.unit.simulation import MS, Repair, S, Scenario, simulate


class Ticking:
    def __init__(self) -> None:
        self.at = 1_700_000_000 * S

    def now(self) -> Stamp:
        self.at += MS
        return Stamp(self.at, self.at)

    def sleep_until(self, raw_ns: int) -> None:
        self.at = raw_ns


def seen(**changes: Any) -> Observation:
    ordinary = {"before_ns": 600 * MS, "pause_ns": 500 * MS, "watch_ns": 800 * MS, "rtt_ns": 2 * MS}
    return simulate(Scenario(**(ordinary | changes)))[0]


CYCLES = [
    replace(seen(regime=Regime.RUNNING, repair=Repair.NONE), cycle=0),
    replace(seen(seed=1), cycle=1, resync_said="set", problems=("a “problem”, told in UTF-8",)),
    replace(seen(seed=2, regime=Regime.JUMPED, repair=Repair.NONE), cycle=2),
]


def plan_for(cycles: list[Observation]) -> Plan:
    expect = Expectations(in_time_within_ns=400 * MS, hold_ns=200 * MS, final_offset_ns=100 * MS)
    return Plan(
        "first-freeze", "", "00", (GuestSpec("web-0"),), ResyncMechanism.AGENT,
        CycleSpec(cycles[-1].method, HoldPatch(S)), expect,
        repeat=sum(o.frozen for o in cycles), control=sum(not o.frozen for o in cycles),
    )  # fmt: skip


def written(folder: Path, cycles: list[Observation]) -> Path:
    """The events of a run with these cycles, in the controller's order."""
    with FileJournal(folder, Ticking()) as journal:
        journal.append(
            "run-start",
            schema=SCHEMA,
            id="run-1",
            plan=plan_for(cycles),
            host={"kernel": "6.1", "qemu": "7.2"},
        )
        journal.append("boot", "web-0", timings={"ssh_ns": S})
        for o in cycles:
            where = (o.guest, o.cycle)
            assert o.stop is not None
            journal.append(
                "cycle", *where, frozen=o.frozen, method=o.method, patch=o.patch, budget_ns=o.budget_ns
            )
            journal.append("facts", *where, when="before", facts=o.facts_before)
            early = [r for r in o.readings if r.t4.raw_ns <= o.stop.called.raw_ns]
            journal.append("readings", *where, readings=early[:7])
            journal.append("readings", *where, readings=early[7:])
            journal.append("freeze", cycle=o.cycle, guests=[o.guest], method=o.method)
            journal.append("stop", *where, call=o.stop)
            journal.append("resume", *where, call=o.resume)
            journal.append("cpu", *where, used_ns=o.cpu_ns)
            journal.append("patch", *where, ok=o.patch_ok, why=o.patch_why, facts={})
            journal.append("readings", *where, readings=list(o.readings[len(early) :]))
            for problem in o.problems:
                journal.append("problem", *where, text=problem)
            journal.append("samples", *where, sampler=o.sampler)
            journal.append("beats", *where, beats=list(o.beats))
            journal.append("facts", *where, when="after", facts=o.facts_after)
            finished = o.resync_finished_raw_ns
            journal.append("resync", *where, said=o.resync_said, finished_raw_ns=finished)
            journal.append("cycle-end", *where, host_step_ns=o.host_step_ns)
        journal.append("run-end", interrupted=False, failure="")
    return folder / EVENTS


def test_what_was_seen_is_read_back_as_it_was(tmp_path: Path) -> None:
    written(tmp_path, CYCLES)
    history = read_history(tmp_path)
    assert history.complete
    assert history.damage == ""
    assert observations_of(history) == CYCLES
    assert plan_of(history) == plan_for(CYCLES)


def test_an_old_run_is_judged_the_same(tmp_path: Path) -> None:
    written(tmp_path, CYCLES)
    first, results = judge(read_history(tmp_path))
    path = write(first, tmp_path)
    again = judge(read_history(tmp_path))[0]
    assert to_json(again) == path.read_text(encoding="utf-8") == to_json(first)
    assert [r.observation for r in results] == CYCLES
    assert sorted(p.name for p in tmp_path.iterdir()) == [EVENTS, "run.json"]


def test_a_record_that_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    written(tmp_path, CYCLES)
    run, _ = judge(read_history(tmp_path))
    (tmp_path / ".run.json.new").mkdir()
    with pytest.raises(MachineError, match="cannot be written: Is a directory"):
        write(run, tmp_path)


def test_run_json_follows_its_schema(tmp_path: Path) -> None:
    written(tmp_path, CYCLES)
    made = json.loads(to_json(judge(read_history(tmp_path))[0]))
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema()).validate(made)
    assert made["schema"] == "freezelab.run/1"
    broken = {**made, "outcome": "fine"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(broken)


def test_a_good_run_passes_and_a_problem_makes_it_inconclusive(tmp_path: Path) -> None:
    for name, cycles, outcome in (
        ("good", [CYCLES[0], replace(CYCLES[1], problems=())], Outcome.PASSED),
        ("bad", CYCLES[:2], Outcome.INCONCLUSIVE),
    ):
        (tmp_path / name).mkdir()
        written(tmp_path / name, list(cycles))
        assert judge(read_history(tmp_path / name))[0].outcome is outcome


def _judged(folder: Path, data: bytes) -> Outcome | None:
    """The outcome of a run whose journal holds `data`; None when it is refused with a RecordError."""
    (folder / EVENTS).write_bytes(data)
    try:
        return judge(read_history(folder))[0].outcome
    except RecordError:
        return None


def test_cut_off_at_every_byte_it_never_passes(tmp_path: Path) -> None:
    good = [replace(CYCLES[1], problems=(), beats=CYCLES[1].beats[-3:], readings=CYCLES[1].readings[::9])]
    whole = written(tmp_path, good).read_bytes()
    lines = whole.splitlines(keepends=True)
    before_last = sum(len(line) for line in lines[:-1])
    # All of the last lines, byte by byte, and every end of a line before them.
    places = {*range(before_last - len(lines[-2]) - len(lines[-3]), len(whole) - 1)}
    done = 0
    for line in lines[:-1]:
        done += len(line)
        places |= {done, done - 1, done - len(line) // 2}
    for place in sorted(places):
        outcome = _judged(tmp_path, whole[:place])
        assert outcome is None or outcome in (Outcome.INCONCLUSIVE, Outcome.FAILED), place
        if place >= before_last:
            assert outcome is Outcome.INCONCLUSIVE


def test_a_line_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, CYCLES[:1])
    lines = path.read_text(encoding="utf-8").splitlines()
    for damage in ("", "{", "[1]", '{"seq": 3}', '{"seq": 99, "kind": "stop"}', "\x00\x00", "[" * 100_000):
        path.write_text("\n".join([*lines[:3], damage, *lines[4:]]) + "\n", encoding="utf-8")
        with pytest.raises(RecordError) as caught:
            read_history(tmp_path)
        assert caught.value.where == f"{path}:4"
    path.write_text("\n".join([*lines[:3], *lines[4:]]) + "\n", encoding="utf-8")
    with pytest.raises(RecordError):
        read_history(tmp_path)


def _without(history: History, kind: str, member: str) -> History:
    events = tuple(
        {k: v for k, v in e.items() if k != member} if e["kind"] == kind else e for e in history.events
    )
    return replace(history, events=events)


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        ("readings", "readings"), ("stop", "call"), ("samples", "sampler"), ("beats", "beats"),
        ("facts", "facts"), ("cycle", "method"), ("cycle-end", "host_step_ns"), ("resync", "said"),
        ("run-start", "plan"),
    ],
)  # fmt: skip
def test_an_event_that_lacks_a_part_is_named(tmp_path: Path, kind: str, member: str) -> None:
    written(tmp_path, CYCLES[:1])
    history = _without(read_history(tmp_path), kind, member)
    with pytest.raises(RecordError, match=kind):
        judge(history)


@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"\xff\xfe\x00", b"{}\n", b'{"seq": 0, "kind": "boot"}\n', b"\x00" * 100]
)
def test_no_run_there(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / EVENTS).write_bytes(content)
    with pytest.raises(RecordError):
        read_history(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_text('{"seq": 0, "kind": "run-start", "schema": "freezelab.events/9"}\n')
    with pytest.raises(RecordError, match=r"freezelab\.events/9"):
        read_history(tmp_path)


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    written(tmp_path, CYCLES[:1])
    with pytest.raises(FileExistsError):
        FileJournal(tmp_path, Ticking())


def test_text_with_other_line_ends(tmp_path: Path) -> None:
    odd = replace(CYCLES[0], problems=("one\N{LINE SEPARATOR}line",))
    written(tmp_path, [odd])
    assert len(observations_of(read_history(tmp_path))) == 1


def test_a_line_that_a_full_disk_cut_short_is_taken_back(tmp_path: Path) -> None:
    """What can be written later is not glued to it."""
    with FileJournal(tmp_path, Ticking()) as journal:
        journal.append("run-start", schema=SCHEMA, id="run-1", plan=plan_for(CYCLES), host={})
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        full = journal.path.stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))
        try:
            with pytest.raises(MachineError, match="the history cannot be written"):
                journal.append("problem", "web-0", 0, text="x" * 300)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        journal.append("run-end", interrupted=False, failure="the disk is full")
    history = read_history(tmp_path)
    assert [event["kind"] for event in history.events] == ["run-start", "run-end"]
    assert judge(history)[0].outcome is Outcome.INCONCLUSIVE


def test_a_run_json_that_cannot_be_written_is_the_machines_failure(tmp_path: Path) -> None:
    written(tmp_path, CYCLES[:1])
    made = judge(read_history(tmp_path))[0]
    (tmp_path / "run.json").mkdir()
    with pytest.raises(MachineError) as caught:
        write(made, tmp_path)
    assert caught.value.exit_code == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == [EVENTS, "run.json"]
