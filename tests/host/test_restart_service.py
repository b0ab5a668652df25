"""Services restarted by a real systemd, which runs in namespaces of its own: as init, and as a user's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.core.patch import RestartServicePatch, UnitScope
from lab.errors import MachineError
from lab.host import patches
from lab.host.patches import systemd
from lab.ports import HostPatch
from lab.process.clock import HostClock

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


def units(command: str, flag: Path) -> dict[str, str]:
    sleeps = "ExecStart=/bin/sleep 1000\n"
    plain = {
        "steady": sleeps,
        "down": sleeps,
        "remains": "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
        "slow": f"{sleeps}ExecStop=/bin/sleep 3\n",
        "fragile": f"ExecStartPre=/usr/bin/test -e {flag}\n{sleeps}",
        "trial": f"Environment=PYTHONPATH={ROOT} PYTHONDONTWRITEBYTECODE=1\nExecStart={command}\n",
    }
    made = {f"{name}.service": SERVICE.format(unit="", service=text) for name, text in plain.items()}
    made["locked.service"] = SERVICE.format(unit="RefuseManualStop=yes\n", service=sleeps)
    started = [name for name in made if name not in ("down.service", "trial.service")]
    made["trial.target"] = f"[Unit]\nDefaultDependencies=no\nWants=trial.service {' '.join(started)}\n"
    made["trial.service"] += f"\n[Unit]\nAfter={' '.join(started)}\n"
    return made


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


@pytest.fixture(scope="module", params=list(UnitScope))
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What restart_service_inside.py saw."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the namespaces")
    for needed in (SYSTEMD, "unshare", "setpriv", "systemctl"):
        if not shutil.which(needed):
            pytest.skip(f"{needed} is not installed")
    scope: UnitScope = request.param
    folder = tmp_path_factory.mktemp(scope)
    output, flag, log = folder / "output.json", folder / "flag", folder / "log"
    flag.touch()
    log.touch()
    (folder / "units").mkdir()
    program = Path(__file__).with_name("restart_service_inside.py")
    for name, text in units(f"{sys.executable} {program} {scope} {output} {flag}", flag).items():
        (folder / "units" / name).write_text(text)
    env = {**os.environ, "UNITS": str(folder / "units"), "SCOPE": scope, "LOG": str(log)}
    env |= {"SYSTEMD": SYSTEMD, "INSIDE": INSIDE}
    apart = "unshare --mount --uts --ipc --net --pid --cgroup --fork --mount-proc --kill-child"
    with cgroup() as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec {apart} -- sh -c "$INSIDE"'
        with log.open("ab") as out:
            child = subprocess.Popen(
                ["sh", "-c", enter],
                env=env,
                stdout=out,
                stderr=out,
                start_new_session=True,
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


def appears(path: Path, within_s: float, child: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > until or child.poll() is not None:
            return path.exists()
        time.sleep(0.05)
    return True


def test_another_process_runs_the_service(seen: dict[str, Any]) -> None:
    for each in seen["steady"]:
        assert each["ok"], each
        assert each["steps"] == ["restart steady.service", "main process"]
        first, second = each["pids"]
        assert 0 != first != second != 0
        assert f"process {first}, " in each["facts"]["before"]
        assert f"process {second}, " in each["facts"]["after"]
        assert each["verdict"] == ""
        assert each["idle"].startswith(f"it still has the same main process: process {first}, ")


def test_what_cannot_be_restarted_is_refused_in_a_line(seen: dict[str, Any]) -> None:
    assert seen["refusals"] == {
        "steady": "",
        "nosuch": "no such service (not-found)",
        "down": "is inactive, not active (dead)",
        "remains": "has no main process (exited)",
        "locked": "its unit refuses a manual restart",
        "trial": "freezelab itself runs in it: a restart would end the run",
    }


def test_a_slow_restart_is_left_at_the_deadline(seen: dict[str, Any]) -> None:
    slow = seen["slow"]
    assert not slow["ok"]
    assert slow["why"].startswith("systemd has not finished after ")
    assert slow["took_ns"] < 2_000_000_000
    assert slow["undone"] == ""  # systemd went on with it
    assert slow["pids"][0] != slow["pids"][1] != 0


def test_a_service_that_stays_down_fails_and_is_started_again(seen: dict[str, Any]) -> None:
    fragile = seen["fragile"]
    assert not fragile["ok"]
    assert fragile["why"].startswith("systemctl restart: Job for fragile.service failed")
    assert fragile["verdict"] == "fragile.service is not active, or has no main process"
    assert fragile["refusal"] == "is failed, not active (failed)"
    assert fragile["not undone"].startswith(
        "restart-service fragile.service: not undone: systemctl start: Job for "
    )
    assert fragile["undone"].startswith("fragile.service: started again in ")
    assert fragile["runs"]
    assert fragile["undone twice"] == ""


def test_a_machine_without_systemd(refusal: Callable[[HostPatch], MachineError]) -> None:
    if systemd.booted() or not shutil.which("systemctl"):
        pytest.skip("systemd is this machine's init, or is not installed")
    patch = patches.make(RestartServicePatch("cron.service"), HostClock())
    assert refusal(patch).what == "systemd is not this machine's init: there is no service to restart"
    assert patch.version("") == ""
    assert not patch.apply(HostClock().now().raw_ns + 10**9).ok
    assert patch.undo() == ""


def test_a_user_without_a_systemd_of_their_own(
    refusal: Callable[[HostPatch], MachineError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("systemctl"):
        pytest.skip("systemctl is not installed")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    error = refusal(patches.make(RestartServicePatch("cron.service", UnitScope.USER), HostClock()))
    assert error.what.startswith("systemd does not answer: ")
    assert "XDG_RUNTIME_DIR" in error.hint
