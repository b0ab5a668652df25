"""The cgroup freezer on a real process, and what a dead-man does about one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError, Refused
from lab.hypervisor.freezer import Freezer, obstacle, place
from lab.hypervisor.process import QemuProcess
from lab.process.clock import HostClock
from tests.driver.controllers import history, simple
from tests.driver.programs import embedded
from tests.driver.qemus import PATIENCE_S, Qemu, until

CLOCK = HostClock()


def freezer_of(pid: int, version: int) -> Freezer:
    try:
        return Freezer.around(pid, "web-0", (version,))
    except Refused as refused:
        pytest.skip(refused.what)


def frozen(freezer: Freezer) -> None:
    freezer.freeze()
    assert freezer.wait_frozen(CLOCK, CLOCK.now().raw_ns + 5 * NS_PER_S)


@pytest.mark.parametrize("version", [1, 2])
def test_only_a_thaw_continues_it_and_it_goes_back_where_it_was(qemu: Qemu, version: int) -> None:
    pid = qemu.process.pid
    before = Path(f"/proc/{pid}/cgroup").read_text()
    freezer = freezer_of(pid, version)
    with QemuProcess(pid, os.pidfd_open(pid)) as process:
        assert not process.is_stopped()
        frozen(freezer)
        assert process.is_stopped()
        used = process.cpu_time_ns()
        # It continues a process that SIGSTOP has stopped. Of one in a frozen cgroup the kernel wakes a
        # thread for some microseconds, which then goes back to sleep (do_freezer_trap).
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
        assert process.is_stopped()
        assert process.cpu_time_ns() - used < NS_PER_MS
        process.send_continue()
        until(qemu.is_running)
        assert not process.is_stopped()
        process.leave_freezer()
    assert Path(f"/proc/{pid}/cgroup").read_text() == before
    assert not freezer.folder.exists()
    freezer.thaw()
    freezer.leave()


MOVED = """
    from lab.hypervisor.domain import Accelerator
    from lab.hypervisor.freezer import Freezer
    from tests.driver.conftest import spec_of
    emulator = lab.emulator(Accelerator.TCG)
    spec = dataclasses.replace(
        spec_of("web-0", home), emulator=emulator.path, machine=emulator.machine, kernel=None, ssh_port=0
    )
    lab.define_and_start(spec)
    pid = lab._context.process("web-0").pid
    print(pid, Freezer.around(pid, "web-0").folder)
"""
BACK = """
    [guest] = lab.list_lab_domains()
    lab.domains.choose(guest)
    print(Path(f"/proc/{lab._context.process('web-0').pid}/cgroup").read_text(), end="")
    lab.destroy("web-0")
"""


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="qemu is not installed")
def test_a_process_that_a_killed_lab_has_only_moved_goes_back(home: Path) -> None:
    if why := obstacle(os.getpid()):
        pytest.skip(why)
    before = Path("/proc/self/cgroup").read_text()
    moved = embedded(home, MOVED)
    assert moved.stderr == ""
    assert "freezelab-" in moved.stdout
    assert embedded(home, BACK).stdout == before
    assert not Path(moved.stdout.split()[1]).exists()


@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_process_can_be_killed(version: int) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as running:
        freezer = freezer_of(running.pid, version)
        frozen(freezer)
        with QemuProcess(running.pid, os.pidfd_open(running.pid)) as process:
            process.kill(PATIENCE_S)
    assert not freezer.folder.exists()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_the_dead_man_thaws_what_its_controller_has_left(
    qemu: Qemu, folder: Path, controller: Any, version: int, end: signal.Signals
) -> None:
    freezer = freezer_of(qemu.process.pid, version)
    process, _dead_man = controller(simple(qemu), qemu.process.pid)
    frozen(freezer)
    process.send_signal(end)
    until(lambda: not freezer.is_ordered)  # until then QEMU answers nothing
    until(qemu.is_running)
    until(lambda: history(folder))
    assert history(folder)[0]["act"] == "resumed"
    until(lambda: not freezer.folder.exists())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_with_the_reason() -> None:
    code = (
        f"import os; from lab.hypervisor.freezer import *; os.setuid(65534); print(obstacle({os.getpid()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.startswith("the kernel's freezer cannot be used: "), done.stderr
    if not obstacle(os.getpid()):
        assert "Permission denied: /sys" in done.stdout
        assert place(os.getpid()).startswith("cgroup v")


def test_a_process_that_is_not_there_is_said() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    with pytest.raises(HypervisorError, match="unknown"):
        Freezer.around(ended.pid, "web-0")
