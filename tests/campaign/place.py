"""A case's own place, inside namespaces that worker.py has made: a state folder and a cache in memory,
/dev/shm, a network; and what can be done to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.campaign.cases import Target

ROOT = Path("/tmp/flc")
"""The same for all cases: each sees its own, as mounts of namespaces are its own."""

HOME = ROOT / "home"
RUNS = HOME / "runs"
CACHE = ROOT / "cache"
READ_ONLY = ROOT / "read-only"
SHM = Path("/dev/shm")
FOLDERS = {Target.STATE: HOME, Target.RUNS: RUNS, Target.SHM: SHM}
BRIDGE, HOST, GUEST = "br0", "10.77.0.1/24", "10.77.0.10/24"
_KEPT = ("accelerator.json", "keys", "libvirt/cache", "tools")
"""Of a state folder, what a later run is quicker with."""


def run(*words: str) -> None:
    """A command that has to work."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def make(work: Path, real_cache: Path) -> None:
    """Everything, empty but for what was learnt once (work/home) and made once (work/golden): what is written
    to that stays here. Images are the machine's own."""
    ROOT.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=1g,mode=700", "none", str(ROOT))
    run("mount", "-t", "tmpfs", "-o", "size=640m", "none", str(SHM))
    for folder in (HOME, CACHE / "golden", CACHE / "images", ROOT / "upper", ROOT / "work", work / "golden"):
        folder.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=640m,mode=700", "none", str(HOME))
    RUNS.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=512m,mode=700", "none", str(RUNS))
    folders = f"lowerdir={work / 'golden'},upperdir={ROOT / 'upper'},workdir={ROOT / 'work'}"
    run("mount", "-t", "overlay", "-o", folders, "none", str(CACHE / "golden"))
    run("mount", "--bind", str(real_cache / "images"), str(CACHE / "images"))
    for name in _KEPT:
        source = work / "home" / name
        if source.is_dir():
            shutil.copytree(source, HOME / name, symlinks=True)
        elif source.exists():
            shutil.copy2(source, HOME / name)
    run("ip", "link", "set", "lo", "up")


def keep(work: Path) -> None:
    """What this place has learnt and made, for later ones."""
    shutil.rmtree(work / "home", ignore_errors=True)
    for name in _KEPT:
        source, target = HOME / name, work / "home" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.exists():
            shutil.copy2(source, target)
    shutil.copytree(ROOT / "upper", work / "golden", symlinks=True, dirs_exist_ok=True)


def environment() -> dict[str, str]:
    """Of the commands that are run here."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FREEZELAB_")}
    return {**plain, "FREEZELAB_HOME": str(HOME), "FREEZELAB_CACHE": str(CACHE), "TERM": "xterm-256color"}


class Spoiled:
    """A folder whose file system is full, or takes nothing new. `mend` takes it back."""

    def __init__(self, folder: Path, action: str) -> None:
        self._folder, self._full = folder, action == "full"
        self._filler = folder / ".filler"
        if self._full:
            self._fill()
        else:
            # Over it, for it has files open for writing: what is opened from now on is refused. With what is
            # mounted below, and made read-only where nobody can have opened anything yet.
            READ_ONLY.mkdir(exist_ok=True)
            run("mount", "--rbind", str(folder), str(READ_ONLY))
            run("mount", "-o", "remount,bind,ro", str(READ_ONLY))
            run("mount", "--rbind", str(READ_ONLY), str(folder))

    def _fill(self) -> None:
        handle = os.open(self._filler, os.O_WRONLY | os.O_CREAT)
        try:
            for piece in (1 << 20, 1 << 12):
                facts = os.fstatvfs(handle)
                size = os.fstat(handle).st_size
                whole = facts.f_bavail * facts.f_frsize // piece * piece
                with contextlib.suppress(OSError):
                    os.posix_fallocate(handle, size, whole)
        finally:
            os.close(handle)

    def mend(self) -> None:
        if self._full:
            self._filler.unlink(missing_ok=True)
        else:
            run("umount", "--lazy", str(self._folder))
            run("umount", "--lazy", str(READ_ONLY))


def left_in_memory() -> list[str]:
    """Files below /dev/shm that no run should leave: libvirt's empty folders are none."""
    fine = {"driver.pid", "autostarted", "reserve"}
    return [str(path) for path in SHM.rglob("*") if not path.is_dir() and path.name not in fine]


def left_in_home() -> list[str]:
    """Of guests, in the state folder."""
    found = []
    for name in ("guests", "agents", "saved", "doors"):
        folder = HOME / name
        if folder.is_dir():
            found += [str(path.relative_to(HOME)) for path in folder.iterdir()]
    return found


def left_of_cgroups() -> list[str]:
    """libvirt's, of the runs here: the machine's cgroups are no namespace's."""
    runs = [path.name for path in RUNS.iterdir()]
    machine = Path("/sys/fs/cgroup")
    there = [*machine.glob("machine*/*"), *machine.glob("*/machine*/*")]
    return [str(path) for path in there if any(f"freezelab-{run}" in path.name for run in runs)]


def left_in_network() -> list[str]:
    """The lab's taps, listening TCP sockets, and Unix sockets with a path here."""
    found = [name for name in os.listdir("/sys/class/net") if name.startswith("fl")]  # noqa: PTH208
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            found.append(f"TCP port {int(fields[1].split(':')[1], 16)}")
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        path = line.split()[7:]
        if path and path[0].startswith(str(ROOT)):
            found.append(path[0])
    return found
