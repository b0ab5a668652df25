"""Linters are tests: what is missing skips on a laptop and fails where CI declares it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Tools:
    """Finds linters and runs them on the clone."""

    def missing(self, name: str) -> None:
        if os.environ.get("CI") == "true" or os.environ.get("FREEZELAB_REQUIRE") == "1":
            pytest.fail(f"{name} is not installed, and it is required here", pytrace=False)
        pytest.skip(f"{name} is not installed")

    def find(self, name: str) -> list[str]:
        # The virtual environment need not be activated, so its folder may not be on PATH.
        beside = Path(sys.executable).parent / name
        if beside.exists():
            # A script's first line still names the old place after the clone was moved.
            script = beside.read_bytes()[:2] == b"#!"
            return [sys.executable, str(beside)] if script else [str(beside)]
        found = shutil.which(name)
        if not found:
            self.missing(name)
        return [str(found)]

    def check(self, argv: Sequence[str | Path]) -> None:
        name, *rest = map(str, argv)
        command = [*self.find(name), *rest]
        # The lab's own settings, not the caller's: CI asks some linters to be chatty.
        environment = {
            key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "PYTHONPATH"}
        }
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment | {"NO_COLOR": "1", "VAGRANT_CHECKPOINT_DISABLE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{shlex.join([name, *rest])}\n{done.stdout}{done.stderr}", pytrace=False)


@pytest.fixture
def tools() -> Tools:
    return Tools()


@pytest.fixture(scope="session")
def own_files() -> list[Path]:
    """The clone's own files: all but what .gitignore names. Asks no git: CI may work on an export."""
    ignored = [
        ".git",
        *(line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()),
    ]
    found = []
    for folder, folders, files in os.walk(ROOT):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if not any(fnmatch(name, pattern) for pattern in ignored)
            and not (here / name / "pyvenv.cfg").exists()
        ]
        found += [here / name for name in files if not any(fnmatch(name, pattern) for pattern in ignored)]
    return sorted(path for path in found if path.is_file())
