"""Standard output that takes nothing, standard error that takes nothing, and streams that are closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from lab.cli import main, running, streams
from lab.errors import Interrupted
from lab.session import run
from lab.session.run import RunStopped

ROOT = Path(__file__).parents[2]
LOST = "freezelab: the results cannot be written to standard output: {why}\n"
PRINTING = [
    "--help",
    "--version",
    "run --help",
    "history",
    "schema playbook",
    "plan first-freeze",
    "list --json",
]


def freezelab(home: Path, command: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """The real command, its streams as a shell redirects them."""
    line = f'"{sys.executable}" -m lab.cli.main {command} {redirected}'
    return subprocess.run(
        ["sh", "-c", line],
        cwd=ROOT,
        env={**os.environ, "FREEZELAB_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", PRINTING)
def test_a_full_standard_output(tmp_path: Path, command: str) -> None:
    done = freezelab(tmp_path, command, ">/dev/full")
    assert (done.returncode, done.stderr) == (4, LOST.format(why="No space left on device"))


@pytest.mark.parametrize("command", ["--version", "history"])
def test_a_closed_standard_output(tmp_path: Path, command: str) -> None:
    done = freezelab(tmp_path, command, "<&- >&-")
    assert (done.returncode, done.stderr) == (4, LOST.format(why="Bad file descriptor"))


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", "<&- 2>&-"])
def test_a_standard_error_that_takes_nothing_changes_no_exit_code(tmp_path: Path, redirected: str) -> None:
    assert freezelab(tmp_path, "check first-freeze no-such-playbook", redirected).returncode == 2
    done = freezelab(tmp_path, "check first-freeze", redirected)
    assert (done.returncode, done.stdout) == (0, "first-freeze: valid (first-freeze)\n")


def test_a_reader_that_has_left_is_no_failure(tmp_path: Path) -> None:
    assert freezelab(tmp_path, "schema playbook", "| true").stderr == ""


def test_a_run_that_was_stopped_ends_so_also_when_nobody_takes_its_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A terminal that is closed: SIGHUP, and then every write to it fails."""
    guests = [SimpleNamespace(cycles=(1,))]

    def hung_up(*_: object) -> None:
        raise RunStopped(
            Interrupted("interrupted by SIGHUP"), cast(Any, SimpleNamespace(guests=guests)), tmp_path, 130
        )

    def lost(*_: object, **__: object) -> None:
        raise streams.Undelivered(5, "Input/output error")

    monkeypatch.setattr(run, "perform", hung_up)
    monkeypatch.setattr(running, "show", lost)
    monkeypatch.setattr(streams, "silence_stdout", lambda: None)
    done = CliRunner().invoke(main.app, ["run", "-q"])
    assert done.exit_code == 130
