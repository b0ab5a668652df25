"""Folders of runs over hosts on a host: they are left when their process has ended."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from lab.session.work_folders import PID, left, made_work_folder


def test_a_folder_is_left_when_its_process_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEZELAB_HOME", str(tmp_path))
    ours = made_work_folder("ours")
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert left(tmp_path) == []
    ended = subprocess.Popen(["true"])
    ended.wait()
    theirs, begun, old = (made_work_folder(name) for name in ("theirs", "begun", "old"))
    (theirs / PID).write_text(f"{ended.pid}\n")
    for folder in (begun, old):
        (folder / PID).unlink()
    os.utime(old, (0, 0))
    assert sorted(left(tmp_path)) == [old, theirs]
