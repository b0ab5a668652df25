"""A lab host's kernel replaced under a guest: memory page by page, disk, connection, clock; a new kernel that
does not come up; a controller that is killed while the guest is frozen.

It takes some minutes, so it is asked for by FREEZELAB_LAB_HOST=1.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.hypervisor.qmp import QmpSocket

ROOT = Path(__file__).parents[2]

PLAYBOOK = """
name: kernels
fleet: {guests: [{name: web-0, memory: 256MiB}]}
resync: push
cycle:
  method: in-place
  patch: {replace-host-kernel: {kernels: [6.12, 6.1], deadline: 110s}}
  prove_memory: true
  settle: 5s
  before: 3s
  budget: 120s
  watch: 15s
repeat: 2
"""
ONCE = PLAYBOOK.replace("[6.12, 6.1]", "[6.12]").replace("repeat: 2", "repeat: 1")

RESTORER = "/srv/freezelab/code/lab/hypervisor/kexec/restore.sh"
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
LEFT = """ls /srv/freezelab/kept 2>/dev/null
grep /srv/reserved /proc/mounts
ip -o link show guest0 2>/dev/null
pgrep -fa '[k]exec.keeper|[q]emu-system'
true
"""
STATE = """pkill -f '[k]exec.keeper'  # which has the monitor
cd /srv/freezelab/code && PYTHONPATH=.:../packages python3 -c '
from lab.hypervisor.qmp import QmpSocket
with QmpSocket("/srv/reserved/qmp") as qmp:
    print(qmp.execute("query-status")["status"])
'"""


class LabHostCommands:
    """freezelab's commands, with a state folder of their own, and a lab host in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.kept = home / "kept/labhost.json"
        self._environment = {**os.environ, "FREEZELAB_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "lab.cli.main", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=self._environment)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=1800)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def inside(self, command: str, within_s: float = 600.0) -> str:
        """The output of a command in the lab host, when it succeeds."""
        until = time.monotonic() + within_s
        while True:
            done = self("labhost", "ssh", command)
            if done.returncode == 0:
                return done.stdout.strip()
            assert time.monotonic() < until, done.stderr
            time.sleep(2)

    def ports(self) -> list[str]:
        """The ports of this machine's loopback that lead to the guest in the lab host."""
        kept = json.loads(self.kept.read_text())
        with QmpSocket(kept["sockets"][4]) as monitor:
            shown = monitor.execute("human-monitor-command", 10.0, **{"command-line": "info usernet"})
        return re.findall(r"HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+10\.0\.2\.16\s+22\b", str(shown))

    def in_guest(self, command: str, within_s: float = 60.0) -> str:
        """The output of a command in the guest, as soon as it answers."""
        (port,) = self.ports()
        options = (
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "ConnectTimeout=10",
        )
        login = [word for option in options for word in ("-o", option)]
        login += ["-F", "none", "-i", str(self.home / "keys/lab_ed25519"), "-p", port, "root@127.0.0.1"]
        until = time.monotonic() + within_s
        while True:
            done = subprocess.run(["ssh", *login, command], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return done.stdout.strip()
            assert time.monotonic() < until, done.stderr

    def playbook(self, text: str) -> str:
        path = self.home / "playbooks" / "kernels.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)


@pytest.fixture(scope="module")
def freezelab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHostCommands]:
    if os.environ.get("FREEZELAB_LAB_HOST") != "1":
        pytest.skip("minutes long: asked for by FREEZELAB_LAB_HOST=1")
    commands = LabHostCommands(tmp_path_factory.mktemp("home"))
    started = commands("labhost", "up", "--reserve", "384MiB")
    assert started.returncode == 0, started.stderr
    yield commands
    if commands.kept.exists():
        gone = commands("labhost", "down")
        assert "removed guest labhost" in gone.stdout


@pytest.mark.timeout(3600)
def test_a_guest_outlives_two_kernels_of_its_host(freezelab: LabHostCommands) -> None:
    run = ("--on", "labhost", "run")
    unaccepted = freezelab(*run, freezelab.playbook(PLAYBOOK))
    assert (unaccepted.returncode, "the guest is lost" in unaccepted.stderr) == (2, True)
    refused = freezelab(*run, freezelab.playbook(PLAYBOOK.replace("256MiB", "2GiB")), "--accept-loss")
    assert refused.returncode == 4, refused.stderr
    assert "384 MiB are reserved in it, and the guest needs 2 GiB" in refused.stderr
    done = freezelab(*run, freezelab.playbook(PLAYBOOK), "--accept-loss", "--json")
    assert done.returncode in (0, 1, 3), done.stderr  # a busy machine may miss the budget
    cycles = json.loads(done.stdout)["guests"][0]["cycles"]
    assert len(cycles) == 2, done.stderr
    for cycle, kernel in zip(cycles, ("6.12.", "6.1."), strict=True):
        assert cycle["version_before"] != cycle["version_after"]
        assert cycle["version_after"].startswith(f"Linux {kernel}")
        assert cycle["memory"]["differ"] == 0
        assert cycle["memory"]["rewritten"] is not None  # KVM's wall clock
        assert cycle["memory"]["held"] > 0
        assert cycle["boot_id_unchanged"]
        assert cycle["regime"] == "resumed"
        assert not [problem for problem in cycle["problems"] if "connection" in problem]
    assert freezelab("labhost", "ssh", "ls /srv/freezelab/kept").returncode != 0  # nothing is left


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("instead", "why"),
    [
        ("echo c >/proc/sysrq-trigger", "the new kernel has rebooted the lab host"),  # by panic=5
        ("while :; do sleep 9; done", "the new kernel did not restore it"),  # it is reset
    ],
)
def test_a_new_kernel_that_does_not_come_up(freezelab: LabHostCommands, instead: str, why: str) -> None:
    boot = freezelab.inside(BOOT_ID)
    playbook = freezelab.playbook(ONCE.replace("110s", "20s").replace("120s", "60s"))
    freezelab.inside(f"cp {RESTORER} /root/right && sed -i 's|^load disk$|{instead}|' {RESTORER}")
    try:
        done = freezelab("--on", "labhost", "run", playbook, "--accept-loss")
    finally:
        freezelab.inside(f"cp /root/right {RESTORER}")
    assert done.returncode == 4, done.stderr
    assert f"the guest is lost: {why}" in done.stderr
    assert freezelab.inside(BOOT_ID) != boot
    assert freezelab.inside("uname -r").startswith("6.1.")  # its first kernel
    assert freezelab("labhost", "ssh", "pgrep qemu-system").returncode != 0


def killed(freezelab: LabHostCommands, playbook: str, *, early: bool) -> tuple[str, float]:
    """Kill a controller in the freeze: while the old kernel has the guest, or while no kernel has it. The
    guest's boot id, and when it was frozen, CLOCK_MONOTONIC in seconds."""
    controller = freezelab.start("--on", "labhost", "run", playbook, "--accept-loss")
    shown, guest, frozen_at = "", "", 0.0
    try:
        assert controller.stderr is not None
        for line in controller.stderr:
            shown += line
            if "time sync" in line:
                guest = freezelab.in_guest(BOOT_ID)
            if "freeze:" in line:
                frozen_at = time.monotonic()
            if ("freeze:" if early else "patch:") in line:
                break
        time.sleep(2 if early else 0.5)  # early: the digests take some seconds
        assert controller.poll() is None, shown
    finally:
        controller.kill()
        controller.communicate()
    return guest, frozen_at


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("moment", ["while the old kernel has the guest", "while no kernel has it"])
def test_a_controller_that_is_killed_in_the_freeze(freezelab: LabHostCommands, moment: str) -> None:
    """The guest goes on by itself: in the old kernel when its budget is over, in the new one some seconds
    after it is restored. Nobody repairs its clock. The next run removes it, and so does `recover`."""
    early = moment == "while the old kernel has the guest"
    playbook = freezelab.playbook(ONCE.replace("budget: 120s", "budget: 60s").replace("110s", "50s"))
    boot = freezelab.inside(BOOT_ID)
    guest, frozen_at = killed(freezelab, playbook, early=early)
    assert freezelab.in_guest(BOOT_ID, 300) == guest
    behind_s = time.time() - float(freezelab.in_guest("date +%s.%N"))
    after_s = time.monotonic() - frozen_at
    sys.stdout.write(f"{moment}: {behind_s:.1f} s behind, {after_s:.1f} s after the order to freeze\n")  # -rA
    assert (55 if early else 5) < behind_s < after_s
    assert (freezelab.inside(BOOT_ID) == boot) is early
    assert freezelab.inside(STATE) == "running"
    if early:
        again = freezelab("--on", "labhost", "run", playbook, "--accept-loss", "--json")  # over what is left
        assert again.returncode in (0, 1, 3), again.stderr
    else:
        recovered = freezelab("recover")
        assert recovered.returncode == 0, recovered.stderr
        (line,) = recovered.stdout.splitlines()
        assert re.fullmatch(r"removed the guest of run \S+-kernels-\S+ in the lab host", line)
    assert freezelab("recover").stdout == "nothing to recover\n"
    assert freezelab.inside(LEFT) == ""
    assert freezelab.ports() == []


@pytest.mark.timeout(1800)
def test_down_removes_the_lab_host_with_what_a_killed_controller_left_in_it(
    freezelab: LabHostCommands,
) -> None:
    """The last test: it removes the lab host."""
    playbook = freezelab.playbook(ONCE.replace("budget: 120s", "budget: 60s").replace("110s", "50s"))
    killed(freezelab, playbook, early=True)
    (port,) = freezelab.ports()
    down = freezelab("labhost", "down")
    assert (down.returncode, down.stdout) == (0, "removed guest labhost\n"), down.stderr
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", int(port))) == errno.ECONNREFUSED
    assert freezelab("recover").stdout == "nothing to recover\n"
    assert not freezelab.kept.exists()
    assert not (freezelab.home / "labhost.lock").read_text()
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(freezelab.home) in word for word in process.info["cmdline"] or [])
    ]
