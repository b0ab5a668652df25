"""Parts of a matrix, and the record that is made of them: real histories, divided as shards would have it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.history import CellReached, Host, RunEnded
from lab.core.history.encoding import line_of
from lab.core.parallel_cells import batches, part_of, shard
from lab.core.plan import Cell, Plan
from lab.errors import UsageError
from lab.playbook import load
from lab.record.journal import EVENTS, read_history
from lab.record.parts import whole_plan, write_merged
from lab.record.run import Run, judge
from tests.unit.consoles import plain as output_of
from tests.unit.journalled import CALIBRATION as ERROR
from tests.unit.real_histories import unpacked

OWN = ("id", "started", "ended", "host", "parts", "calibration")
"""What a merged record has of its own."""

MATRIX = """
name: eight
resync: none
matrix: {memory: [128MiB, 192MiB], hold: [1s, 2s, 3s, 4s]}
"""

Divided = Callable[..., list[Path]]


@pytest.fixture
def divided(tmp_path: Path) -> Divided:
    """divided(NAME): a real run of several cells, as one run for each cell. host: of each part."""

    def divide(name: str, hosts: Sequence[Host] = (), damaged: str = "") -> list[Path]:
        (tmp_path / "whole").mkdir()
        history = read_history(unpacked(name, tmp_path / "whole"))
        start, made, part = history.start, list[Path](), ""
        entries: dict[str, list[Any]] = {}
        for entry in history.entries[1:-1]:
            if isinstance(entry.event, CellReached):
                part = entry.event.id
            entries.setdefault(part, []).append(entry)
        for number, cell in enumerate(start.plan.cells):
            host = hosts[number] if hosts else start.host
            plan = part_of(start.plan, {cell.id})
            first = replace(start, id=f"part-{number}", plan=plan, whole=start.plan, host=host)
            folder, seq = tmp_path / f"part-{number}", count()
            folder.mkdir()
            own = entries[cell.id]
            cycles = [entry.event.cycle for entry in own if getattr(entry.event, "cycle", None) is not None]
            lines = [line_of(first, next(seq), history.began)]
            for entry in own:
                event = entry.event
                if getattr(event, "cycle", None) is not None:
                    event = replace(event, cycle=event.cycle - min(cycles))
                lines.append(line_of(event, None if entry.seq is None else next(seq), entry.at))
            if cell.id != damaged:
                lines.append(line_of(RunEnded(interrupted=False, failure=""), next(seq), own[-1].at))
            (folder / EVENTS).write_text("".join(f"{line}\n" for line in lines))
            made.append(folder)
        return made

    return divide


def merged(folders: Sequence[Path], into: Path) -> Run:
    histories = [read_history(folder) for folder in folders]
    into.mkdir()
    write_merged(histories, whole_plan(histories), "merged", into)
    return judge(read_history(into))[0]


@pytest.mark.parametrize("name", ["matrix", "calibration"])
@pytest.mark.parametrize("backward", [False, True])
def test_a_merged_record_is_that_of_one_run(
    divided: Divided, tmp_path: Path, name: str, backward: bool
) -> None:
    parts = divided(name)
    found = asdict(merged(parts[::-1] if backward else parts, tmp_path / "merged"))
    expected = asdict(judge(read_history(tmp_path / "whole"))[0])
    assert found.keys() == expected.keys()
    for member in expected.keys() - set(OWN):
        assert found[member] == expected[member], member
    assert [part["run"] for part in found["parts"]] == [folder.name for folder in parts]
    assert [part["cells"] for part in found["parts"]] == [(cell["id"],) for cell in expected["cells"]]
    assert found["calibration"] == expected["calibration"]
    expected["host"]["details"].pop("after", None)
    assert found["host"] == expected["host"]


def test_a_part_says_of_how_many_cells_it_is(divided: Divided) -> None:
    run = judge(read_history(divided("matrix")[0]))[0]
    assert (len(run.cells), run.of_cells) == (1, 2)


def test_cells_that_no_run_has_are_inconclusive(divided: Divided, tmp_path: Path) -> None:
    first, *_ = divided("matrix")
    run = merged([first], tmp_path / "merged")
    assert [cell.outcome.value for cell in run.cells] == ["passed", "inconclusive"]
    assert "only 0 of " in run.cells[1].why


def test_a_part_that_was_cut_off_is_told(divided: Divided, tmp_path: Path) -> None:
    cut = json.loads((divided("matrix", damaged="guest-sleep")[1] / EVENTS).read_text().splitlines()[1])
    assert cut["id"] == "guest-sleep"
    run = merged([tmp_path / "part-0", tmp_path / "part-1"], tmp_path / "merged")
    assert [part.complete for part in run.parts] == [True, False]
    (finding,) = (one for one in run.findings if one.metric == "history")
    assert finding.why == "run part-1: the run was cut off before its end"


def host(machine: str, accelerator: str = "tcg") -> Host:
    return Host("6.1", "a CPU", 8 << 30, "7.2", "9.0", accelerator, details={"machine": machine, "load": 1.0})


def test_hosts_of_parts_stand_side_by_side(divided: Divided, tmp_path: Path) -> None:
    run = merged(divided("matrix", [host("aa"), host("bb", "kvm")]), tmp_path / "merged")
    assert [part.host.accelerator for part in run.parts] == ["tcg", "kvm"]
    assert (run.host.accelerator, run.host.qemu) == ("", "7.2")
    assert run.host.details["machine"] not in ("aa", "bb")
    assert run.calibration is None


def test_each_host_has_its_own_calibration(divided: Divided, tmp_path: Path) -> None:
    folders = divided("matrix", [host("aa"), host("bb")])
    known = {**ERROR, "made": "2026-11-20T00:00:00+00:00"}
    for folder, calibration in zip(folders, (known, None), strict=True):
        history, path = read_history(folder), folder / EVENTS
        start = replace(history.start, calibration=calibration)
        rest = path.read_text().splitlines(keepends=True)[1:]
        path.write_text(line_of(start, 0, history.began) + "\n" + "".join(rest))
    run = merged(folders, tmp_path / "merged")
    assert run.calibration is None
    assert [part.calibration and part.calibration.bias_ns for part in run.parts] == [120_000, None]
    shown = output_of(run)
    assert "part-0 · calibrated 2026-11-20: bias +0.1 ms" in shown
    assert "has no calibration" not in shown


def test_cells_of_different_machines_are_not_compared(divided: Divided, tmp_path: Path) -> None:
    parts = divided("calibration")
    (tmp_path / "same").mkdir()
    alone = merged(parts, tmp_path / "same" / "merged")
    histories = [read_history(folder) for folder in parts]
    for number, (folder, history) in enumerate(zip(parts, histories, strict=True)):
        start = replace(history.start, host=host(f"machine-{number}"))
        text = (folder / EVENTS).read_text().splitlines(keepends=True)
        (folder / EVENTS).write_text(line_of(start, 0, history.began) + "\n" + "".join(text[1:]))
    apart = merged(parts, tmp_path / "merged")
    assert not apart.comparisons
    assert [cell.pause for cell in apart.cells] == [cell.pause for cell in alone.cells]


@pytest.fixture
def eight(tmp_path: Path) -> Plan:
    path = tmp_path / "eight.yaml"
    path.write_text(MATRIX)
    return load(path)


def ids(cells: Sequence[Cell]) -> list[str]:
    return [cell.id for cell in cells]


@pytest.mark.parametrize("of", range(1, 9))
def test_shards_have_each_cell_once_and_about_as_many(eight: Plan, of: int) -> None:
    parts = [shard(eight, number, of) for number in range(1, of + 1)]
    assert [name for part in parts for name in ids(part.cells)] == ids(eight.cells)
    sizes = {len(part.cells) for part in parts}
    assert max(sizes) - min(sizes) <= 1


def test_more_shards_than_cells_are_refused(eight: Plan) -> None:
    with pytest.raises(ValueError, match="more shards than there are cells to run one after another: 8"):
        shard(eight, 1, 9)


def test_cells_that_run_side_by_side_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "pairs.yaml"
    path.write_text("name: pairs\nmatrix: {side_by_side: 2, hold: [1s, 2s, 3s], resync: [agent, none]}\n")
    plan = load(path)
    parts = [shard(plan, number, 3) for number in (1, 2, 3)]
    assert [[ids(batch) for batch in batches(part)] for part in parts] == [
        [ids(batch)] for batch in batches(plan)
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--shard", "0/3"], "--shard: not a shard: '0/3'"),
        (["--shard", "4/3"], "not a shard: '4/3'"),
        (["--shard", "one"], "not a shard: 'one'"),
        (["--shard", "1/9"], "--shard: more shards than there are cells to run one after another: 8"),
        (["--cell", "nothing"], "--cell: eight has no cell 'nothing'"),
        (["--cell", "a", "--shard", "1/2"], "--shard and --cell are two ways to choose cells"),
    ],
)
def test_parts_that_are_not_there_are_usage_errors(
    eight: Plan, tmp_path: Path, words: list[str], says: str
) -> None:
    done = CliRunner().invoke(app, ["run", str(tmp_path / "eight.yaml"), *words])
    assert done.exit_code == 2
    assert says in done.stderr


def test_a_playbook_without_cells_has_no_parts() -> None:
    done = CliRunner().invoke(app, ["run", "first-freeze", "--shard", "1/2"])
    assert done.exit_code == 2
    assert "--shard: first-freeze is no matrix" in done.stderr


def test_runs_that_do_not_belong_together_are_refused(divided: Divided, tmp_path: Path) -> None:
    first, second = divided("matrix")
    whole = tmp_path / "whole"
    for folders, says in (
        ([first, whole], "it is no run of a part of a playbook"),
        ([first, first], "its cell save-restore is also in part-0"),
    ):
        with pytest.raises(UsageError, match=says):
            whole_plan([read_history(folder) for folder in folders])
    history = read_history(second)
    assert history.start.whole is not None
    other = replace(history.start, whole=replace(history.start.whole, repeat=7))
    changed = replace(history, entries=(replace(history.entries[0], event=other), *history.entries[1:]))
    with pytest.raises(UsageError, match="it is of another playbook than part-0"):
        whole_plan([read_history(first), changed])


def test_merge_makes_a_run_of_its_own(
    divided: Divided, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FREEZELAB_HOME", str(home))
    first, second = divided("matrix")
    page, suite = tmp_path / "run.html", tmp_path / "junit.xml"
    words = ["merge", str(first), str(second), "--html", str(page), "--junit", str(suite)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "2 cells from 2 runs" in done.stdout
    assert page.stat().st_size and suite.stat().st_size
    (folder,) = (home / "runs").iterdir()
    shutil.rmtree(first)
    assert "2 cells from 2 runs" in CliRunner().invoke(app, ["report", folder.name]).stdout
    refused = CliRunner().invoke(app, ["merge", str(second), folder.name])
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"freezelab: {folder.name}: it is no run of a part of a playbook")
    assert len(list((home / "runs").iterdir())) == 1
