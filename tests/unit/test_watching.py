"""How far a run is, how long it still takes, and a run that is watched from another terminal."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.core.history import GuestsFrozen, ReadingsTaken, RunEnded, RunStarted
from lab.core.units import NBSP, NS_PER_S
from lab.record.events import Entry, entry_of, envelope
from lab.record.journal import EVENTS, read_history
from lab.record.milestones import EarlierRun, earlier_runs
from lab.report.run_progress import RunProgress
from lab.report.run_steps import next_step, overview
from tests.unit.real_histories import unpacked

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def entries(name: str, tmp_path: Path) -> list[Entry]:
    return list(read_history(unpacked(name, tmp_path)).entries)


def shown(progress: RunProgress, at: int, width: int = 80, most: int = 9) -> list[str]:
    return [line.plain.replace(NBSP, " ").rstrip() for line in progress.lines(at, width, most)]


def test_each_guest_has_a_line(tmp_path: Path) -> None:
    progress, states = RunProgress(), dict[str, list[str]]()
    for entry in entries("network", tmp_path):
        progress.add(entry)
        for line in shown(progress, entry.at.raw_ns):
            name, state = re.split(r"\s{2,}", line.strip())[:2]
            if states.setdefault(name, [""])[-1] != state:
                states[name].append(state)
    way = ["", "starting", "ready", "measuring", "frozen", "resumed", "in time", "done"]
    assert [state for state in states["a"] if state != "behind"] == way
    assert set(states) == {"a", "b"}
    assert re.search(r"  -3\d\.\d ± \d\.\d ms  ", shown(progress, 0)[0])


@pytest.mark.parametrize("width", [20, 60, 80, 120])
def test_its_lines_fit(tmp_path: Path, width: int) -> None:
    progress = RunProgress()
    for entry in entries("network", tmp_path):
        progress.add(entry)
        lines = progress.lines(entry.at.raw_ns, width, 9)
        lines.append(overview(progress, (1, 2), "watch", entry.at.raw_ns, width))
        assert all(len(line.plain) <= max(width, 40) for line in lines)


def test_a_frozen_guest_has_no_offset_and_many_guests_are_counted(tmp_path: Path) -> None:
    progress = RunProgress()
    for entry in entries("network", tmp_path):
        progress.add(entry)
        if isinstance(entry.event, GuestsFrozen):
            break
    assert all("frozen" in line and "±" not in line for line in shown(progress, entry.at.raw_ns))
    assert shown(progress, entry.at.raw_ns, most=1) == ["  and 2 more: 2 frozen"]


def test_what_earlier_runs_tell(tmp_path: Path) -> None:
    given = entries("suspend", tmp_path)
    start, end = given[0].at.raw_ns, given[-1].at.raw_ns
    whole = ("run-start", 1)

    def left(*seconds: float, at: float = 0) -> str:
        found = [EarlierRun({whole: int(s * NS_PER_S)}) for s in seconds]
        progress = RunProgress(lambda _plan: found)
        progress.add(given[0])
        assert progress.share(start) == (None if not seconds else 0.0)
        return progress.left(start + int(at * NS_PER_S))

    assert left() == ""
    assert left(40) == "about 40 s left (from 1 run)"
    assert left(36, 42, 55, at=2) == "about 40 s left (34–53 s, from 3 runs)"
    assert left(36, 42, 75 * 60) == "about 42 s left (36 s–75 min, from 3 runs)"
    assert left(36, 42, at=10) == "about 29 s left (26–32 s, from 2 runs)"
    assert left(36, 42, at=41) == "at most 1 s left (from 2 runs)"
    assert left(36, 42, at=45) == "3.0 s longer than 2 runs before"
    assert end > start


def test_the_time_left_is_from_the_last_thing_that_earlier_runs_reached_too(tmp_path: Path) -> None:
    """How long this one took to boot says nothing about the rest."""
    given = entries("suspend", tmp_path)
    course = EarlierRun({("run-start", 1): 100 * NS_PER_S, ("cycle", 1): 10 * NS_PER_S})
    progress = RunProgress(lambda _plan: [course])
    for entry in given:
        progress.add(entry)
        if entry.kind == "freeze":  # which the earlier one has not
            break
    begun = next(entry.at.raw_ns for entry in given if entry.kind == "cycle")
    assert progress.left(begun) == "about 10 s left (from 1 run)"


def test_only_finished_runs_of_the_same_plan_are_taken(tmp_path: Path) -> None:
    def folder(name: str, history: str, change: Callable[[str], str] = str) -> Path:
        made = tmp_path / name
        made.mkdir()
        unpacked(history, made)
        text = (made / EVENTS).read_text("utf-8")
        (made / EVENTS).write_text(change(text), "utf-8")
        return made

    def interrupted(text: str) -> str:
        return text.replace('"interrupted":false', '"interrupted":true')

    plan = next(iter(read_history(folder("x", "suspend")).of(RunStarted))).plan
    good = folder("20260101-000000-suspend-0001", "suspend")
    others = [
        folder("20260101-000000-other-0002", "suspend"),
        folder("20260101-000000-suspend-0003", "unproven"),
        folder("20260101-000000-suspend-0004", "suspend", lambda text: text[: len(text) // 2]),
        folder("20260101-000000-suspend-0005", "suspend", lambda t: t.replace(plan.digest, "0" * 64)),
        folder("20260101-000000-suspend-0006", "suspend", interrupted),
        folder("20260101-000000-suspend-0007", "suspend", lambda _: "not an event\n"),
        tmp_path / "20260101-000000-suspend-0008",
    ]  # fmt: skip
    [course] = earlier_runs([*others, good], plan)
    history = read_history(good)
    left = history.ended.raw_ns - history.began.raw_ns
    assert course.left_ns["run-start", 1] == left
    assert course.left_ns["resume", 1] < course.left_ns["freeze", 1] < course.left_ns["boot", 1] < left
    assert len(earlier_runs([good] * 20, plan)) == 10


def test_what_comes_next(tmp_path: Path) -> None:
    plan = next(iter(read_history(unpacked("suspend", tmp_path)).of(RunStarted))).plan
    steps = [next_step(plan, phase, (1, 2)) for phase in ("boot", "settle", "measure", "freeze", "watch")]
    assert steps == [
        "set the guests' clocks, then settle",
        "measure offset and drift for 2 s",
        "freeze: suspend, hold 500 ms",
        "watch the clocks for 6 s",
        "cycle 2 of 2",
    ]
    assert next_step(plan, "watch", (2, 2)) == "remove the guests, then the report"


def test_without_earlier_runs_the_bar_only_grows(tmp_path: Path) -> None:
    plan = next(iter(read_history(unpacked("suspend", tmp_path)).of(RunStarted))).plan
    progress = RunProgress(plan=plan, begun_raw_ns=0)
    phases = ("settle", "measure", "prepare", "freeze", "patch", "watch", "remove guests")
    bars = [
        overview(progress, (cycle, 2), phase, NS_PER_S, 79).plain.count("█")
        for cycle in (1, 2)
        for phase in phases[: -1 if cycle == 1 else None]
    ]
    assert bars == sorted(bars)
    assert len(set(bars)) > len(phases)


# -- from another terminal -----------------------------------------------------------------------------------


@contextmanager
def being_written(home: Path, name: str, until: type | None = None) -> Iterator[Callable[[], None]]:
    """A run in progress: its history grows while its process holds it. until: it dies at this event. Yields
    what lets it begin."""
    folder = home / "runs" / "20261128-000000-x-0001"
    folder.mkdir(parents=True)
    whole = home / "whole"
    whole.mkdir()
    lines = (unpacked(name, whole) / EVENTS).read_text("utf-8").splitlines()
    begin = threading.Event()
    with (folder / EVENTS).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(lines[0] + "\n")
        file.flush()

        def write() -> None:
            begin.wait(PATIENCE_S)
            for line in lines[1:]:
                given = envelope(line)
                if given is None:
                    break
                event = entry_of(line, given).event
                if until is not None and isinstance(event, until):
                    break
                file.write(line + "\n")
                file.flush()
                time.sleep(0.01 if isinstance(event, ReadingsTaken) else 0.05)
            fcntl.flock(file, fcntl.LOCK_UN)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            yield begin.set
        finally:
            begin.set()
            thread.join(PATIENCE_S)


def watching(home: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "FREEZELAB_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "lab.cli.main", "report", "--watch"],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "until", "code", "told"),
    [
        ("suspend", None, 0, ""),
        ("save-restore", None, 3, ""),
        ("interrupted", None, 130, "freezelab: interrupted by SIGTERM"),
        ("suspend", RunEnded, 4, "freezelab: the run's process has died: its history has no end"),
    ],
)
def test_it_ends_with_the_run_and_its_exit_code(
    tmp_path: Path, name: str, until: type | None, code: int, told: str
) -> None:
    with being_written(tmp_path, name, until) as begin:
        process = watching(tmp_path)
        assert process.stderr is not None
        first = process.stderr.readline()
        begin()
        out, errors = process.communicate(timeout=PATIENCE_S)
    assert "boot" in first
    assert process.returncode == code, errors
    assert "freeze: stopping the guests" in errors
    assert out.splitlines()[0].startswith({0: "passed", 4: "inconclusive"}.get(code, "inconclusive"))
    assert (told in errors) if told else "freezelab:" not in errors


def test_a_run_that_is_over_is_shown_at_once(tmp_path: Path) -> None:
    with being_written(tmp_path, "suspend") as begin:
        begin()
    process = watching(tmp_path)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")
    assert out.startswith("passed  suspend")
