"""What is asked of a guest's shell, asked of this machine's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.guest.ssh import Result
from lab.guest.survey import survey

SHELLS = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
SHELLS += [[path, "sh"] for name in ("busybox",) if (path := shutil.which(name))]


class HereShell:
    """An SSH connection to this machine, as far as a survey needs one. path: PATH there."""

    def __init__(self, shell: list[str], path: str) -> None:
        self._shell, self._path = shell, path

    def run(self, command: str, _timeout_s: float, stdin: bytes = b"") -> Result:
        done = subprocess.run(
            [*self._shell, "-c", command],
            env={"PATH": self._path}, input=stdin.decode(), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    def check(self, command: str, timeout_s: float, stdin: bytes = b"") -> str:
        result = self.run(command, timeout_s, stdin)
        assert (result.status, result.err) == (0, "")
        return result.out


def looked_at(shell: list[str], path: str) -> dict[str, str]:
    here: Any = HereShell(shell, path)
    return survey(here)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: Path(shell[0]).name)
def test_it_finds_what_is_here(shell: list[str]) -> None:
    found = looked_at(shell, os.environ["PATH"])
    assert found["kernel"] == os.uname().release
    assert found["init"] == Path("/proc/1/comm").read_text().strip()
    assert found["python3"].startswith(f"{sys.version_info[0]}.")
    assert ("systemd" in found) == Path("/run/systemd/system").is_dir()
    assert found.get("hwclock") == shutil.which("hwclock", path="/usr/sbin:/sbin:/usr/bin:/bin")


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    """A system with next to no programs, and one that is called as the agent is."""
    for name in ("uname", "cat", "grep", "head", "sleep"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    agent = tmp_path / "qemu-ga"
    shutil.copy2(shutil.which("sleep") or "sleep", agent)
    running = subprocess.Popen([agent, "60"])
    try:
        found = looked_at([shutil.which("dash") or "/bin/sh"], str(tmp_path))
    finally:
        running.kill()
        running.wait()
    assert found["agent"] == f"/proc/{running.pid}/comm"
    assert "curl" not in found or shutil.which("curl", path="/usr/sbin:/sbin:/usr/local/sbin")
    assert "clocksource" in found
