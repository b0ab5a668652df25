"""A machine without libvirt's library or QEMU driver, in a mount namespace where they are hidden."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.process.packages import SystemPackage, listed

ROOT = Path(__file__).parents[2]
HIDDEN = """
work=$FREEZELAB_HOME/hidden
mkdir -p "$work" && mount -t tmpfs none "$work" || exit 77
mkdir "$work/upper" "$work/work"
for file in "$@"; do mknod "$work/upper/${file##*/}" c 0 0 || exit 77; done  # a whiteout
folder=${1%/*}
mount -t overlay none -o "lowerdir=$folder,upperdir=$work/upper,workdir=$work/work" "$folder" || exit 77
exec "$PYTHON" -c 'from lab.cli.entry import main; main()' "$COMMAND"
"""


def without(files: list[Path], command: str, home: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", HIDDEN, "sh", *files],
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "COMMAND": command,
            "PYTHONPATH": str(ROOT),
            "FREEZELAB_HOME": str(home),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"files cannot be hidden here: {done.stderr.strip()}")
    return done


def present(package: SystemPackage) -> list[Path]:
    return [path for pattern in package.files for path in Path("/").glob(pattern[1:])]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(
    ("package", "what"),
    [("libvirt0", "libvirt-python cannot be loaded"), ("libvirt-daemon-driver-qemu", "no connection driver")],
)
def test_what_libvirt_lacks_is_told_with_the_package(home: Path, package: str, what: str) -> None:
    [wanted] = [one for one in listed() if package in one.names["apt"]]
    files = present(wanted)
    if not files:
        pytest.skip(f"{wanted.label} is not here")
    names = wanted.names["apt"] + wanted.names["dnf"]
    for command in ("run", "doctor"):
        done = without(files, command, home)
        told = done.stderr if command == "run" else done.stdout
        assert done.returncode == 4, done.stderr
        assert "Traceback" not in done.stderr
        assert what in told
        assert any(f" {name}" in told for name in names)
    assert "ok   qemu-img" in done.stdout
    planned = without(files, "plan", home)
    assert planned.returncode == 0, planned.stderr
    assert "nothing was changed" in planned.stdout
    assert what in planned.stdout or package != "libvirt0"


@pytest.mark.parametrize("pipx", [True, False])
def test_a_wheel_without_libvirt_python_tells_how_to_add_it(home: Path, pipx: bool, tmp_path: Path) -> None:
    """The extra `guests` was left out. pipx marks its environments by a file."""
    if pipx:
        (tmp_path / "pipx_metadata.json").touch()
    source = (
        f"import sys; sys.modules['libvirt'] = None; sys.prefix = {str(tmp_path)!r}\n"
        "from lab.cli.entry import main; main()"
    )
    for command in ("up", "doctor", "plan", "recover"):
        done = subprocess.run(
            [sys.executable, "-c", source, command],
            env={**os.environ, "PYTHONPATH": str(ROOT), "FREEZELAB_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        told = done.stdout if command in ("doctor", "plan") else done.stderr
        assert "Traceback" not in done.stderr
        assert done.returncode == (0 if command == "plan" else 4)
        assert "libvirt-python is not installed" in told
        install = "pipx inject freezelab" if pipx else f"{tmp_path}/bin/pip install"
        assert f"; {install} libvirt-python" in " ".join(told.split())
        assert len(done.stderr.splitlines()) <= 2
