"""A systemd in namespaces of its own, as init or as a user's, and a test's program as one of its services."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMD = "/lib/systemd/systemd"
UP_S, DONE_S = 40, 90

# cgroups are mounted anew, so that systemd sees only the one that it is given. It can neither set the
# clock nor reboot, nor write into /proc/sys.
INSIDE = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/systemd/user /run/lock /run/u
chmod 700 /run/u
cp "$UNITS"/* "/run/systemd/$SCOPE"
umount -R -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --bind "$LOG" /dev/console
mount --bind /dev/null /dev/kmsg
export container=lab HOME=/run/u XDG_RUNTIME_DIR=/run/u SYSTEMD_LOG_LEVEL=info SYSTEMD_LOG_TARGET=console
tame="setpriv --bounding-set=-sys_time,-sys_boot,-sys_module"
if [ "$SCOPE" = system ]; then
    exec $tame "$SYSTEMD" --system --unit=trial.target
fi
# Not exec: a user's systemd is nobody's init.
$tame "$SYSTEMD" --user --unit=trial.target
"""

SERVICE = "[Unit]\nDefaultDependencies=no\n{unit}[Service]\n{service}"


TRIAL = "trial.service"
"""The test's own service."""


def service(text: str, unit: str = "") -> str:
    """A unit file that needs nothing else of the system."""
    return SERVICE.format(unit=unit, service=text)


@contextlib.contextmanager
def cgroup() -> Iterator[Path]:
    """A cgroup of this test's own, removed with all that systemd makes in it."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    unified = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    ours = next(
        (line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), ""
    )
    if unified is None:
        pytest.skip("no cgroup2 file system is mounted")
    folder = unified / ours.strip("/") / f"freezelab-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        yield folder
    finally:
        until = time.monotonic() + 10
        while folder.exists():
            for each in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    each.rmdir()
            try:
                folder.rmdir()
            except OSError:
                assert time.monotonic() < until, "something of systemd's is left"
                time.sleep(0.05)


def appears(path: Path, within_s: float, child: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > until or child.poll() is not None:
            return path.exists()
        time.sleep(0.05)
    return True


def outcome_of(
    scope: str,
    program: Path,
    folder: Path,
    arguments: Sequence[str] = (),
    others: Mapping[str, str] | None = None,
    left: Sequence[str] = (),
) -> dict[str, Any]:
    """What `program SCOPE OUTPUT ARGUMENTS…` wrote by `report`, as a service of a systemd. Skips where there
    can be none. others: unit files of other services, by name, which are started before, but for those in
    `left`."""
    others = others or {}
    started = [name for name in others if name not in left]
    if os.geteuid() != 0:
        pytest.skip("only root can make the namespaces")
    for needed in (SYSTEMD, "unshare", "setpriv", "systemctl"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")
    output, log = folder / "output.json", folder / "log"
    log.touch()
    (folder / "units").mkdir()
    command = " ".join([sys.executable, str(program), scope, str(output), *arguments])
    path = f"Environment=PYTHONPATH={ROOT} PYTHONDONTWRITEBYTECODE=1\nExecStart={command}\n"
    trial = service(path) + f"\n[Unit]\nAfter={' '.join(started)}\n"
    target = f"[Unit]\nDefaultDependencies=no\nWants={TRIAL} {' '.join(started)}\n"
    (folder / "units" / TRIAL).write_text(trial)
    (folder / "units" / "trial.target").write_text(target)
    for name, text in others.items():
        (folder / "units" / name).write_text(text)
    env = {**os.environ, "UNITS": str(folder / "units"), "SCOPE": scope, "LOG": str(log)}
    env |= {"SYSTEMD": SYSTEMD, "INSIDE": INSIDE}
    apart = "unshare --mount --uts --ipc --net --pid --cgroup --fork --mount-proc --kill-child"
    with cgroup() as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec {apart} -- sh -c "$INSIDE"'
        with log.open("ab") as out:
            child = subprocess.Popen(
                ["sh", "-c", enter], env=env, stdout=out, stderr=out, start_new_session=True
            )
        try:
            if not appears(output.with_suffix(".begun"), UP_S, child):
                pytest.skip(f"systemd starts no service here: {log.read_text(errors='replace')[-300:]!r}")
            assert appears(output, DONE_S, child), log.read_text(errors="replace")[-3000:]
        finally:
            child.kill()
            child.wait()
    found: dict[str, Any] = json.loads(output.read_text())
    assert "error" not in found, found["error"]
    return found


def report(look: Callable[[], dict[str, Any]]) -> None:
    """For the program in there: write what `look` returns, or its traceback, to OUTPUT."""
    output = Path(sys.argv[2])
    output.with_suffix(".begun").touch()
    try:
        seen = look()
    except BaseException:  # noqa: BLE001 - the test shows it
        seen = {"error": traceback.format_exc()}
    output.with_suffix(".part").write_text(json.dumps(seen))
    output.with_suffix(".part").replace(output)
