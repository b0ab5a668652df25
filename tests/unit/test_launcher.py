"""The launcher without its environment: a set-up that fails, and uninstall. In a clone of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import night_units
from lab.host.night_units import NightJob
from lab.hypervisor import memory as ram

ROOT = Path(__file__).parents[2]
FILES = (
    "freezelab",
    "pyproject.toml",
    "requirements.lock",
    "requirements-build.lock",
    "lab/cli/uninstall.sh",
    "lab/process/packages.txt",
)


class Clone:
    """As much of the project as the launcher reads, and folders of its own. Their names are not plain."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "the clone"
        for name in FILES:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.venv, self.home, self.cache = self.root / ".venv", folder / "höme", folder / "cache, all"
        chronyd = self.home / "tools/chrony/usr/sbin/chronyd"  # or set-up would fetch one
        chronyd.parent.mkdir(parents=True)
        chronyd.write_text("#!/bin/sh\n")
        chronyd.chmod(0o755)

    def environment(self) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("FREEZELAB", "PIP_"))}
        return {**plain, "FREEZELAB_HOME": str(self.home), "FREEZELAB_CACHE": str(self.cache)}

    def start(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "freezelab", *arguments],
            env={**self.environment(), **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def fill(self) -> None:
        """As after some runs."""
        for name in ("runs/1", "guests", "keys", "libvirt/run/qemu", "saved"):
            (self.home / name).mkdir(parents=True)
        for name in ("calibration.json", ".calibration.json.new", ".accelerator-k2x9"):
            (self.home / name).write_text("{}")
        (self.cache / "images").mkdir(parents=True)
        self.venv.mkdir()
        (self.venv / ".lock").touch()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


def test_nothing_half_made_is_kept(clone: Clone, nobody: str) -> None:
    offline = {"PIP_INDEX_URL": nobody, "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    for _ in range(2):
        done = clone.start("history", **offline)
        assert done.returncode == 4, done.stderr
        assert "installing the build tools (the first set-up needs the network) failed" in done.stderr
        assert "the partial set-up was removed" in done.stderr
        assert sorted(path.name for path in clone.venv.iterdir()) == [".lock", "setup.log"]
        assert done.stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_half_made_is_kept_when_it_is_interrupted(clone: Clone, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with subprocess.Popen(
            [clone.root / "freezelab", "history"],
            env={**clone.environment(), "PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as started:
            silent.settimeout(200)
            asking, _ = silent.accept()  # pip asks, and gets no answer
            os.killpg(started.pid, number)
            _, told = started.communicate(timeout=200)
            asking.close()
    assert started.returncode == 130, told
    assert b"the partial set-up was removed" in told
    assert sorted(path.name for path in clone.venv.iterdir()) == [".lock", "setup.log"]


def test_uninstall_removes_what_is_the_labs_and_nothing_else(clone: Clone) -> None:
    clone.fill()
    (clone.home / "my notes").write_text("")
    memory = Path("/dev/shm") / f"freezelab-{os.geteuid()}-test-{os.getpid()}"
    memory.mkdir(mode=0o700)
    (clone.home / "libvirt/run/qemu").rmdir()
    (clone.home / "libvirt/run").rmdir()
    (clone.home / "libvirt/run").symlink_to(memory)
    session = clone.home / "pytest/main"
    (session / "libvirt").mkdir(parents=True)
    shared = ram.folder(clone.home), ram.folder(session)
    (clone.venv / ".installed").write_text("packages gcc mmdebstrap\nuser libvirt-qemu\n")
    refused = clone.start("uninstall")
    assert refused.returncode == 4
    assert "nothing was removed; to confirm:" in refused.stderr
    assert (clone.home / "runs/1").is_dir()
    done = clone.start("uninstall", "--yes")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [path.name for path in clone.home.iterdir()] == ["my notes"]
    assert not clone.cache.exists()
    assert not clone.venv.exists()
    assert not memory.exists()
    assert not any(path.exists() for path in shared)
    assert f"left, because it has other files: {clone.home}" in done.stderr
    assert "apt-get purge gcc mmdebstrap" in done.stderr or "dnf remove gcc mmdebstrap" in done.stderr
    assert "userdel libvirt-qemu" in done.stderr
    again = clone.start("uninstall", "--yes")
    assert again.returncode == 0
    assert "there is nothing of freezelab but the clone" in again.stderr


def test_an_environment_that_set_up_did_not_make_is_left(clone: Clone) -> None:
    clone.fill()
    (clone.venv / ".lock").unlink()
    (clone.venv / "mine").touch()
    assert clone.start("uninstall", "--yes").returncode == 0
    assert (clone.venv / "mine").exists()
    assert not clone.home.exists()


@pytest.mark.parametrize("ours", [True, False])
def test_uninstall_removes_the_night_of_its_own_state_folder(
    clone: Clone, tmp_path: Path, ours: bool
) -> None:
    clone.home = tmp_path / '50% \\of "it"'
    clone.fill()
    units = tmp_path / "config/systemd/user"
    home = str(clone.home if ours else clone.home / "other")
    night_units.write_units(NightJob(2, 0, (sys.executable, "x"), {night_units.HOME: home}), units)
    wanted = units / "timers.target.wants"
    wanted.mkdir()
    (wanted / night_units.TIMER).symlink_to(units / night_units.TIMER)
    (units / "other.service").touch()
    done = clone.start("uninstall", "--yes", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert done.returncode == 0, done.stderr
    left = {path.name for path in units.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert left == {"other.service"} | (set() if ours else {night_units.TIMER, night_units.SERVICE})


def test_uninstall_waits_for_nobody(clone: Clone) -> None:
    clone.fill()
    lock = clone.home / "libvirt/lock"
    lock.write_text(f"{os.getpid()}\n")
    with lock.open("r+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        done = clone.start("uninstall", "--yes")
    assert done.returncode == 4
    assert f"another freezelab (pid {os.getpid()}) uses {clone.home}" in done.stderr
    assert (clone.home / "runs/1").is_dir()


def test_guests_that_run_keep_everything(clone: Clone, tmp_path: Path) -> None:
    clone.fill()
    emulator = tmp_path / "qemu-system-x86_64"
    emulator.symlink_to("/bin/sleep")
    with subprocess.Popen([emulator, "60"]) as guest:
        (clone.home / "libvirt/run/qemu/guest.pid").write_text(f"{guest.pid}")
        done = clone.start("uninstall", "--yes")
        guest.kill()
    assert done.returncode == 4
    assert f"still running (QEMU pid {guest.pid} )" in done.stderr
    assert (clone.home / "runs/1").is_dir()


def test_uninstall_takes_no_other_words(clone: Clone) -> None:
    done = clone.start("uninstall", "--please")
    assert (done.returncode, done.stderr) == (2, "freezelab: usage: freezelab uninstall [--yes]\n")


def test_tests_in_the_lab_host_are_a_command_of_freezelab(clone: Clone) -> None:
    python = clone.venv / "bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    files = [str(clone.root / name) for name in ("freezelab", "lab/process/packages.txt", "pyproject.toml")]
    files += [str(clone.root / name) for name in ("requirements-build.lock", "requirements.lock")]
    stamp = subprocess.run(["cksum", *files], capture_output=True, text=True, check=True).stdout
    (clone.venv / ".stamp").write_text(stamp)
    done = clone.start("test", "--on", "labhost", "tests/guest/test_ssh.py", "-x")
    assert done.stdout == f"{clone.venv}/bin/freezelab|labhost|test|tests/guest/test_ssh.py|-x|", done.stderr
