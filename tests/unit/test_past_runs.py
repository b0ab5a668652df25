"""`history`, `history prune` and `compare` as commands, on real histories."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lab.cli import main, options
from lab.core.comparison import FigureKind
from lab.errors import UsageError
from lab.process.clock import HostClock
from lab.record import pruning
from lab.record.index import INDEX, RunSummary
from lab.record.journal import EVENTS, FileJournal, read_history
from lab.record.run import judge, to_json
from lab.report.trend import render_trend
from tests.unit.compared_runs import PAIRS
from tests.unit.consoles import output, terminal
from tests.unit.real_histories import NAMES, unpacked

DAY = 86400


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FREEZELAB_HOME", str(tmp_path))
    return tmp_path


def put(home: Path, name: str, of: str = "suspend", days: float = 1, **changes: object) -> Path:
    """A run of a real history. days: its age. changes: of its first line."""
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    path = unpacked(of, folder) / EVENTS
    if changes:
        first, rest = path.read_text(encoding="utf-8").split("\n", 1)
        path.write_text(json.dumps(json.loads(first) | changes) + "\n" + rest, encoding="utf-8")
    at = time.time() - days * DAY
    os.utime(path, (at, at))
    return folder


def called(*arguments: object) -> Result:
    return CliRunner().invoke(main.app, [str(one) for one in arguments])


def left(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "runs").iterdir())


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """A run whose history is open."""
    folder.mkdir(parents=True)
    with FileJournal(folder, HostClock()) as journal:
        journal.path.write_bytes(unpacked("suspend", folder.parent).joinpath(EVENTS).read_bytes())
        (folder.parent / EVENTS).unlink()
        yield


# history


def test_a_list_of_what_is_asked_for(home: Path) -> None:
    put(home, "1-suspend", tags=["r7"])
    put(home, "2-matrix", "matrix")
    put(home, "3-truncated", "truncated")
    assert "tags" not in called("history", "--playbook", "three").stdout
    assert called("history").stdout.count("\n") == 4
    for arguments, names in (
        (("--playbook", "three"), ["three"]),
        (("--playbook", "s*"), ["suspend", "suspend"]),
        (("--outcome", "passed"), ["three", "suspend"]),
        (("--outcome", "inconclusive", "--playbook", "suspend"), ["suspend"]),
        (("--tag", "r7"), ["suspend"]),
        (("--since", "2026-11-28T22:00"), ["suspend", "suspend"]),
        (("--until", "2026-11-28T22:00"), ["three"]),
        (("--most", "1"), ["suspend"]),
    ):
        done = called("history", *arguments)
        assert done.exit_code == 0, done.output
        found = [word for line in done.stdout.splitlines()[1:] for word in line.split() if word in names]
        assert found == names, arguments
    assert called("history", "--tag", "none").stdout == "no such runs\n"


def test_a_run_is_listed_by_the_name_that_finds_it(home: Path, tmp_path: Path) -> None:
    """A renamed folder, a copied one, and one with spaces: each hint that is printed can be typed."""
    made = "20261128-223349-suspend-ab53"
    for name in (made, "kept", "of last week"):
        put(home, name)
    listed = called("history").stdout
    assert all(name in listed for name in (made, "kept", "of last week"))
    for name in (made, "kept", "of last week", str(home / "runs" / "kept")):
        shown = called("report", name).stdout
        (hint,) = [line for line in shown.splitlines() if "freezelab report" in line]
        words = shlex.split(hint)[1:]
        assert words[:2] == ["freezelab", "report"]
        assert words[2] == Path(name).name
        assert called(*words[1:]).exit_code == 0
    assert called("compare", "kept", "of last week", "--json").exit_code == 0
    assert '"id": "kept"' in called("compare", "kept", made, "--json").stdout
    shutil.rmtree(home / "runs" / made)
    shutil.rmtree(home / "runs" / "of last week")
    assert "freezelab report kept -v" in called("report", made).stdout  # by the record's id


def test_how_to_go_on_with_a_search(home: Path) -> None:
    """The hint needs no playbook, whose name may be no file's; without one it is that of the run."""
    history = put(home, "a search", "tolerance") / EVENTS
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True)
    tried = [at for at, line in enumerate(lines) if '"kind":"tolerance"' in line]
    history.write_text("".join(lines[: tried[1] + 1]), encoding="utf-8")
    assert "freezelab run --resume 'a search'\n" in called("report", "a search").stdout
    put(home, "1-suspend")
    done = called("run", "--resume", "1-suspend")
    assert done.exit_code == 2
    assert "it searched nothing" in done.output


def test_folders_with_hostile_names(home: Path) -> None:
    put(home, "1\x1b[31m\u202e-suspend")
    (home / "runs" / "2\x1b]0;title\x07").mkdir()
    for arguments in (("history",), ("report", "1"), ("report", home / "runs" / "2\x1b]0;title\x07")):
        done = called(*arguments)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", done.output), arguments
    assert "1[31m-suspend" in called("history").stdout


def test_a_run_elsewhere_is_named_by_its_path(home: Path, tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere", "20261128-223349-suspend-ab53")
    assert f"freezelab report {elsewhere} -v" in called("report", elsewhere).stdout.replace("\n", " ")


def test_a_baseline_is_a_renamed_run(home: Path) -> None:
    put(home, "kept")
    assert called("baseline", "set", home / "runs" / "kept").stdout.startswith("suspend: kept")
    assert "gone" not in called("baseline", "show").stdout


def test_no_runs_yet(home: Path) -> None:
    assert called("history").stdout == "no runs yet\n"
    assert called("history", "--figure", "pause").stdout == "no such runs\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--outcome", "green"), "no run is 'green'"),
        (("--since", "soon"), "not a time: 'soon'"),
        (("--until", "5"), "not a time: '5'"),
        (("--since", "9999999w"), "too long ago"),
        (("--figure", "speed"), "there is no figure 'speed'"),
        (("--tag", "a", "prune"), "options of the list stand before no other command"),
        (("prune",), "what is to stay?"),
        (("prune", "--older-than", "old"), "--older-than: not a duration"),
    ],
)
def test_mistakes_are_usage_errors(home: Path, arguments: tuple[str, ...], error: str) -> None:
    done = called("history", *arguments)
    assert done.exit_code == 2
    assert error in done.output
    assert len(done.output.splitlines()) <= 2


def test_the_course_of_a_figure(home: Path) -> None:
    put(home, "1-suspend")
    put(home, "2-matrix", "matrix")
    put(home, "3-empty", "handler-ended")
    done = called("history", "--figure", "pause")
    assert done.exit_code == 0, done.output
    assert "504.7 ± 0.4 ms" in done.stdout
    assert "2 cells" in done.stdout
    assert "three · guest-sleep" in done.stdout


def test_a_figure_that_no_run_has(home: Path) -> None:
    put(home, "1-suspend")
    assert called("history", "--figure", "outage").stdout.endswith("none of these runs has this figure\n")


def test_lines_of_two_machines_are_told_apart_on_a_narrow_terminal() -> None:
    figures = [
        replace(one, playbook="a-playbook-of-a-name-that-takes-room") for one in PAIRS["another-machine"]
    ]
    runs = [
        RunSummary(one.id, one.playbook, one.started, one.outcome, True, False, 1, 10, None)
        for one in figures
    ]
    for width in (60, 80):
        console = terminal(width)
        render_trend(FigureKind.PAUSE, runs, figures, console)
        lines = [line.split() for line in output(console).splitlines()]
        machines = [words[1] for words in lines if words[:1] == [figures[0].playbook]]
        assert machines == ["ffff0000", "a1b2c3d4"]


def test_ages_and_times() -> None:
    assert options.age("30d", "") == 30 * DAY * 10**9
    assert options.age("2w", "") == 14 * DAY * 10**9
    assert options.age("12h", "") == 12 * 3600 * 10**9
    assert str(options.moment("2026-11-29", "")) == "2026-11-29 00:00:00+00:00"
    assert str(options.moment("2026-11-29T01:00+02:00", "")) == "2026-11-29 01:00:00+02:00"


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a\tb", "a\u202eb", "\x1b[31m"])
def test_names_that_are_no_tags(name: str) -> None:
    with pytest.raises(UsageError):
        options.tags([name])


def test_a_tag_counts_once() -> None:
    assert options.tags(["b", "a", "b", "ü"]) == ("b", "a", "ü")


# history prune


def test_the_latest_stay(home: Path) -> None:
    for number in range(5):
        put(home, f"{number}-suspend")
    called("history")
    listed = called("history", "prune", "--keep", "2", "--dry-run")
    assert [line.split()[1] for line in listed.stdout.splitlines()[:-1]] == [
        f"{n}-suspend" for n in (2, 1, 0)
    ]
    assert "3 runs to remove" in listed.stdout
    assert len(left(home)) == 5
    done = called("history", "prune", "--keep", "2", "--yes")
    assert (done.exit_code, left(home)) == (0, ["3-suspend", "4-suspend"])
    assert called("history").stdout.count("\n") == 3


def test_older_runs_go_only_beyond_the_number(home: Path) -> None:
    for number, days in enumerate((40, 35, 31, 20, 1)):
        put(home, f"{number}-suspend", days=days)
    done = called("history", "prune", "--keep", "3", "--older-than", "30d", "--yes")
    assert (done.exit_code, left(home)) == (0, ["2-suspend", "3-suspend", "4-suspend"])
    called("history", "prune", "--older-than", "30d", "--yes")
    assert left(home) == ["3-suspend", "4-suspend"]


def test_nothing_is_removed_that_nobody_confirmed(home: Path) -> None:
    put(home, "1-suspend")
    done = called("history", "prune", "--keep", "0")
    assert done.exit_code == 2
    assert "nobody can be asked" in done.output
    assert left(home) == ["1-suspend"]


def test_a_run_in_progress_stays(home: Path) -> None:
    put(home, "2-suspend")
    with running(home / "runs" / "1-running"):
        at = time.time() - DAY
        os.utime(home / "runs" / "1-running" / EVENTS, (at, at))
        done = called("history", "prune", "--keep", "0", "--yes")
        assert (done.exit_code, left(home)) == (0, ["1-running"])
        assert "it is running" in done.stdout


def test_a_run_that_began_meanwhile_stays(home: Path) -> None:
    """Its history is open only after the list was made."""
    folder = put(home, "1-suspend")
    going = pruning.prunable(home, [folder], 0)
    assert going.folders == (folder,)
    shutil.rmtree(folder)
    with running(folder):
        assert pruning.remove(home, going) == 0
        assert left(home) == ["1-suspend"]


def test_a_run_that_has_just_ended_stays(home: Path) -> None:
    put(home, "1-suspend", days=0)
    assert "it has just ended" in called("history", "prune", "--keep", "0", "--yes").stdout
    assert left(home) == ["1-suspend"]


def test_runs_of_a_baseline_stay(home: Path) -> None:
    put(home, "1-suspend")
    put(home, "2-suspend")
    (home / "baselines.json").write_text(json.dumps({"suspend": ["1-suspend"]}))
    done = called("history", "prune", "--keep", "0", "--yes")
    assert (done.exit_code, left(home)) == (0, ["1-suspend"])
    assert "1-suspend: a baseline names it" in done.stdout


def test_nothing_goes_when_the_baselines_are_damaged(home: Path) -> None:
    put(home, "1-suspend")
    (home / "baselines.json").write_text("{")
    done = called("history", "prune", "--keep", "0", "--yes")
    assert (done.exit_code, left(home)) == (2, ["1-suspend"])
    assert "baselines.json" in done.output


def test_what_is_no_run_and_links_stay(home: Path, tmp_path: Path) -> None:
    put(home, "1-suspend")
    (home / "runs" / "notes").mkdir()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(home / "runs" / "1-suspend", elsewhere)
    (home / "runs" / "2-link").symlink_to(elsewhere)
    done = called("history", "prune", "--keep", "0", "--yes")
    assert (done.exit_code, left(home)) == (0, ["2-link", "notes"])
    assert (elsewhere / EVENTS).exists()


def test_what_an_interrupted_removal_left_is_no_run_and_goes_with_the_next(home: Path) -> None:
    put(home, f"{pruning.GOING}0-suspend")
    put(home, "1-suspend")
    assert called("history").stdout.count("\n") == 2
    called("history", "prune", "--keep", "0", "--yes")
    assert left(home) == []


def test_a_run_that_cannot_be_removed_is_an_error_after_all_others(home: Path) -> None:
    put(home, "1-suspend")
    put(home, "2-suspend")
    (home / "runs" / f"{pruning.GOING}2-suspend" / "full").mkdir(parents=True)  # it cannot be renamed to that
    done = called("history", "prune", "--keep", "0", "--yes")
    assert (done.exit_code, left(home)) == (4, ["2-suspend"])
    assert "2-suspend: cannot be removed: Directory not empty" in done.output


# compare


def test_a_run_beside_another_of_its_playbook(home: Path, tmp_path: Path) -> None:
    put(home, "1-suspend")
    put(home, "2-unproven", "unproven")
    page = tmp_path / "page.html"
    done = called("compare", "1-suspend", "2-unproven", "--html", page)
    assert done.exit_code == 1, done.output
    assert "memory: the same, page by page" in done.stdout
    assert "4 in each run could" in done.stdout
    assert page.read_text(encoding="utf-8").rstrip().endswith("</html>")
    made = json.loads(called("compare", "--json", "1", "2").stdout)
    assert made["schema"] == "freezelab.comparison/1"
    assert made["comparisons"][0]["worse"] is True
    assert called("compare", "2", "1").exit_code == 0
    assert (home / INDEX).exists()


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("suspend", "unproven", "truncated")])
def test_runs_of_other_playbooks_are_refused(home: Path, name: str) -> None:
    put(home, "1-suspend")
    put(home, "2-other", name)
    done = called("compare", "1", "2")
    assert done.exit_code == 2
    assert "has no cell of the baseline's" in done.output
    assert len(done.output.splitlines()) == 2


def test_a_record_is_compared_as_it_is(home: Path, tmp_path: Path) -> None:
    folder = put(home, "1-suspend")
    record = tmp_path / "run.json"
    record.write_text(to_json(judge(read_history(folder))[0]), encoding="utf-8")
    done = called("compare", folder, record)
    assert done.exit_code == 0, done.output
    assert "0 figures worse" in done.stdout


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "is no run.json"),
        ("{}", "is no run.json"),
        ("[" * 100_000, "is no run.json"),
        ("\ud800", "is no run.json"),
        ('"freezelab.run/1"', "is no run.json"),
    ],
)
def test_what_is_no_record(home: Path, tmp_path: Path, content: str, error: str) -> None:
    put(home, "1-suspend")
    record = tmp_path / "run.json"
    record.write_text(content, encoding="utf-8", errors="surrogatepass")
    done = called("compare", "1", record)
    assert done.exit_code == 2
    assert error in done.output
    assert len(done.output.splitlines()) <= 2


def test_a_record_of_another_version(home: Path, tmp_path: Path) -> None:
    made = json.loads(to_json(judge(read_history(put(home, "1-suspend")))[0]))
    record = tmp_path / "run.json"
    record.write_text(json.dumps(made | {"schema": "freezelab.run/2"}), encoding="utf-8")
    assert "its schema is 'freezelab.run/2'" in called("compare", "1", record).output
    record.write_text(json.dumps(made | {"a_member_that_came_later": 1}), encoding="utf-8")
    assert called("compare", "1", record).exit_code == 0
    older = {name: value for name, value in made.items() if name not in ("tags", "workloads", "tolerances")}
    record.write_text(json.dumps(older), encoding="utf-8")
    assert called("compare", "1", record).exit_code == 0
    made["guests"][0]["cycles"][0]["pause"] = {"value_ns": 10**300, "low_ns": 0, "high_ns": 10**300}
    record.write_text(json.dumps(made), encoding="utf-8")
    assert "damaged: pause has a value that nothing can measure" in called("compare", "1", record).output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("1-suspend",), "one run has nothing to be compared with"),
        (("1-suspend", "1-suspend"), "the same run twice"),
        (("1-suspend", "9-none"), "there is no run '9-none'"),
        (("1-suspend", "2-empty"), "there is no run here"),
        (("1-suspend", "3-other-version"), "its schema is 'freezelab.events/9'"),
    ],
)
def test_runs_that_cannot_be_compared(home: Path, arguments: tuple[str, ...], error: str) -> None:
    put(home, "1-suspend")
    (home / "runs" / "2-empty").mkdir()
    put(home, "3-other-version", schema="freezelab.events/9")
    done = called("compare", *arguments)
    assert done.exit_code == 2
    assert error in done.output
    assert len(done.output.splitlines()) <= 2


def test_an_interrupted_run_and_one_in_progress_are_compared(home: Path) -> None:
    put(home, "1-suspend")
    put(home, "2-truncated", "truncated")
    done = called("compare", "1", "2")
    assert done.exit_code == 1
    assert "inconclusive (not complete)" in done.stdout
    with running(home / "runs" / "3-running"):
        assert called("compare", "1", "3").exit_code == 0


def test_a_page_that_cannot_be_written_is_an_error(home: Path, tmp_path: Path) -> None:
    put(home, "1-suspend")
    put(home, "2-suspend")
    done = called("compare", "1", "2", "--html", tmp_path / "none" / "page.html")
    assert done.exit_code == 4
    assert "cannot be written" in done.output
    assert "figures worse" in done.stdout
