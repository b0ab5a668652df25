"""A run on disk: written, read back, cut off at every byte, damaged, judged again."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from lab.core.history import (
    KINDS,
    SCHEMA,
    BeatsArrived,
    CpuUsed,
    CpuWaited,
    CycleBegan,
    CycleEnded,
    FactsRead,
    GuestBooted,
    GuestsFrozen,
    HistoryEvent,
    Host,
    PatchApplied,
    ProblemMet,
    ReadingsTaken,
    ResumeCalled,
    ResyncReported,
    RunEnded,
    RunStarted,
    SamplesTaken,
    StopCalled,
)
from lab.core.plan import CycleSpec, Expectations, GuestSpec, HoldPatch, Plan, Regime, ResyncMechanism
from lab.core.timeline import CpuWait, Observation
from lab.core.verdict import Outcome
from lab.errors import MachineError, RecordError
from lab.record.events import UnknownEvent
from lab.record.journal import EVENTS, FileJournal, read_history
from lab.record.rebuild import observations_of, plan_of
from lab.record.run import judge, schema, to_json, write
from tests.unit.journalled import Ticking, edited
from tests.unit.simulation import MS, Repair, S, Scenario, simulate


def simulated(**changes: Any) -> Observation:
    ordinary = {"before_ns": 600 * MS, "pause_ns": 500 * MS, "watch_ns": 800 * MS, "rtt_ns": 2 * MS}
    return simulate(Scenario(**(ordinary | changes)))[0]


CYCLES = [
    replace(simulated(regime=Regime.RUNNING, repair=Repair.NONE), cycle=0),
    replace(
        simulated(seed=1),
        cycle=1,
        resync_report="set",
        cpu_waits=(CpuWait(1, 2, 3), CpuWait(4, 2, 9)),
        problems=("a “problem”, told in UTF-8",),
    ),
    replace(simulated(seed=2, regime=Regime.JUMPED, repair=Repair.NONE), cycle=2),
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
        journal.append(RunStarted(SCHEMA, "run-1", plan_for(cycles), Host(kernel="6.1", qemu="7.2")))
        journal.append(GuestBooted("web-0", {"ssh_ns": S}))
        for o in cycles:
            where = (o.guest, o.cycle)
            assert o.stop is not None
            assert o.resume is not None
            assert o.sampler is not None
            assert o.facts_before is not None
            assert o.facts_after is not None
            journal.append(CycleBegan(*where, o.frozen, o.method, o.patch, budget_ns=o.budget_ns))
            journal.append(FactsRead(*where, "before", o.facts_before))
            early = tuple(r for r in o.readings if r.t4.raw_ns <= o.stop.called.raw_ns)
            journal.append(ReadingsTaken(*where, early[:7]))
            journal.append(ReadingsTaken(*where, early[7:]))
            journal.append(GuestsFrozen(o.cycle, (o.guest,), o.method))
            journal.append(StopCalled(*where, o.stop))
            journal.append(ResumeCalled(*where, o.resume))
            journal.append(CpuUsed(*where, o.cpu_ns))
            if o.cpu_waits:
                journal.append(CpuWaited(*where, o.cpu_waits))
            journal.append(PatchApplied(*where, o.patch_ok, o.patch_why))
            journal.append(ReadingsTaken(*where, o.readings[len(early) :]))
            for problem in o.problems:
                journal.append(ProblemMet(*where, problem))
            journal.append(SamplesTaken(*where, o.sampler))
            journal.append(BeatsArrived(*where, o.beats))
            journal.append(FactsRead(*where, "after", o.facts_after))
            journal.append(ResyncReported(*where, o.resync_report, o.resync_finished_raw_ns))
            journal.append(CycleEnded(*where, o.host_step_ns))
        journal.append(RunEnded(interrupted=False, failure=""))
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


def _without(path: Path, kind: str, member: str) -> None:
    """The history without a member of all events of a kind."""
    events = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    for event in events:
        if event["kind"] == kind:
            del event[member]
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "member"),
    [
        ("readings", "readings"), ("stop", "call"), ("samples", "sampler"), ("beats", "beats"),
        ("facts", "facts"), ("cycle", "method"), ("cycle-end", "host_step_ns"), ("resync", "said"),
        ("run-start", "plan"),
    ],
)  # fmt: skip
def test_an_event_that_lacks_a_part_is_named(tmp_path: Path, kind: str, member: str) -> None:
    _without(written(tmp_path, CYCLES[:1]), kind, member)
    with pytest.raises(RecordError, match=f"damaged: {kind}: {member}: Field required"):
        read_history(tmp_path)


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
    with pytest.raises(RecordError) as caught:
        read_history(tmp_path)
    what = "its schema is 'freezelab.events/9', and this freezelab reads freezelab.events/1"
    assert str(caught.value) == f"{tmp_path / EVENTS}: {what}: use the one that made it"


def test_kinds_and_members_that_are_not_known_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path, CYCLES)
    before = judge(read_history(tmp_path))[0]

    def grown(event: dict[str, Any]) -> None:
        event["colour"] = {"red": [1]}
        event.get("facts", {})["mood"] = 3

    edited(tmp_path, grown)
    path = tmp_path / EVENTS
    *lines, last = path.read_text(encoding="utf-8").splitlines()
    end = json.loads(last)
    lines.append(json.dumps({**end, "kind": "weather", "failure": None}))
    lines.append(json.dumps({**end, "seq": end["seq"] + 1}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    history = read_history(tmp_path)
    assert history.entries[-2].event == UnknownEvent("weather")
    assert judge(history)[0] == before


def test_every_kind_is_one_frozen_class_with_a_docstring() -> None:
    assert len(KINDS) == len(get_args(HistoryEvent))
    for kind, event in KINDS.items():
        assert vars(event)["__dataclass_params__"].frozen, kind
        assert event.__doc__ and not event.__doc__.startswith(f"{event.__name__}("), kind


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
        journal.append(RunStarted(SCHEMA, "run-1", plan_for(CYCLES), Host()))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        full = journal.path.stat().st_size + 100
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))
        try:
            with pytest.raises(MachineError, match="the history cannot be written"):
                journal.append(ProblemMet("web-0", 0, "x" * 300))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        journal.append(RunEnded(interrupted=False, failure="the disk is full"))
    history = read_history(tmp_path)
    assert [entry.kind for entry in history.entries] == ["run-start", "run-end"]
    assert judge(history)[0].outcome is Outcome.INCONCLUSIVE


def test_a_run_json_that_cannot_be_written_is_the_machines_failure(tmp_path: Path) -> None:
    written(tmp_path, CYCLES[:1])
    made = judge(read_history(tmp_path))[0]
    (tmp_path / "run.json").mkdir()
    with pytest.raises(MachineError) as caught:
        write(made, tmp_path)
    assert caught.value.exit_code == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == [EVENTS, "run.json"]
