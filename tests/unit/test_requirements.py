"""The list of packages, and what a machine without them is told; driver/test_missing_library.py: libvirt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.process.packages import listed

ROOT = Path(__file__).parents[2]


def started(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with no other program on PATH than those in `folder`/bin, and a cache without images."""
    places = {"FREEZELAB_HOME": str(folder / "home"), "FREEZELAB_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", "from lab.cli.entry import main; main()", *arguments],
        env={**os.environ, **places, "PATH": str(folder / "bin"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def only(folder: Path, *programs: str) -> None:
    (folder / "bin").mkdir()
    for program in programs:
        (folder / "bin" / program).symlink_to("/bin/true")


INSTALLS = (
    ("apt-get", "apt-get install --no-install-recommends qemu-system-x86 qemu-utils mmdebstrap"),
    ("dnf", "dnf install --setopt=install_weak_deps=False qemu-system-x86-core qemu-img mmdebstrap"),
    ("true", "install what contains: qemu-system-x86_64, qemu-img, mmdebstrap"),
)


@pytest.mark.parametrize(("manager", "told"), INSTALLS)
@pytest.mark.parametrize("command", ["run", "up", "calibrate"])
def test_what_is_missing_is_told_in_two_lines_before_anything_is_made(
    tmp_path: Path, command: str, manager: str, told: str
) -> None:
    only(tmp_path, manager)
    done = started(tmp_path, command)
    first, second = done.stderr.splitlines()[-2:]
    assert done.returncode == 4, done.stderr
    assert first.startswith("freezelab: not installed: qemu-system-x86_64, qemu-img, mmdebstrap")
    assert second.removeprefix("sudo ").startswith(told)
    assert not (tmp_path / "cache").exists()
    assert not list((tmp_path / "home").glob("runs/*"))


def test_doctor_and_plan_list_what_is_missing(tmp_path: Path) -> None:
    only(tmp_path, "apt-get", "qemu-img")
    checked = started(tmp_path, "doctor")
    assert checked.returncode == 4
    assert "BAD  qemu-system-x86_64" in checked.stdout
    assert "ok   qemu-img" in checked.stdout
    assert "apt-get install --no-install-recommends qemu-system-x86 mmdebstrap" in checked.stdout
    planned = started(tmp_path, "plan")
    assert planned.returncode == 0
    assert "not installed: qemu-system-x86_64, mmdebstrap" in planned.stdout


def test_the_launcher_installs_what_the_list_says() -> None:
    """Read by the launcher's own function, for each kind of distribution."""
    text = (ROOT / "freezelab").read_text(encoding="utf-8")
    function = text[text.index("listed() {") : text.index("\n}\n", text.index("listed() {")) + 3]
    for system in ("apt", "dnf"):
        script = f"system={system} list={ROOT}/lab/process/packages.txt\n{function}\nlisted"
        shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=20)
        assert shown.stdout.split() == [
            name for package in listed() if package.stage != "ssh" for name in package.names[system]
        ]


def test_every_line_of_the_list_is_whole() -> None:
    assert len(listed()) > 12
    for package in listed():
        assert package.purpose.startswith(("to ", "for "))
        assert all(package.names.values())
        assert not package.program or len(package.program.split()) == 1
