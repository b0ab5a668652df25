"""What thaws a guest's file systems where there is no Python: the program in each shell, on a real one
that is frozen."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from lab.errors import GuestError
from lab.guest import program
from lab.guest.shell_thaw import ShellThaw
from tests.mounts import need_namespaces
from tests.unit.shells import SHELLS, needed

if TYPE_CHECKING:
    from lab.guest.ssh import SSH

SCRIPT = """
set -e
mkdir -p {folder}/mounted
mount -o loop {folder}/disk {folder}/mounted
fsfreeze --freeze {folder}/mounted
{shell} -c "$0" <{folder}/asked || echo failed
[ -z "{after}" ] || sleep {after}
if fsfreeze --unfreeze {folder}/mounted 2>/dev/null; then echo frozen; fi
umount {folder}/mounted
"""


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest) -> str:
    return " ".join([needed(request.param[0]), *request.param[1:]])


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    need_namespaces()
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run([needed("mkfs.ext4"), "-q", str(path)], check=True)
    return path


def said(shell: str, disk: Path, asked: str, after: str = "") -> list[str]:
    (disk.parent / "asked").write_text(asked)
    script = SCRIPT.format(folder=disk.parent, shell=shell, after=after)
    text = program.shell_program("shell_thaw")
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, text],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "loop device" in done.stderr:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_it_thaws_at_once(shell: str, disk: Path) -> None:
    assert said(shell, disk, "thaw\nthaw\nend\n") == ["R", "T 1", "T 0"]


@pytest.mark.parametrize("shell", ["dash", "busybox sh"])
def test_it_thaws_by_itself_when_its_host_is_gone(shell: str, disk: Path) -> None:
    needed(shell.partition(" ")[0])
    assert said(shell, disk, "arm 9\narm 1\n", after="2") == ["R", "A", "A"]


@pytest.mark.parametrize("shell", ["dash", "busybox sh"])
def test_it_thaws_nothing_that_it_was_not_told_to(shell: str, disk: Path) -> None:
    needed(shell.partition(" ")[0])
    assert said(shell, disk, "arm 1\nend\n", after="2") == ["R", "A", "frozen"]


class HereAndNow:
    """In the place of a guest's SSH: commands run here, with a fsfreeze that has nothing to thaw."""

    def __init__(self, folder: Path) -> None:
        self._path = f"{folder}:{os.environ['PATH']}"
        (folder / "fsfreeze").write_text("#!/bin/sh\nexit 1\n")
        (folder / "fsfreeze").chmod(0o755)

    def channel(self, command: str) -> socket.socket:
        self.ours, theirs = socket.socketpair()
        environment = {**os.environ, "PATH": self._path}
        with theirs:
            number = theirs.fileno()
            self.process = subprocess.Popen(
                ["sh", "-c", command], stdin=number, stdout=number, env=environment
            )
        return self.ours


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    """A slow guest answers when nobody waits any more."""
    here = HereAndNow(tmp_path)
    with ShellThaw("slow", lambda: cast("SSH", here)) as thaw:
        here.ours.sendall(b"arm 60\n")
        assert thaw.thaw() == 0
    here.process.wait(20)
    with pytest.raises(GuestError, match="no fsfreeze"):
        thaw.thaw()


def test_a_guest_without_fsfreeze(shell: str, tmp_path: Path) -> None:
    text = program.shell_program("shell_thaw").replace("fsfreeze", "fsfreeze-is-not-there")
    done = subprocess.run([*shell.split(), "-c", text], input="", capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("E\n", "")
