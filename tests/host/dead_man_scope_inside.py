"""Runs as a service of a user's systemd (systemd_lab.py). Has it start another service, a controller with a
dead-man, and kill all that is in that service.

    dead_man_scope_inside.py user OUTPUT
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.host.systemd_lab import report

CONTROLLER = """
import signal, sys
from pathlib import Path
from lab.hypervisor.deadman.client import DeadMan
man = DeadMan()
man.start()
Path(sys.argv[1]).write_text(str(man._process.pid))
signal.pause()
"""
PATIENCE_S = 60


def wait_for(path: Path) -> str:
    until = time.monotonic() + PATIENCE_S
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"no {path.name}"
        time.sleep(0.05)
    return path.read_text()


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip()


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def look() -> dict[str, Any]:
    told = Path(sys.argv[2]).with_suffix(".pid")
    environment = [
        f"--setenv={name}={os.environ[name]}" for name in ("PYTHONPATH", "XDG_RUNTIME_DIR", "PATH")
    ]
    subprocess.run(
        [
            "systemd-run",
            "--user",
            "--unit=controller",
            *environment,
            sys.executable,
            "-c",
            CONTROLLER,
            str(told),
        ],
        check=True,
    )
    pid = int(wait_for(told))
    until = time.monotonic() + PATIENCE_S
    while not cgroup_of(pid).endswith(".scope") and time.monotonic() < until:
        time.sleep(0.05)
    where = cgroup_of(pid)
    # Or it would end by itself when its controller is gone, for it guards nothing.
    os.kill(pid, signal.SIGSTOP)
    subprocess.run(["systemctl", "--user", "kill", "--signal=KILL", "controller.service"], check=True)
    active = ["systemctl", "--user", "--quiet", "is-active", "controller"]
    while subprocess.run(active, check=False).returncode == 0:
        assert time.monotonic() < until + PATIENCE_S, "the controller does not end"
        time.sleep(0.05)
    outlived = state_of(pid)
    os.kill(pid, signal.SIGCONT)
    while state_of(pid) not in ("", "Z"):
        assert time.monotonic() < until + 2 * PATIENCE_S, "the dead-man does not end"
        time.sleep(0.05)
    return {"cgroup": where, "outlived": outlived}


report(look)
