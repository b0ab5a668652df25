"""The index of old runs: what it says is what judging says, whatever becomes of it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.core.comparison import RunFigures
from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.process.clock import HostClock
from lab.record import figures, index, journal
from lab.record.figures import figures_of
from lab.record.index import (
    EVERY_RUN,
    INDEX,
    VERSION,
    RunFilter,
    RunSummary,
    figures_of_runs,
    forget,
    summaries,
    summary_of,
)
from lab.record.journal import EVENTS, FileJournal, read_history
from lab.record.run import judge
from tests.unit.real_histories import unpacked

NAMES = ("suspend", "matrix", "truncated", "rollout-stopped", "called-off")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "runs" / name for name in NAMES]
    for folder in made:
        folder.mkdir(parents=True)
        unpacked(folder.name, folder)
    return made


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs that were judged, as they come."""
    found: list[Path] = []

    def read(folder: Path) -> object:
        found.append(folder)
        return read_history(folder)

    monkeypatch.setattr(journal, "read_history", read)
    return found


def listed(folders: Sequence[Path], most: int = 100, wanted: RunFilter = EVERY_RUN) -> list[RunSummary]:
    return [run for _, run in summaries(folders, most, folders[0].parents[1] / INDEX, wanted)]


def truth(folders: Sequence[Path]) -> list[RunSummary]:
    runs = [summary_of(judge(read_history(folder))[0]) for folder in folders]
    return [replace(run, id=folder.name) for folder, run in zip(folders, runs, strict=True)]


def true_figures(folders: Sequence[Path]) -> list[RunFigures]:
    runs = [figures_of(judge(read_history(folder))[0]) for folder in folders]
    return [replace(run, id=folder.name) for folder, run in zip(folders, runs, strict=True)]


def test_a_run_is_judged_once(folders: list[Path], judged: list[Path]) -> None:
    assert listed(folders) == truth(folders)
    assert judged == folders
    assert listed(folders) == truth(folders)
    assert judged == folders


def test_a_run_that_was_judged_at_its_end_is_not_judged_again(
    folders: list[Path], judged: list[Path]
) -> None:
    run = index.judged(folders[0], folders[0].parents[1] / INDEX)
    assert replace(summary_of(run), id=folders[0].name) == listed(folders[:1])[0] == truth(folders[:1])[0]
    assert judged == folders[:1]


def test_no_more_are_judged_than_are_listed(folders: list[Path], judged: list[Path]) -> None:
    assert listed(folders, 2) == truth(folders[:2])
    assert judged == folders[:2]
    assert listed(folders) == truth(folders)
    assert judged == folders  # those that were known stay known


def test_a_history_that_has_changed_is_judged_again(folders: list[Path], judged: list[Path]) -> None:
    listed(folders)
    path = folders[0] / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (cut,) = listed(folders, 1)
    assert not cut.complete
    assert judged[len(folders) :] == folders[:1]


def test_another_build_judges_again(
    folders: list[Path], judged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(folders)
    monkeypatch.setattr(index, "build", lambda: "another")
    assert listed(folders) == truth(folders)
    assert len(judged) == 2 * len(folders)


def test_a_build_is_told_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core" / "history").mkdir(parents=True)
    (tmp_path / "record").mkdir()
    monkeypatch.setattr(index, "LAB", tmp_path)
    found = [index.build.__wrapped__()]
    for path in ("core/a.py", "core/history/b.py", "record/c.py"):
        (tmp_path / path).write_text("1", encoding="ascii")
        found.append(index.build.__wrapped__())
    (tmp_path / "core/a.py").write_text("22", encoding="ascii")
    found.append(index.build.__wrapped__())
    assert len(set(found)) == len(found)
    os.utime(tmp_path / "core/a.py", (0, 0))  # as another commit's checkout may do
    assert index.build.__wrapped__() == found[-1]


KILLED = """
import os, signal, sys
from pathlib import Path
from lab.record import index, journal

read, count = journal.read_history, 0

def counted(folder):
    global count
    count += 1
    if count > index.BATCH + 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(folder)

journal.read_history = counted
home = Path(sys.argv[1])
index.summaries(sorted((home / "runs").iterdir()), 1000, home / index.INDEX)
"""


def test_a_listing_that_is_killed_does_not_start_over(tmp_path: Path, judged: list[Path]) -> None:
    folders = [tmp_path / "runs" / f"{number:03}" for number in range(index.BATCH + 10)]
    for folder in folders:
        folder.mkdir(parents=True)
        unpacked("interrupted-early", folder)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(listed(folders)) == len(folders)
    assert judged == folders[index.BATCH :]


@pytest.mark.parametrize(
    "content", [b"", b"no database at all", bytes(5000), b"SQLite format 3\0" + bytes(84)]
)
def test_a_damaged_index_is_made_anew(folders: list[Path], judged: list[Path], content: bytes) -> None:
    (folders[0].parents[1] / INDEX).write_bytes(content)
    assert listed(folders) == truth(folders)
    assert listed(folders) == truth(folders)
    assert judged == folders


def test_an_index_that_another_process_locks_is_not_removed(
    folders: list[Path], judged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(folders)
    monkeypatch.setattr(index, "_WAIT_S", 0.05)
    with closing(sqlite3.connect(folders[0].parents[1] / INDEX, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert listed(folders) == truth(folders)
    assert judged == 2 * folders
    assert listed(folders) == truth(folders)
    assert judged == 2 * folders  # the lines of before are still there


def test_a_damaged_line_is_judged_again(folders: list[Path]) -> None:
    listed(folders)
    with sqlite3.connect(folders[0].parents[1] / INDEX) as database:
        database.execute("UPDATE runs SET outcome = 'fine' WHERE folder = ?", (folders[0].name,))
    assert listed(folders) == truth(folders)


def test_where_nothing_can_be_written_all_is_listed_all_the_same(folders: list[Path]) -> None:
    (folders[0].parents[1] / INDEX).mkdir()
    assert listed(folders) == truth(folders)


def test_a_run_in_progress_is_not_kept(tmp_path: Path, folders: list[Path], judged: list[Path]) -> None:
    alive = tmp_path / "runs" / "alive"
    alive.mkdir()
    lines = (folders[0] / EVENTS).read_bytes()
    with FileJournal(alive, HostClock()) as journal:
        journal.path.write_bytes(lines[: len(lines) // 2])
        assert listed([alive])[0].running
        journal.path.write_bytes(lines)
        assert listed([alive])[0].running
    assert listed([alive]) == listed([alive]) == truth([alive])
    assert judged == [alive] * 3


def test_what_is_no_run_is_left_out(tmp_path: Path, folders: list[Path]) -> None:
    empty, damaged = tmp_path / "runs" / "empty", tmp_path / "runs" / "damaged"
    empty.mkdir()
    damaged.mkdir()
    (damaged / EVENTS).write_text("no history\n", encoding="utf-8")
    assert listed([empty, folders[0], damaged, folders[1]]) == truth(folders[:2])
    unread: list[Path] = []
    summaries([empty, folders[0], damaged], 9, tmp_path / INDEX, unread=unread.append)
    assert unread == [empty, damaged]


def test_several_at_once(folders: list[Path]) -> None:
    found: list[list[RunSummary]] = []
    threads = [threading.Thread(target=lambda: found.append(listed(folders))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [truth(folders)] * 4


def loaded(modules: str) -> set[str]:
    """What is expensive to load, of what is loaded with these modules."""
    program = f"import sys, {modules}; print(*{{'lab.core.judge', 'pydantic', 'libvirt'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_a_listing_of_known_runs_does_not_wait_for_what_judges_them() -> None:
    modules = "lab.cli.main, lab.report.history, lab.report.console, lab.session.run_folders"
    assert loaded(modules) == set()


def test_an_index_of_another_version_is_made_anew(folders: list[Path], judged: list[Path]) -> None:
    path = folders[0].parents[1] / INDEX
    for version in (0, VERSION + 1):
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE IF EXISTS runs")
            other.execute("CREATE TABLE runs (folder TEXT, another INTEGER)")
            other.execute(f"PRAGMA user_version = {version}")
            other.commit()
        judged.clear()
        assert listed(folders) == listed(folders) == truth(folders)
        assert judged == folders


def test_what_is_compared_is_in_the_index(folders: list[Path], judged: list[Path]) -> None:
    path = folders[0].parents[1] / INDEX
    expected = true_figures(folders)
    assert figures_of_runs(folders, path) == expected
    assert judged == folders
    assert figures_of_runs(folders[::-1], path) == expected[::-1]
    assert listed(folders) == truth(folders)
    assert judged == folders


def test_damaged_figures_are_made_anew(folders: list[Path]) -> None:
    path = folders[0].parents[1] / INDEX
    expected = figures_of_runs(folders, path)
    for damage in ("NULL", "'[1, 2]'", "CAST(x'ff' AS TEXT)"):
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(f"UPDATE runs SET figures = {damage}")  # noqa: S608
        assert figures_of_runs(folders, path) == expected


def test_a_run_of_another_folder_is_judged_and_not_kept(
    tmp_path: Path, folders: list[Path], judged: list[Path]
) -> None:
    path = folders[0].parents[1] / INDEX
    listed(folders)
    other = tmp_path / "copied" / folders[0].name
    other.mkdir(parents=True)
    unpacked(folders[1].name, other)
    judged.clear()
    (figures,) = figures_of_runs([other], path)
    assert figures.id != folders[0].name
    assert judged == [other]
    assert listed(folders) == truth(folders)
    assert judged == [other]


def test_forgotten_runs_have_no_line(folders: list[Path]) -> None:
    path = folders[0].parents[1] / INDEX
    listed(folders)
    forget(folders[:2], path)
    with closing(sqlite3.connect(path)) as database:
        names = {name for (name,) in database.execute("SELECT folder FROM runs")}
    assert names == {folder.name for folder in folders[2:]}


STARTED = "2026-11-28T22:33:49.000+00:00"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (RunFilter(), True),
        (RunFilter(playbooks=("suspend",)), True),
        (RunFilter(playbooks=("other", "sus*")), True),
        (RunFilter(playbooks=("sus",)), False),
        (RunFilter(states=frozenset({"inconclusive"})), True),
        (RunFilter(states=frozenset({"failed"})), False),
        (RunFilter(tags=frozenset({"a"})), True),
        (RunFilter(tags=frozenset({"a", "b"})), True),
        (RunFilter(tags=frozenset({"a", "c"})), False),
        (RunFilter(since=datetime(2026, 11, 28, 22, 33, 49, tzinfo=UTC)), True),
        (RunFilter(since=datetime(2026, 11, 28, 22, 33, 50, tzinfo=UTC)), False),
        (RunFilter(until=datetime(2026, 11, 28, 22, 33, 50, tzinfo=UTC)), True),
        (RunFilter(until=datetime(2026, 11, 28, 22, 33, 48, tzinfo=UTC)), False),
    ],
)
def test_which_runs_are_asked_for(wanted: RunFilter, found: bool) -> None:
    run = RunSummary("i", "suspend", STARTED, Outcome.INCONCLUSIVE, True, False, 1, 1, None, tags=("a", "b"))
    assert wanted.is_of(run) is found


def test_a_time_that_is_none_is_never_in_a_range() -> None:
    assert not RunFilter(since=datetime(2000, 1, 1, tzinfo=UTC)).may_be("p", "yesterday", ())
    assert RunFilter().may_be("p", "yesterday", ())


def test_states_of_runs(folders: list[Path]) -> None:
    wanted = RunFilter(states=frozenset({"failed"}))
    expected = [run for run in truth(folders) if run.state == "failed"]
    assert expected
    assert listed(folders, wanted=wanted) == listed(folders, wanted=wanted) == expected


def test_another_build_judges_only_what_is_asked_for(
    folders: list[Path], judged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(folders)
    judged.clear()
    monkeypatch.setattr(index, "build", lambda: "another")
    name = truth(folders)[0].playbook
    expected = [folder for folder, run in zip(folders, truth(folders), strict=True) if run.playbook == name]
    assert len(listed(folders, wanted=RunFilter(playbooks=(name,)))) == len(expected)
    assert judged == expected


def test_a_folder_whose_name_is_no_utf8(tmp_path: Path, judged: list[Path]) -> None:
    folder = tmp_path / "runs" / "odd\udcff"
    folder.mkdir(parents=True)
    unpacked("suspend", folder)
    assert listed([folder]) == listed([folder])
    assert listed([folder])[0].id == "odd\\udcff"
    assert judged == [folder]


def test_the_tags_of_a_run_are_in_its_line(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tagged"
    folder.mkdir(parents=True)
    path = unpacked("suspend", folder) / EVENTS
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(first) | {"tags": ["nightly", "r7"]}) + "\n" + rest)
    wanted = RunFilter(tags=frozenset({"r7"}))
    assert listed([folder], wanted=wanted) == listed([folder], wanted=wanted)
    assert listed([folder], wanted=wanted)[0].tags == ("nightly", "r7")
    assert listed([folder], wanted=RunFilter(tags=frozenset({"r8"}))) == []


def test_a_run_whose_figures_are_damaged_is_listed(
    tmp_path: Path, judged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs" / "odd"
    folder.mkdir(parents=True)
    unpacked("suspend", folder)
    monkeypatch.setattr(figures, "_MOST", 1)
    assert listed([folder]) == listed([folder]) == truth([folder])
    assert judged == [folder]
    with pytest.raises(RecordError, match="damaged"):
        figures_of_runs([folder], tmp_path / INDEX)


def test_a_named_pipe_is_no_history_and_is_not_waited_for(folders: list[Path]) -> None:
    pipe = folders[0].parent / "pipe"
    pipe.mkdir()
    os.mkfifo(pipe / EVENTS)
    unread: list[Path] = []
    found = summaries([pipe, folders[0]], 9, folders[0].parents[1] / INDEX, unread=unread.append)
    assert ([folder for folder, _ in found], unread) == (folders[:1], [pipe])
    with pytest.raises(RecordError, match="it is no file"):
        read_history(pipe)
