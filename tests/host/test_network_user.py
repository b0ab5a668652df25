"""The lab's own network as an ordinary user, whose /dev/net/tun is open to all, or not: in a mount namespace,
as this machine's own device stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534

SHELL = """
set -e
mount -t tmpfs none /mnt
mknod /mnt/tun c 10 200
chmod {mode} /mnt/tun
mount --bind /mnt/tun /dev/net/tun
cp -r {lab} /mnt/lab
chmod -R a+rX /mnt/lab
cd /
export PYTHONPATH=/mnt HOME=/tmp
exec setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all {python} -c "$PROGRAM"
"""

PROGRAM = """
import subprocess, tempfile
from pathlib import Path
from lab.core.network import NetworkPlace, guest_address
from lab.host.network import Attachment, LabNetwork
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    guests = {"a": Attachment(NetworkPlace(guest_address(0)), folder / "switch", folder / "qemu")}
    with LabNetwork(guests) as network:
        print(network.alive, network.no_host or "none")
        if not network.no_host:
            show = "ip -brief address show lab0; cat /proc/self/uid_map"
            subprocess.run(network.command(["sh", "-c", show]), check=True)
"""


def of_a_user(mode: str) -> str:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becomes another user: needs root, and setpriv")
    python = Path(sys.executable)
    if subprocess.run(
        ["setpriv", "--reuid", str(NOBODY), "--clear-groups", str(python), "-c", ""], check=False
    ).returncode:
        pytest.skip(f"an ordinary user cannot run {python}")
    script = SHELL.format(mode=mode, lab=ROOT / "lab", user=NOBODY, python=python)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={**os.environ, "PROGRAM": PROGRAM},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_user_has_a_place_for_clients_without_root() -> None:
    shown = of_a_user("666")
    if "unshare: " in shown:
        pytest.skip(f"user namespaces are forbidden here: {shown.strip()}")
    first, address, mapped = shown.splitlines()
    assert first == "True none"
    assert "10.77.0.1/24" in address
    assert mapped.split() == ["0", str(NOBODY), "1"]


def test_where_that_is_forbidden_the_switch_runs_all_the_same() -> None:
    shown = of_a_user("600")
    assert shown.startswith("True "), shown
    assert "/dev/net/tun: Permission denied" in shown or "unshare: " in shown
