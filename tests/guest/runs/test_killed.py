"""kill -9 of the controller at every step of a hand-over: `freezelab recover --keep` has exactly one of the
two processes go on, and the guest, its RAM and its disk are whole."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from lab.guest.address import Address
from lab.guest.ssh import SSH
from lab.hypervisor import memory
from lab.process.clock import HostClock
from lab.session.settings import lab_key
from tests.guest.conftest import Cli, disk_is_sound

CONTROLLER = """
import json, os, signal, sys
from pathlib import Path
from lab.core.plan import FreezeMethod, GuestSpec
from lab.core.units import NS_PER_S
from lab.hypervisor import memory
from lab.ports import Freezing
from tests.guest.conftest import running_lab

home, at = Path(sys.argv[1]), sys.argv[2]
with running_lab(home, GuestSpec("web-0"), shared_memory=True) as lab:
    ssh, said = lab.probe.ssh, {}

    def step(guest, name):
        if name == at:
            (ram,) = memory.folder(home).iterdir()
            said["digest"] = memory.take(ram).total() if name not in ("suspend", "retire") else ""
            print(json.dumps(said), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    said |= {
        "port": ssh.address.port,
        "host_key": ssh.address.host_key,
        "boot_id": lab.probe.facts().boot_id,
        "marked": ssh.check("echo kept > /root/mark; sync; cat /root/mark").strip(),
    }
    lab.hypervisor.on_step(step)
    freezing = Freezing(FreezeMethod.IN_PLACE, at_once=sys.argv[3] == "at once")
    lab.hypervisor.prepare("web-0", freezing)
    lab.hypervisor.freeze("web-0", freezing, lab.clock.now().raw_ns + 30 * NS_PER_S)
    lab.hypervisor.resume("web-0", freezing)
    lab.hypervisor.finish("web-0")
print("survived")
"""


def killed_at(cli: Cli, step: str, patch: str = "") -> dict[str, Any]:
    """Have a controller die there; what it knew of its guest."""
    done = subprocess.run(
        [sys.executable, "-c", CONTROLLER, str(cli.home), step, patch],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    ("step", "patch"),
    [(step, "") for step in ("suspend", "state out", "state in", "resume", "retire")]
    + [("state in", "at once")],
)
def test_exactly_one_goes_on(cli: Cli, step: str, patch: str) -> None:
    said = killed_at(cli, step, patch)
    assert len(cli.qemu()) == 2
    if said["digest"]:
        (ram,) = memory.folder(cli.home).iterdir()
        assert memory.take(ram).total() == said["digest"]

    recovered = cli("recover", "--keep")
    assert recovered.returncode == 0, recovered.stderr
    wins = "its successor runs" if step == "retire" else "before the successor ran"
    assert wins in recovered.stdout
    (process,) = cli.qemu()
    # A successor's domain is called so; "-incoming" has a guest from a golden one as well.
    assert any("-web-0.1," in word for word in process.cmdline()) == (step == "retire")

    key, _public = lab_key(cli.home)
    address = Address("web-0", "127.0.0.1", said["port"], "root", key, said["host_key"])
    ssh = SSH.connect(address, HostClock(), 60)
    assert ssh.check("cat /proc/sys/kernel/random/boot_id").strip() == said["boot_id"]
    assert ssh.check("cat /root/mark").strip() == said["marked"]
    ssh.check("dd if=/dev/urandom of=/root/more bs=64k count=16 conv=fsync 2>/dev/null")
    # Everything written and remounted read-only, which the kernel does in its own time.
    ssh.check("sync; echo u > /proc/sysrq-trigger")
    ssh.check("until grep -q ' / ext4 ro' /proc/mounts; do sleep 0.1; done")
    ssh.close()
    (disk,) = (cli.home / "guests").glob("*/web-0/disk.qcow2")
    disk_is_sound(disk)

    assert cli("recover").returncode == 0
    assert not cli.left()
    assert not list(memory.folder(cli.home).iterdir())


def test_recover_removes_both_when_nobody_keeps_them(cli: Cli) -> None:
    killed_at(cli, "state in")
    recovered = cli("recover")
    assert recovered.returncode == 0, recovered.stderr
    assert "removed guest web-0" in recovered.stdout
    assert not cli.qemu()
    assert not cli.left()
    assert not list(memory.folder(cli.home).iterdir())
