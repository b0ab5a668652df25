"""`stop` and `cont` of a real QEMU without a guest, which the lab takes for the domain of libvirt's test
driver."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.plan import FreezeMethod
from lab.errors import HypervisorError
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.qmp import status
from lab.ports import Freezing
from tests.driver.conftest import spec_of
from tests.driver.qemus import Qemu, until

NEVER = 1 << 62
SUSPEND = Freezing(FreezeMethod.SUSPEND)


@pytest.fixture
def qemu(lab: LibvirtHypervisor, start: Callable[..., Qemu], home: Path) -> Qemu:
    uuid = lab._context.domain("test")[1]
    made = start("web-0", "-uuid", uuid, "-name", "web-0,debug-threads=on")
    until(made.is_running)
    lab._context.specs["test"] = replace(spec_of("test", home), uuid=uuid, control_socket=made.path)
    return made


def may_come_first() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def policy(thread: int) -> int:
    return os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK


def policies(qemu: Qemu) -> dict[int, int]:
    """Of its threads, by id."""
    tasks = Path(f"/proc/{qemu.process.pid}/task").iterdir()
    return {int(task.name): policy(int(task.name)) for task in tasks}


def first(qemu: Qemu) -> set[str]:
    """The names of its threads that come before others."""
    tasks = [
        Path(f"/proc/{qemu.process.pid}/task/{thread}")
        for thread, its in policies(qemu).items()
        if its == os.SCHED_RR
    ]
    return {(task / "comm").read_text().strip() for task in tasks}


def test_what_obeys_comes_first_until_the_guest_runs_again(lab: LibvirtHypervisor, qemu: Qemu) -> None:
    os.sched_setscheduler(qemu.process.pid, os.SCHED_BATCH, os.sched_param(0))
    before, own = policies(qemu), policy(0)
    assert os.SCHED_BATCH in before.values()
    lab.begin_freeze(["test"], SUSPEND)
    stop = lab.freeze("test", SUSPEND, NEVER).call
    assert status(qemu.monitor) == "paused"
    assert first(qemu) == ({"qemu-system-x86", "IO mon_iothread"} if may_come_first() else set())
    assert policy(0) == own
    lab.begin_resume(["test"])
    assert status(qemu.monitor) == "running"
    resume = lab.resume("test", SUSPEND).call
    after = policies(qemu)
    assert after == after | before
    assert policy(0) == own
    assert stop.event_real_ns is not None
    assert resume.event_real_ns is not None
    assert stop.event_real_ns <= stop.returned.real_ns <= resume.called.real_ns
    assert resume.called.real_ns - 1000 <= resume.event_real_ns <= resume.returned.real_ns


def test_a_resume_that_the_guard_takes_over_is_sent_once(lab: LibvirtHypervisor, qemu: Qemu) -> None:
    lab.begin_freeze(["test"], SUSPEND)
    lab.freeze("test", SUSPEND, NEVER)
    freeze = lab._freezes["test"]
    late = freeze.begin_resume()
    lab.resume("test", SUSPEND)  # as the guard does, from its thread
    qemu.monitor.execute("stop")
    for step in late:
        step()
    assert status(qemu.monitor) == "paused"
    assert not first(qemu)


def test_a_qemu_that_has_ended_is_met_by_freeze(lab: LibvirtHypervisor, qemu: Qemu) -> None:
    lab.prepare("test", SUSPEND)
    qemu.process.kill()
    qemu.process.wait()
    lab.begin_freeze(["test"], SUSPEND)
    with pytest.raises(HypervisorError, match="cannot be suspended"):
        lab.freeze("test", SUSPEND, NEVER)
