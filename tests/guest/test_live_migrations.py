"""live-migrate with real QEMU processes that run their firmware, whose RAM is full of random bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.core.migration import MigrationSpec
from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_S
from lab.errors import MachineError, Refused
from lab.host import emulators
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import control_socket_of
from lab.hypervisor.migration import LOADING
from lab.hypervisor.process import QemuProcess
from lab.hypervisor.qmp import MonitorError, QmpSocket, status
from lab.image.store import default_cache
from lab.ports import Freezing, Frozen, Resumed
from lab.process.clock import HostClock
from tests.guest.conftest import Cli
from tests.guest.firmware import SIZE, running
from tests.guest.without_a_run import opened

CLOCK = HostClock()
AT_ONCE = Freezing(FreezeMethod.LIVE_MIGRATE, at_once=True)
CRAWLING = MigrationSpec(bandwidth=1 << 20)


@pytest.fixture
def machine(home: Path, tmp_path: Path) -> Iterator[LibvirtHypervisor]:
    """One that runs, web-0, with two monitors of the lab's own. No image is needed."""
    hypervisor = opened(home, CLOCK)
    running(hypervisor, home, tmp_path)
    yield hypervisor
    hypervisor.destroy("web-0")
    assert not hypervisor.list_lab_domains()


def migrate(machine: LibvirtHypervisor, settings: MigrationSpec, budget_s: int = 30) -> tuple[Frozen, int]:
    """Migrate it at once. What came of it, and how many domains are left."""
    freezing = replace(AT_ONCE, migration=settings)
    machine.prepare("web-0", freezing)
    frozen = machine.freeze("web-0", freezing, CLOCK.now().raw_ns + budget_s * NS_PER_S)
    machine.finish("web-0")
    assert machine.state("web-0") == "running"
    return frozen, len(machine.list_lab_domains())


def test_what_does_not_converge_stays_and_can_be_moved_later(machine: LibvirtHypervisor) -> None:
    before = machine.spec("web-0")
    frozen, left = migrate(machine, CRAWLING, budget_s=2)
    assert left == 1
    assert machine.spec("web-0") == before
    assert frozen.back is not None and "did not converge" in frozen.why
    assert frozen.call.called == frozen.back.returned  # an instant: it was never stopped
    # The same process can be migrated afterwards.
    settings = MigrationSpec(multifd=2, auto_converge=True)
    moved, left = migrate(machine, settings)
    after = machine.spec("web-0")
    assert (moved.back, moved.why, left) == (None, "", 1)
    assert isinstance(moved.resumed, Resumed) and not moved.resumed.why
    assert before is not None and after is not None and after.uuid != before.uuid
    assert moved.migration is not None and (report := moved.migration()) is not None
    assert (report.status, report.settings) == ("completed", settings)
    assert report.transferred > SIZE // 2
    stop, resume = moved.call, moved.resumed.call
    assert stop.event_real_ns is not None and resume.event_real_ns is not None
    assert stop.called.real_ns <= stop.event_real_ns < resume.event_real_ns
    # The stop is bounded from QEMU's last look at the memory, not from the order.
    assert stop.called.raw_ns > report.began_raw_ns


def test_post_copy_with_multifd_needs_a_newer_qemu(machine: LibvirtHypervisor) -> None:
    with pytest.raises(Refused, match="has it without multifd only"):
        migrate(machine, MigrationSpec(multifd=2, post_copy_ns=NS_PER_S))
    assert machine.state("web-0") == "running"
    assert len(machine.list_lab_domains()) == 1


def test_post_copy_moves_it_before_its_memory(machine: LibvirtHypervisor) -> None:
    try:
        frozen, left = migrate(machine, MigrationSpec(bandwidth=8 << 20, post_copy_ns=NS_PER_S))
    except Refused as error:
        pytest.skip(str(error))
    assert left == 1
    assert frozen.resumed is not None and not frozen.resumed.why
    assert frozen.migration is not None and (report := frozen.migration()) is not None
    assert report.status == "completed"
    assert any(sample.status == "postcopy-active" for sample in report.samples)


def test_a_successor_that_dies_with_the_devices_state_half_read_costs_nothing(
    home: Path, tmp_path: Path
) -> None:
    """QEMU 10.2 and later take the guest back."""
    try:
        emulator = emulators.find("trixie-backports", default_cache())
    except MachineError as error:
        pytest.skip(str(error))
    machine = opened(home, CLOCK)
    running(machine, home, tmp_path, emulator)
    [old] = machine.list_lab_domains()

    def step(_guest: str, name: str) -> None:
        if name == "post-copy":
            [new] = [one for one in machine.list_lab_domains() if one.uuid != old.uuid]
            process = QemuProcess.find(new.uuid, "web-0")
            os.kill(process.pid, signal.SIGSTOP)

            def end() -> None:
                while machine.qmp("web-0", "query-migrate")["status"] != LOADING:
                    time.sleep(0.01)
                process.kill(5)

            threading.Thread(target=end, daemon=True).start()

    machine.on_step(step)
    try:
        # So slow that what a stopped process does not read fits into the socket.
        frozen, left = migrate(machine, MigrationSpec(bandwidth=32 << 10, post_copy_ns=NS_PER_S))
        assert left == 1
        assert machine.list_lab_domains()[0].uuid == old.uuid
        assert frozen.back is not None
        assert frozen.why.startswith("put back to the old process: "), frozen.why
    except Refused as error:
        pytest.skip(str(error))
    finally:
        machine.destroy("web-0")


CONTROLLER = """
import os, signal, sys, threading
from pathlib import Path
from typing import Any
from lab.core.migration import MigrationSpec
from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_S
from lab.ports import Freezing
from lab.process.clock import HostClock
from tests.guest.firmware import running
from tests.guest.conftest import Cli
from tests.guest.firmware import SIZE, running
from tests.guest.without_a_run import opened

home, at, after_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
clock = HostClock()
machine = opened(home, clock)
running(machine, home, home)


def step(guest, name):
    if name == at:
        threading.Timer(after_s, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        if not after_s:
            threading.Event().wait(5)


machine.on_step(step)
settings = MigrationSpec(bandwidth=8 << 20, post_copy_ns=NS_PER_S)
freezing = Freezing(FreezeMethod.LIVE_MIGRATE, at_once=True, migration=settings)
machine.prepare("web-0", freezing)
now = clock.now().raw_ns
with machine.guard(["web-0"], freezing, now + 30 * NS_PER_S, now + 40 * NS_PER_S, 0):
    machine.freeze("web-0", freezing, now + 20 * NS_PER_S)
    threading.Event().wait(5)
"""


def states(cli: Cli) -> dict[int, str]:
    """What each of its QEMU processes is doing, by its own answer."""
    found = {}
    for process in cli.qemu():
        found[process.pid] = "ends"
        with suppress(psutil.Error, MonitorError):
            socket = control_socket_of(process.cmdline())
            assert socket is not None
            with QmpSocket(socket) as monitor:
                found[process.pid] = status(monitor)
    return found


@pytest.mark.parametrize(("step", "after_s"), [("pre-copy", 0.5), ("post-copy", 0.3)])
def test_one_runs_on_when_the_controller_is_killed(
    cli: Cli, eventually: Callable[..., Any], step: str, after_s: float
) -> None:
    words = [sys.executable, "-c", CONTROLLER, str(cli.home), step, str(after_s)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    eventually(lambda: list(states(cli).values()) == ["running"], 30)
    # The dead-man may still have the monitor, which serves one at a time.
    eventually(lambda: cli("recover", "--keep").returncode == 0, 60)
    assert list(states(cli).values()) == ["running"]
