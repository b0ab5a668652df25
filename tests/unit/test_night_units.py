"""A night's units, read by systemd, and its line for cron. tests/host/test_night_timer.py runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import MachineError, UsageError
from lab.host import night_units
from lab.host.night_units import HOME, SERVICE, TIMER, NightJob
from tests.unit.hostile_words import HOSTILE

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def job(*arguments: str, home: str = "/tmp/state", at: str = "02:00", **more: str) -> NightJob:
    hour, minute = night_units.parse_time(at)
    return NightJob(hour, minute, (sys.executable, *arguments), {HOME: home, **more})


@needs_analyze
@pytest.mark.parametrize("name", [*HOSTILE, "all"], ids=ascii)
def test_systemd_accepts_the_units_without_a_word(tmp_path: Path, name: str) -> None:
    words = HOSTILE if name == "all" else [name]
    made = job("nightly", "run", *words, home=f"/tmp/{name}", at="23:59", X=" ".join(words))
    night_units.write_units(made, tmp_path / "units")  # verified there as well
    (tmp_path / "run").mkdir(mode=0o700)
    files = [str(tmp_path / "units" / unit) for unit in (TIMER, SERVICE)]
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *files],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    there = night_units.installed_home(tmp_path / "units")
    assert there is not None
    assert night_units.is_home(there, f"/tmp/{name}")
    assert not night_units.is_home(there, "/tmp/other")


@needs_analyze
def test_what_systemd_does_not_accept_is_not_left_there(tmp_path: Path) -> None:
    made = NightJob(2, 0, ("not/absolute", "nightly"), {HOME: "/tmp/state"})
    with pytest.raises(MachineError, match="systemd does not accept the units"):
        night_units.write_units(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "time"),
    [("02:00", (2, 0)), ("2:00", (2, 0)), ("0:00", (0, 0)), ("23:59", (23, 59))],
)
def test_times_of_day(text: str, time: tuple[int, int]) -> None:
    assert night_units.parse_time(text) == time


@pytest.mark.parametrize(
    "text",
    ["", "2", "24:00", "02:60", "2:0", "-1:00", "02:00:00", "2am", "02;00", "٠٢:٠٠", "002:00", "1e1:00"],
)
def test_what_is_no_time_of_day_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no time of day"):
        night_units.parse_time(text)


def test_a_name_that_no_unit_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        night_units.service_text(job("/tmp/\udcff.yaml"))


def test_crons_line_gives_the_command_its_words(tmp_path: Path) -> None:
    """As cron does it: up to the first bare %, with \\% as %, by sh."""
    words = [word for word in HOSTILE if word.isprintable()]
    script = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['X']]))"
    line = night_units.crontab_line(job("-c", script, *words, at="4:05", X="50% $off"))
    minute, hour, *every, command = line.split(" ", 5)
    assert (minute, hour, every) == ("5", "4", ["*", "*", "*"])
    assert "%" not in command.replace("\\%", "")
    done = subprocess.run(
        ["sh", "-c", command.replace("\\%", "%")], capture_output=True, check=True, cwd=tmp_path
    )
    assert json.loads(done.stdout) == [words, "50% $off"]


def test_cron_cannot_have_a_line_feed() -> None:
    with pytest.raises(UsageError, match="control characters"):
        night_units.crontab_line(job("a\nb"))


def test_the_night_of_another_state_folder_is_left_alone(tmp_path: Path) -> None:
    night_units.write_units(job(home="/tmp/a b%"), tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError) as caught:
        night_units.write_units(job(home="/tmp/b"), tmp_path)
    assert caught.value.hint == "FREEZELAB_HOME='/tmp/a b%' freezelab nightly remove"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    night_units.write_units(job(home="/tmp/a b%", at="3:00"), tmp_path)
    assert "03:00" in (tmp_path / TIMER).read_text()


def test_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MachineError, match="the units cannot be written: Not a directory"):
        night_units.write_units(job(), tmp_path / "file" / "units")


def test_units_are_removed_where_systemd_does_not_run(tmp_path: Path) -> None:
    assert night_units.remove_units(tmp_path) == []
    assert night_units.timer_state(tmp_path) is None
    night_units.write_units(job(home="/tmp/50%"), tmp_path)
    state = night_units.timer_state(tmp_path)
    assert state is not None and state.home == "/tmp/50%" and not state.running
    removed = night_units.remove_units(tmp_path)
    assert [Path(path).name for path in removed] == [TIMER, SERVICE]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "folder"),
    [("/x/config", "/x/config"), ("relative", "/x/home/.config"), ("", "/x/home/.config")],
)
def test_units_are_where_systemd_looks(monkeypatch: pytest.MonkeyPatch, variable: str, folder: str) -> None:
    monkeypatch.setenv("HOME", "/x/home")
    monkeypatch.setenv("XDG_CONFIG_HOME", variable)
    assert str(night_units.unit_folder()) == f"{folder}/systemd/user"


NOT_THERE = "Failed to look up user 0: User ID 0 is not logged in or lingering"


@pytest.mark.parametrize(
    ("script", "lingers"),
    [
        ("echo Linger=yes", True),
        ("echo Linger=no", False),
        (f"echo {NOT_THERE} >&2; exit 1", False),
        ("echo Failed to connect to bus: Host is down >&2; exit 1", None),
    ],
)
def test_logind_says_whether_nights_run_without_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, lingers: bool | None
) -> None:
    """logind's own words (src/login/logind-dbus.c); it needs a machine of its own to run."""
    (tmp_path / "loginctl").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "loginctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(night_units, "booted", lambda: True)
    assert night_units.lingers() is lingers
