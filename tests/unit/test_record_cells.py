"""Runs of a matrix: each cell judged by its own plan, and what is told beside the cycles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from lab.core.method import FreezeMethod
from lab.core.plan import Expectations
from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.record.journal import read_history
from lab.record.rebuild import observations_of
from lab.record.run import Run, judge, schema, to_json
from tests.unit.histories import ALL
from tests.unit.journalled import PROOF, Journalled, cell, cycle, edited, write
from tests.unit.simulation import MS, S


def judged(folder: Path) -> Run:
    return judge(read_history(folder))[0]


@pytest.fixture
def runs(matrix_runs: dict[str, Run]) -> dict[str, Run]:
    return matrix_runs


@pytest.mark.parametrize("name", ALL)
def test_run_json_follows_its_schema(runs: dict[str, Run], name: str) -> None:
    jsonschema.Draft202012Validator(schema()).validate(json.loads(to_json(runs[name])))


def test_each_cell_has_its_own_guests_cycles_and_outcome(runs: dict[str, Run]) -> None:
    run = runs["methods"]
    assert [c.id for c in run.cells] == [
        "suspend", "sigstop", "save-restore", "in-place", "guest-sleep", "reboot", "none",
    ]  # fmt: skip
    assert [(g.name, g.cell, len(g.cycles)) for g in run.guests] == [
        ("web-0", c.id, 0 if c.id == "guest-sleep" else 1) for c in run.cells
    ]
    assert all(c.cell == g.cell for g in run.guests for c in g.cycles)
    assert {f.cell for f in run.findings} == {c.id for c in run.cells}
    assert run.guests[0].boot == {"to_probe_s": 6.4}
    assert run.statistics == ()


def test_a_cell_that_was_refused_or_not_run_is_inconclusive_with_its_reason(runs: dict[str, Run]) -> None:
    asleep = next(c for c in runs["methods"].cells if c.id == "guest-sleep")
    assert (asleep.outcome, asleep.refused, asleep.cycles) == (Outcome.INCONCLUSIVE, True, 0)
    assert asleep.why.startswith("refused: guest-sleep: the guest's agent")
    skipped = [c for c in runs["benchmark"].cells if not c.cycles]
    assert [c.why.split(":")[0] for c in skipped] == ["not run", "not run"]
    assert not any(c.refused for c in skipped)
    assert runs["benchmark"].outcome is Outcome.FAILED  # one cycle was over the budget


def test_a_cell_that_may_be_refused_passes_when_it_is_and_only_then(tmp_path: Path) -> None:
    may = [
        replace(cell(FreezeMethod.SAVE_RESTORE, memory=text), may_be_refused=True)
        for text in ("256MiB", "512MiB", "768MiB")
    ]
    reasons = [("this libvirt cannot", True), ("QEMU died", False), ("", False)]
    cells = [Journalled(c, [], why, refused) for c, (why, refused) in zip(may, reasons, strict=True)]
    run = judged(write(tmp_path, "m", cells))
    assert [c.outcome for c in run.cells] == [
        Outcome.PASSED, Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE
    ]  # fmt: skip
    assert (run.cells[0].refused, run.cells[0].why) == (True, "refused: this libvirt cannot")


def test_a_cycle_that_was_refused_when_it_began_is_none(tmp_path: Path) -> None:
    may = replace(cell(FreezeMethod.SAVE_RESTORE, memory="256MiB"), may_be_refused=True)
    seen = cycle(FreezeMethod.SUSPEND, 0, S)
    cells = [
        Journalled(cell(FreezeMethod.SUSPEND), [seen]),
        Journalled(may, [seen], "this libvirt cannot", True),
        Journalled(replace(may, id="other"), [seen], "QEMU died", False),
    ]
    run = judged(write(tmp_path, "m", cells))
    assert [(c.outcome, c.cycles) for c in run.cells] == [
        (Outcome.PASSED, 1), (Outcome.PASSED, 0), (Outcome.INCONCLUSIVE, 1)
    ]  # fmt: skip


def test_a_cell_that_was_not_finished_is_inconclusive(tmp_path: Path) -> None:
    one = cell(FreezeMethod.SUSPEND, repeat=3, memory="512MiB")
    two = cell(FreezeMethod.SUSPEND, repeat=1, memory="256MiB")
    seen = [cycle(FreezeMethod.SUSPEND, 0, S)]
    run = judged(write(tmp_path, "m", [Journalled(one, seen), Journalled(two, seen)]))
    assert [c.outcome for c in run.cells] == [Outcome.INCONCLUSIVE, Outcome.PASSED]
    assert run.cells[0].why == "only 1 of 3 cycles ran"


def test_the_same_guest_and_number_in_two_cells_are_two_cycles(tmp_path: Path) -> None:
    cells = [cell(FreezeMethod.SUSPEND, memory=text) for text in ("256MiB", "512MiB")]
    seen = [cycle(FreezeMethod.SUSPEND, 0, pause, seed=pause) for pause in (S, 2 * S)]
    folder = write(tmp_path, "m", [Journalled(c, [o]) for c, o in zip(cells, seen, strict=True)])
    found = observations_of(read_history(folder))
    assert [replace(o, cell="", accelerator="") for o in found] == seen
    assert [o.cell for o in found] == [c.id for c in cells]


def test_each_cell_is_held_against_its_own_expectations(tmp_path: Path) -> None:
    seen = [cycle(FreezeMethod.SUSPEND, 0, S)]
    cells = [cell(FreezeMethod.SUSPEND, memory=text) for text in ("256MiB", "512MiB")]
    cells[1] = replace(cells[1], expectations=Expectations(pause_at_most_ns=500 * MS))
    run = judged(write(tmp_path, "m", [Journalled(c, seen) for c in cells]))
    assert [c.outcome for c in run.cells] == [Outcome.PASSED, Outcome.FAILED]


def test_a_cell_that_the_plan_has_not_is_damage(tmp_path: Path) -> None:
    folder = write(
        tmp_path, "m", [Journalled(cell(FreezeMethod.SUSPEND), [cycle(FreezeMethod.SUSPEND, 0, S)])]
    )
    edited(folder, lambda event: event.update(cell="other") if event["kind"] == "cycle" else None)
    with pytest.raises(RecordError, match="'other'"):
        judged(folder)


def test_the_benchmarks_comparisons(runs: dict[str, Run]) -> None:
    run = runs["benchmark"]
    slopes = {tuple(c.of.values()): c for c in run.comparisons if c.kind == "slope"}
    flat, shm = slopes[("in-place",)], slopes[("save-restore", "/dev/shm")]
    assert flat.low is not None
    assert flat.high is not None
    assert flat.low <= 0 <= flat.high
    assert shm.low is not None
    assert shm.high is not None
    assert 1.5e9 < shm.low < shm.value < shm.high < 2e9  # made with 1700 ms per GiB, and up to a fifth more
    ratios = [c for c in run.comparisons if c.kind == "ratio"]
    assert len(ratios) == 6  # each size that was run, to two places
    for one in ratios:
        assert one.low is not None
        assert one.high is not None
        assert 1 < one.low < one.value < one.high


def test_an_exchange_in_run_json(runs: dict[str, Run]) -> None:
    seen = runs["upgrade"].guests[0].cycles[0]
    assert seen.memory is not None
    assert seen.felt is not None
    assert seen.pause is not None
    assert seen.stamps is not None
    assert seen.felt.value_ns - seen.pause.value_ns == PROOF.cost_ns
    assert seen.stamps.low_ns <= seen.felt.high_ns
    assert seen.cut
    assert (seen.version_before.split()[1], seen.version_after.split()[1]) == ("7.2.22", "10.0.2")
    assert {p.claim: p.agrees for p in seen.predictions}["regime"] is True
    ends = [step.at_ns + step.length_ns for step in seen.steps]
    assert ends[:-1] == [step.at_ns for step in seen.steps[1:]]
    assert runs["called_off"].outcome is Outcome.FAILED


def test_steps_and_stamps_have_statistics(runs: dict[str, Run]) -> None:
    named = {(s.kind, s.metric): s for s in runs["playbook_of_ansible"].statistics}
    assert named["step", "patch"].count == 6
    assert abs(named["freeze", "pause - stamps"].median.value) < 5 * MS
