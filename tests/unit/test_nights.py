"""Nights with processes of their own: night_stand_in.py in place of `freezelab run`, which takes minutes.
tests/guest/runs/test_nightly.py has guests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from junitparser import JUnitXml
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.night import NightVerdict, PlaybookNight
from lab.errors import MachineError
from lab.playbook import load
from lab.record.baselines import BASELINES, read_baselines
from lab.record.nights import (
    NIGHT,
    Night,
    begin_night,
    nights_folder,
    read_nights,
    write_night,
)
from lab.session import nights
from lab.session.nights import only_night
from tests.mounts import need_namespaces
from tests.unit.night_stand_in import SHORT, playbook, write_run

ROOT = Path(__file__).parents[2]
MS = 1_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state 50%"
    monkeypatch.setenv("FREEZELAB_HOME", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(nights, "FREEZELAB", (sys.executable, "-c", SHORT))
    return folder


def freezelab(*arguments: str, code: int) -> str:
    """What the command prints."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, done.output
    return done.output


def last(home: Path) -> Night:
    found, damaged = read_nights(home, 1)
    assert not damaged
    return found[0]


def cases(home: Path) -> dict[str, list[str]]:
    """Of the last night's JUnit file: by suite and case, what it is beside passed."""
    xml = JUnitXml.fromfile(str(nights_folder(home) / last(home).id / "junit.xml"))
    return {
        f"{suite.name.rpartition('.')[2]}: {case.name}": [type(each).__name__ for each in case.result]
        for suite in xml
        for case in suite
    }


def test_a_first_night_passes_and_says_that_nothing_was_compared(home: Path, tmp_path: Path) -> None:
    shown = freezelab("nightly", "run", playbook(tmp_path), code=0)
    assert "no baseline yet: nothing was compared" in shown
    night = last(home)
    (part,) = night.playbooks
    assert (night.verdict, part.verdict, part.baseline) == (NightVerdict.PASSED, NightVerdict.PASSED, ())
    assert (home / "runs" / part.run).is_dir()
    assert 0 < part.took_ns < part.limit_ns
    assert cases(home) == {"short: run": [], "short: verdict": []}


def test_the_last_passed_runs_are_the_baseline_of_the_next_nights(home: Path, tmp_path: Path) -> None:
    path = playbook(tmp_path)
    for number in range(3):
        write_run(home, f"2026110{number}-020000-short-000{number}", load(Path(path)), seed=number)
    write_run(home, "20261104-020000-short-0004", load(Path(path)), pause_ms=2500)  # failed
    write_run(home, "20261105-020000-other-0005", load(Path(playbook(tmp_path, "other"))))
    changed = load(Path(playbook(tmp_path, cycles=9)))
    write_run(home, "20261106-020000-short-0006", changed, pause_ms=100)
    playbook(tmp_path)
    freezelab("nightly", "run", path, code=0)
    assert last(home).playbooks[0].baseline == tuple(
        f"2026110{number}-020000-short-000{number}" for number in (2, 1, 0)
    )
    freezelab("nightly", "run", path, "--last", "2", code=0)
    assert len(last(home).playbooks[0].baseline) == 2
    assert cases(home)["short: pause"] == []


def test_a_regression_beyond_noise_fails_the_night_though_its_run_passed(home: Path, tmp_path: Path) -> None:
    path = playbook(tmp_path)
    write_run(home, "20261101-020000-short-0001", load(Path(path)))
    assert "20261101-020000-short-0001" in freezelab("baseline", "set", "0001", code=0)
    freezelab("nightly", "run", path, code=0)
    playbook(tmp_path, pause_ms=400)
    shown = freezelab("nightly", "run", path, code=1)
    assert "pause is worse than in the baseline by more than noise: 306 ms before, 4" in shown
    (part,) = last(home).playbooks
    assert (part.outcome, part.verdict) == ("passed", NightVerdict.FAILED)
    found = cases(home)
    assert found["short: pause"] == ["Failure"] and found["short: verdict"] == []
    freezelab("baseline", "set", part.run, code=0)  # it is meant
    freezelab("nightly", "run", path, code=0)


def test_a_verdict_that_changed_fails_the_night_either_way(home: Path, tmp_path: Path) -> None:
    path = playbook(tmp_path)
    write_run(home, "20261101-020000-short-0001", load(Path(path)))
    freezelab("baseline", "set", "0001", code=0)
    playbook(tmp_path, pause_ms=2500)
    shown = freezelab("nightly", "run", path, code=1)
    assert "the run failed, and its baseline passed" in shown
    assert cases(home)["short: verdict"] == ["Failure"]
    failed = last(home).playbooks[0].run
    assert "(failed: nights that end so pass)" in freezelab("baseline", "set", failed, code=0)
    freezelab("nightly", "run", path, code=0)
    playbook(tmp_path)
    shown = freezelab("nightly", "run", path, code=1)
    assert "if that is meant, set the baseline again" in shown


def test_a_baseline_that_is_gone_is_never_a_pass(home: Path, tmp_path: Path) -> None:
    path = playbook(tmp_path)
    folder = write_run(home, "20261101-020000-short-0001", load(Path(path)))
    freezelab("baseline", "set", "0001", code=0)
    (folder / "events.jsonl").unlink()
    folder.rmdir()
    shown = freezelab("nightly", "run", path, code=3)
    assert "the baseline 20261101-020000-short-0001 is gone or damaged" in shown
    assert cases(home)["short: baseline"] == ["Error"]
    assert "gone" in freezelab("baseline", "show", code=0)
    freezelab("baseline", "clear", "short", code=0)
    freezelab("nightly", "run", path, code=0)
    (home / BASELINES).write_text("{")
    shown = freezelab("nightly", "run", path, code=4)
    assert "baselines.json: damaged" in shown


def test_the_other_playbooks_of_a_night_are_run_all_the_same(home: Path, tmp_path: Path) -> None:
    gone, bad = str(tmp_path / "gone.yaml"), tmp_path / "bad.yaml"
    bad.write_text("name: bad\nresync: agnet\n")
    files = [
        gone,
        str(bad),
        playbook(tmp_path, "refused", does="refuse"),
        playbook(tmp_path, "dies", does="die"),
    ]
    freezelab("nightly", "run", *files, playbook(tmp_path), code=4)
    found = {part.playbook.rpartition("/")[2]: part for part in last(home).playbooks}
    assert {name: part.verdict.value for name, part in found.items()} == {
        "gone.yaml": "invalid", "bad.yaml": "invalid", "refused": "error", "dies": "error", "short": "passed",
    }  # fmt: skip
    assert found["gone.yaml"].why.startswith("no playbook")
    assert "resync" in found["bad.yaml"].why and "\n" not in found["bad.yaml"].why
    assert found["refused"].why == "the image is not there freezelab image build makes it"
    assert found["dies"].why == "its process was ended by SIGSEGV; recover: removed guest web-0 of the run"
    assert cases(home)["dies: run"] == ["Error"]


def test_a_clean_up_that_failed_is_an_error_beside_the_runs_verdict(home: Path, tmp_path: Path) -> None:
    freezelab("nightly", "run", playbook(tmp_path, does="left"), code=4)
    (part,) = last(home).playbooks
    assert part.outcome == "passed"
    assert part.why == "guest web-0: cannot be removed freezelab recover"


@pytest.mark.parametrize(("does", "grace_s"), [("hang", 30.0), ("stubborn", 0.3)])
def test_what_hangs_is_ended_at_its_limit_and_its_guests_freed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, grace_s: float
) -> None:
    monkeypatch.setattr(nights, "GRACE_S", grace_s)
    freezelab("nightly", "run", playbook(tmp_path, "stuck", does=does), "--limit", "6s", code=4)
    (stuck,) = last(home).playbooks
    assert stuck.why == (
        "ended at its time limit of 6.0 s before its run began (0.1 s  waiting: for the night to be over); "
        "recover: removed guest web-0 of the run"
    )
    assert 6e9 < stuck.took_ns < 30e9
    assert not psutil.pid_exists(int((home / "hangs").read_text()))


def started(home: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """A night in a process of its own, whose run hangs already."""
    code = (
        "import sys; from lab.session import nights; from lab.cli.main import app\n"
        "from tests.unit.night_stand_in import SHORT; nights.FREEZELAB = (sys.executable, '-c', SHORT); app()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "nightly", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not (home / "hangs").exists() or not (home / "hangs").read_text():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    return process


def test_two_nights_never_meet(home: Path, tmp_path: Path) -> None:
    process = started(home, [playbook(tmp_path, "stuck", does="hang")])
    try:
        shown = freezelab("nightly", "run", playbook(tmp_path), code=4)
        assert f"another night is under way (process {process.pid}, since " in shown
        assert len(read_nights(home, 9)[0]) == 1
        assert "under way" in freezelab("nightly", "status", code=0)
    finally:
        process.send_signal(signal.SIGTERM)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (part,) = last(home).playbooks
    assert (part.verdict, part.why) == (NightVerdict.INTERRUPTED, "interrupted by SIGTERM")
    assert not psutil.pid_exists(int((home / "hangs").read_text()))
    freezelab("nightly", "run", playbook(tmp_path), code=0)


def test_a_night_that_is_killed_takes_its_run_along_and_leaves_no_lock(home: Path, tmp_path: Path) -> None:
    process = started(home, [playbook(tmp_path, "stuck", does="hang")])
    run = psutil.Process(int((home / "hangs").read_text()))
    process.kill()
    process.communicate()
    run.wait(20)
    assert "cut off" in freezelab("nightly", "report", code=0)
    freezelab("nightly", "run", playbook(tmp_path), code=0)


def test_the_lock_is_free_again_after_a_night(home: Path) -> None:
    home.mkdir()
    for _ in range(2):
        with only_night(home):
            assert nights.is_under_way(home)
    assert not nights.is_under_way(home)
    with only_night(home):
        met: list[MachineError] = []

        def second() -> None:
            try:
                with only_night(home):
                    pass
            except MachineError as error:
                met.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(met) == 1 and f"process {os.getpid()}" in met[0].what


COMMAND = """#!/bin/sh
printf '%s\\n' "$#" "$@" "$FREEZELAB_PLAYBOOK" "$FREEZELAB_VERDICT" "$FREEZELAB_WHY" \\
    "$FREEZELAB_RUN_FOLDER" "$FREEZELAB_NIGHT_FOLDER" "$FREEZELAB_JUNIT" >>"${0%/*}/out"
"""


def test_the_command_gets_its_words_as_they_are_and_the_facts_in_its_environment(
    home: Path, tmp_path: Path
) -> None:
    script = tmp_path / "on failure"
    script.write_text(COMMAND)
    script.chmod(0o755)
    command = f"'{script}' $HOME '$(reboot); `reboot`' 'a  b' '*' >x | y"
    files = [playbook(tmp_path, pause_ms=2500), playbook(tmp_path, "fine")]
    freezelab("nightly", "run", *files, "--on-failure", command, code=1)
    part = last(home).playbooks[0]
    folder = nights_folder(home) / last(home).id
    assert (tmp_path / "out").read_text().splitlines() == [
        *("7", "$HOME", "$(reboot); `reboot`", "a  b", "*", ">x", "|", "y"),
        *("short", "failed", "the run failed", str(home / "runs" / part.run), str(folder)),
        str(folder / "junit.xml"),
    ]
    script.write_text("#!/bin/sh\necho no mail server >&2; exit 7\n")
    shown = freezelab("nightly", "run", files[0], "--on-failure", f"'{script}'", code=1)
    assert "--on-failure: exit status 7: no mail server" in shown


def test_the_command_is_run_when_there_is_no_night(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "command"
    script.write_text(COMMAND)
    script.chmod(0o755)
    home.mkdir()
    with only_night(home):
        freezelab("nightly", "run", playbook(tmp_path), "--on-failure", str(script), code=4)
    count, name, verdict, why, *_ = (tmp_path / "out").read_text().splitlines()
    assert (count, name, verdict) == ("0", "", "error")
    assert "another night is under way" in why


FULL = """
mount -t tmpfs -o size=64k small "$FREEZELAB_HOME" && mkdir "$FREEZELAB_HOME/nights" || exit 9
head -c 100000 /dev/zero >"$FREEZELAB_HOME/fill" 2>/dev/null
"$0" -m lab.cli.main nightly run gone.yaml --on-failure "$1"
echo "$?, $(find "$FREEZELAB_HOME" -type f | wc -l) files"
truncate -s 53248 "$FREEZELAB_HOME/fill"  # room for the lock, the record and JUnit, and none for the page
"$0" -m lab.cli.main nightly run gone.yaml >/dev/null
echo "$?, $(find "$FREEZELAB_HOME" -name night.json -size +0 | wc -l) night"
"""


def test_a_full_disk_is_an_error_and_leaves_no_half_night(home: Path, tmp_path: Path) -> None:
    need_namespaces()
    home.mkdir()
    script = tmp_path / "command"
    script.write_text(COMMAND)
    script.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", FULL, sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["4, 2 files", "4, 1 night"]
    assert "nights.html: cannot be written: No space left on device" in done.stderr
    assert "night.json: cannot be written: No space left on device" in (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--on-failure", "nosuchprogram x"], "--on-failure: nosuchprogram: no such program"),
        (["--on-failure", "'"], "--on-failure: cannot be read"),
        (["--on-failure", " "], "--on-failure: no command"),
        (["--limit", "soon"], "--limit: "),
        (["--limit", "0s"], "--limit: no run ends in no time"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_night(
    home: Path, tmp_path: Path, arguments: list[str], what: str
) -> None:
    for command in ("run", "install"):
        assert what in freezelab("nightly", command, playbook(tmp_path), *arguments, code=2)
    assert not nights_folder(home).exists()


def test_playbooks_of_one_name_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    both = [playbook(tmp_path), playbook(tmp_path / "b")]
    assert "two playbooks have the name short" in freezelab("nightly", "run", *both, code=2)
    assert "two playbooks have the name short" in freezelab("nightly", "install", *both, code=2)


def test_without_systemd_a_line_for_cron_is_printed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.host import night_units

    monkeypatch.setattr(night_units, "has_user_manager", lambda: False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    shown = freezelab("nightly", "install", playbook(tmp_path), "--at", "2:30", "--limit", "1h", code=0)
    assert shown.startswith("30 2 * * * env ")
    assert "'FREEZELAB_HOME=" in shown and "state 50\\%'" in shown
    assert f"nightly run {tmp_path}/short.yaml --limit 1h\n" in shown
    assert "nothing was installed" in shown
    assert not (tmp_path / "config").exists()
    assert freezelab("nightly", "remove", code=0) == "no night is installed\n"


def test_a_baseline_has_to_be_a_whole_run_of_this_state_folder(home: Path, tmp_path: Path) -> None:
    plan = load(Path(playbook(tmp_path)))
    cut = write_run(home, "20261101-020000-short-0001", plan) / "events.jsonl"
    cut.write_text(cut.read_text().rpartition('{"seq"')[0])
    assert "did not go to its end" in freezelab("baseline", "set", "0001", code=2)
    elsewhere = write_run(tmp_path / "other", "r", plan)
    assert "not a run of this state folder" in freezelab("baseline", "set", str(elsewhere), code=2)
    write_run(home, "20261102-020000-short-0002", plan)
    write_run(home, "20261103-020000-short-0003", load(Path(playbook(tmp_path, cycles=9))))
    assert "different versions" in freezelab("baseline", "set", "0002", "0003", code=2)
    assert read_baselines(home) == {}
    freezelab("baseline", "set", "0002", "0002", code=0)
    assert read_baselines(home) == {"short": ("20261102-020000-short-0002",)}
    assert "there are: short" in freezelab("baseline", "clear", "nope", code=2)
    assert freezelab("baseline", "clear", code=0) == "cleared: short\n"


def test_a_damaged_night_is_told_of_beside_the_others(home: Path) -> None:
    for _ in range(3):
        night = begin_night(home)
        part = PlaybookNight("<script>alert(1)</script>\u202e", NightVerdict.PASSED)
        write_night(home, Night(**{**vars(night), "verdict": NightVerdict.PASSED, "playbooks": (part,)}))
    first = sorted(path for path in nights_folder(home).iterdir())[0]
    (first / NIGHT).write_text(json.dumps({"schema": "freezelab.night/1", "id": 3}))
    shown = freezelab("nightly", "report", code=0)
    assert "1 night cannot be read: " in shown and shown.count("passed") == 4
    page = home / "page.html"
    freezelab("nightly", "report", "--html", str(page), code=0)
    text = page.read_text()
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)" in text and "\u202e" not in text


def test_only_the_last_nights_are_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.record import nights as recorded

    monkeypatch.setattr(recorded, "MOST", 2)
    ids = []
    for number in range(4):
        night = begin_night(home)
        (nights_folder(home) / night.id).rename(nights_folder(home) / f"2026110{number}-020000-0000")
        ids.append(f"2026110{number}-020000-0000")
    recorded.prune_nights(home)
    assert sorted(path.name for path in nights_folder(home).iterdir()) == ids[2:]


@pytest.mark.parametrize("where", ["lab.playbook.load", "lab.session.night_baseline.figures"])
def test_a_signal_is_never_taken_for_a_mistake(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = playbook(tmp_path)
    monkeypatch.setattr(where, lambda *_: signal.raise_signal(signal.SIGTERM))
    shown = freezelab("nightly", "run", path, code=130)
    assert "interrupted by SIGTERM" in shown
