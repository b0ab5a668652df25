"""What `doctor` finds out by trying."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.core.machine_check import MachineCheck
from lab.report.listings import render_checks
from lab.session import checks
from tests.unit.kept_guest import console_of

ROOT = Path(__file__).parents[2]


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("newuidmap", "unshare", "ok", "said"),
    [
        (False, "exit 0", False, "newuidmap is missing"),
        (True, "echo unshare: unshare failed: Operation not permitted >&2; exit 1", False, "not permitted"),
        (True, "exit 0", True, "available"),
    ],
)
def test_user_namespaces_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newuidmap: bool, unshare: str, ok: bool, said: str
) -> None:
    if newuidmap:
        program(tmp_path, "newuidmap", "exit 0")
    program(tmp_path, "unshare", unshare)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = checks._user_namespaces()
    assert found.ok is ok
    assert said in found.result
    assert bool(found.fix) is not ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_subordinate_ids_has_none() -> None:
    """That newuidmap is there says nothing."""
    code = "from lab.session.checks import _user_namespaces as found; print(found().ok, found().result)"
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Permission denied" in done.stderr or "No module named" in done.stderr:
        pytest.skip("the clone is below a folder that only root may enter")
    assert done.stdout.startswith("False "), done.stderr
    assert "image builds need root" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a process namespace by itself")
def test_process_1_is_no_init() -> None:
    code = "from lab.session.checks import _init; print([(one.ok, one.name) for one in _init()])"
    command = [sys.executable, "-c", code]
    inside = ["unshare", "--pid", "--fork", "--kill-child", *command]
    no_init = f"import subprocess; subprocess.run({command!r})"  # waits for its own children alone
    below = [*inside[:4], "--mount-proc", sys.executable, "-c", no_init]
    for argv, expected in ((command, "[]"), (inside, "[(False, 'init')]"), (below, "[(None, 'init')]")):
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.stdout.strip(), done.stderr) == (expected, "")


def test_what_corrects_several_checks_is_shown_once() -> None:
    """A machine without libvirt and QEMU fails six checks, and one command installs both."""
    console, out = console_of(60)
    lacking = [MachineCheck(name, False, "missing", "apt-get install both") for name in ("qemu", "libvirt")]
    render_checks([*lacking, MachineCheck("chronyd", None, "missing", "apt-get install chrony")], console)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines == [
        "BAD  qemu     missing",
        "              fix: apt-get install both",
        "BAD  libvirt  missing",
        "note chronyd  missing",
        "              fix: apt-get install chrony",
        "",
        "2 of 3 checks failed",
    ]
