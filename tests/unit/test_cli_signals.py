"""Signals that come before a command has begun its work, and while it does what has nothing to undo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import main
from lab.session import checks, recovery

ROOT = Path(__file__).parents[2]
SLOW = """
import pathlib, time
pathlib.Path({there!r}).touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_among_the_imports_is_an_interrupt_without_a_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    there = tmp_path / "importing"
    (tmp_path / "typer.py").write_text(SLOW.format(there=str(there)))
    with subprocess.Popen(
        [sys.executable, "-c", "from lab.cli.entry import main; main()", "doctor"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 60
        while not there.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        _out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("command", "module", "does"), [("doctor", checks, "examine"), ("recover", recovery, "recover_all")]
)
def test_a_signal_in_a_command_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, command: str, module: object, does: str, number: signal.Signals
) -> None:
    monkeypatch.setattr(module, does, lambda *_a, **_k: signal.raise_signal(number))
    done = CliRunner().invoke(main.app, [command])
    assert (done.exit_code, done.output) == (130, f"freezelab: interrupted by {number.name}\n")
