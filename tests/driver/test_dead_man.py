"""The dead-man, against real QEMU processes that run their firmware and no guest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.errors import HypervisorError, MachineError
from lab.host import emulators
from lab.hypervisor.deadman.channel import SILENT_S, Token
from lab.hypervisor.deadman.client import Charge, DeadMan
from lab.hypervisor.deadman.rescue import (
    HandOver,
    Migration,
    MonitorAddress,
    Restore,
    Wake,
    now,
)
from lab.hypervisor.migration import is_post_copy
from lab.hypervisor.process import QemuProcess
from lab.hypervisor.qmp import migration_status, status
from lab.image.store import default_cache
from tests.driver.controllers import LATE_NS, history, simple
from tests.driver.qemus import PATIENCE_S, Qemu, until

SOON_NS = 1_000_000_000


def test_a_guest_runs_on_when_its_controller_is_killed(qemu: Qemu, folder: Path, controller: Any) -> None:
    process, dead_man = controller(simple(qemu), qemu.process.pid)
    qemu.monitor.execute("stop")
    process.kill()
    until(qemu.is_running)
    dead_man.wait(PATIENCE_S)  # nothing is left to guard
    (event,) = history(folder)
    assert (event["kind"], event["guest"], event["cycle"], event["seq"]) == ("deadman", "web-0", 3, None)
    assert (event["act"], event["why"]) == ("resumed", "the controller has ended")
    call = event["call"]
    assert call["called"]["real_ns"] - 1000 <= call["event_real_ns"] <= call["returned"]["real_ns"]


def test_a_process_stopped_by_a_signal_too(qemu: Qemu, controller: Any) -> None:
    process, dead_man = controller(simple(qemu), qemu.process.pid)
    qemu.process.send_signal(signal.SIGSTOP)
    process.kill()
    dead_man.wait(PATIENCE_S)
    assert qemu.is_running()


def test_a_silent_controller_is_acted_for_and_watched_afterwards(
    qemu: Qemu, folder: Path, controller: Any
) -> None:
    process, dead_man = controller(simple(qemu), qemu.process.pid)
    time.sleep(SILENT_S + 1)
    assert history(folder) == []  # it is there, and says so
    qemu.monitor.execute("stop")
    process.send_signal(signal.SIGSTOP)
    until(qemu.is_running)
    until(lambda: history(folder))
    assert "silent for 3" in history(folder)[0]["why"]
    # A controller that wakes up in the middle of its own freeze.
    qemu.monitor.execute("stop")
    until(lambda: len(history(folder)) > 1)
    assert "again" in history(folder)[1]["why"]
    assert qemu.is_running()
    process.kill()
    dead_man.wait(PATIENCE_S)


def test_not_before_the_budget_is_over_and_then_at_once(qemu: Qemu, folder: Path, controller: Any) -> None:
    _process, dead_man = controller(simple(qemu), qemu.process.pid, for_ns=3 * SOON_NS)
    qemu.monitor.execute("stop")
    until(qemu.is_running)
    until(lambda: history(folder))
    (acted,) = history(folder)
    assert acted["why"] == "the budget was over"
    assert dead_man.until_ns <= acted["call"]["called"]["raw_ns"]
    assert acted["call"]["returned"]["raw_ns"] < dead_man.until_ns + SOON_NS
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        dead_man.send_signal(number)
    time.sleep(0.2)
    assert dead_man.is_running()


def test_it_ends_when_it_has_nothing_to_do(qemu: Qemu, folder: Path, controller: Any) -> None:
    process, dead_man = controller(simple(qemu), qemu.process.pid)
    process.kill()
    dead_man.wait(PATIENCE_S)
    assert history(folder) == []


def test_it_waits_for_a_guest_that_may_still_fall_asleep_and_not_for_one_that_has_ended(
    qemu: Qemu, controller: Any
) -> None:
    process, dead_man = controller(Wake("web-0", qemu.process.pid, qemu.address), qemu.process.pid)
    process.kill()
    process.wait()
    time.sleep(1.5)
    assert dead_man.is_running()
    qemu.process.kill()
    qemu.process.wait()
    dead_man.wait(3)  # long before it would end by itself


def test_a_dead_man_that_was_stopped_does_not_act_on_what_is_over(
    qemu: Qemu, folder: Path, controller: Any
) -> None:
    _process, dead_man = controller(simple(qemu), qemu.process.pid, for_ns=SOON_NS)
    dead_man.suspend()
    time.sleep(1.5)
    dead_man.resume()
    time.sleep(0.5)
    assert history(folder) == []  # it runs: nothing was done


def incoming(start: Callable[..., Qemu], folder: Path) -> tuple[Qemu, Qemu]:
    """A machine and its successor, which waits for its state."""
    old, new = start("old"), start("new", "-incoming", "defer", "-S")
    share = [{"capability": "x-ignore-shared", "state": True}]
    for end in (old, new):
        end.monitor.execute("migrate-set-capabilities", capabilities=share)
    new.monitor.execute("migrate-incoming", uri=f"unix:{folder}/state")
    return old, new


def hand_over(old: Qemu, new: Qemu, folder: Path) -> None:
    old.monitor.execute("stop")
    old.monitor.execute("migrate", uri=f"unix:{folder}/state")
    until(lambda: old.monitor.execute("query-migrate")["status"] == "completed")
    until(lambda: status(new.monitor) != "inmigrate")


def handing_over(old: Qemu, new: Qemu) -> HandOver:
    return HandOver(
        "web-0", old.process.pid, old.address, successor_pid=new.process.pid, successor=new.address
    )


@pytest.mark.parametrize("at", ["before", "stopped", "state over"])
def test_a_hand_over_is_called_off_before_the_successor_was_told_to_run(
    start: Callable[..., Qemu], folder: Path, controller: Any, at: str
) -> None:
    old, new = incoming(start, folder)
    process, dead_man = controller(handing_over(old, new), old.process.pid, new.process.pid, token=True)
    if at == "stopped":
        old.monitor.execute("stop")
    if at == "state over":
        hand_over(old, new, folder)
    process.kill()
    dead_man.wait(PATIENCE_S)
    assert old.is_running()
    assert new.process.wait(PATIENCE_S) == -signal.SIGKILL


@pytest.mark.parametrize("told", [False, True])
def test_the_successor_runs_once_the_controller_has_decided(
    start: Callable[..., Qemu], folder: Path, controller: Any, told: bool
) -> None:
    old, new = incoming(start, folder)
    process, dead_man = controller(
        handing_over(old, new), old.process.pid, new.process.pid, token=True, taken=True
    )
    hand_over(old, new, folder)
    if told:
        new.monitor.execute("cont")
    process.kill()
    dead_man.wait(PATIENCE_S)
    assert new.is_running()
    assert old.process.wait(PATIENCE_S) == -signal.SIGKILL


def test_a_successor_that_died_before_it_ran_is_no_loss(
    start: Callable[..., Qemu], folder: Path, controller: Any
) -> None:
    old, new = incoming(start, folder)
    process, dead_man = controller(
        handing_over(old, new), old.process.pid, new.process.pid, token=True, taken=True
    )
    hand_over(old, new, folder)
    new.process.kill()
    new.process.wait()
    process.kill()
    dead_man.wait(PATIENCE_S)
    assert old.is_running()


def test_a_successor_that_died_after_it_ran_is_told_and_nobody_runs(
    start: Callable[..., Qemu], folder: Path, controller: Any
) -> None:
    old, new = incoming(start, folder)
    process, dead_man = controller(
        handing_over(old, new), old.process.pid, new.process.pid, token=True, taken=True
    )
    hand_over(old, new, folder)
    new.monitor.execute("cont")
    new.process.kill()
    new.process.wait()
    process.kill()
    dead_man.wait(PATIENCE_S)
    assert not old.is_running()
    assert history(folder)[0]["act"] == "ended"


@pytest.mark.parametrize("name", ["system", "trixie-backports"])
def test_a_guest_whose_successor_dies_before_it_has_its_devices(
    start: Callable[..., Qemu], folder: Path, controller: Any, name: str
) -> None:
    """In post-copy. QEMU takes it back since 10.2; before, it is lost."""
    try:
        program = emulators.system() if name == "system" else emulators.find(name, default_cache())
    except MachineError as error:
        pytest.skip(str(error))
    assert program is not None
    old = start("old", program=str(program), shared=False)
    new = start("new", "-incoming", "defer", "-S", program=str(program), shared=False)
    capabilities = [{"capability": name, "state": True} for name in ("return-path", "postcopy-ram")]
    for end in (old, new):
        end.monitor.execute("migrate-set-capabilities", capabilities=capabilities)
    new.monitor.execute("migrate-incoming", uri=f"unix:{folder}/state")
    old.monitor.execute("migrate-set-parameters", **{"max-bandwidth": 30_000, "downtime-limit": 1})
    plan = Migration(
        "web-0", old.process.pid, old.address, successor_pid=new.process.pid, successor=new.address
    )
    process, dead_man = controller(plan, old.process.pid, new.process.pid, token=True, taken=True)
    old.monitor.execute("migrate", uri=f"unix:{folder}/state")
    until(lambda: migration_status(old.monitor) == "active")
    new.process.send_signal(signal.SIGSTOP)
    old.monitor.execute("migrate-start-postcopy")
    until(lambda: is_post_copy(migration_status(old.monitor)))
    assert not old.is_running()
    new.process.kill()
    process.kill()
    dead_man.wait(PATIENCE_S)
    major, minor = map(int, emulators.version(program).split(".")[:2])
    taken_back = (major, minor) >= (10, 2)
    assert old.is_running() == taken_back
    assert ("ended" in [event["act"] for event in history(folder)]) == (not taken_back)


def test_a_save_that_was_cut_off_goes_on_in_its_process(qemu: Qemu, folder: Path, controller: Any) -> None:
    kept = folder / "web-0.save"
    kept.write_text("half of it")
    rescue = Restore("web-0", qemu.process.pid, qemu.address, path=str(kept), home=str(folder))
    process, dead_man = controller(rescue, qemu.process.pid)
    qemu.monitor.execute("stop")
    process.send_signal(signal.SIGSTOP)
    until(qemu.is_running)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL  # what libvirt may hold must be let go of first
    dead_man.wait(PATIENCE_S)
    assert not kept.exists()


def test_one_token_is_taken_once() -> None:
    token = Token()
    other = Token(os.dup(token.handle))
    assert token.take()
    assert token.take()
    assert not other.take()
    token.close()
    other.close()


def charge(qemu: Qemu) -> tuple[Charge, QemuProcess]:
    process = QemuProcess(qemu.process.pid, os.pidfd_open(qemu.process.pid))
    return Charge(simple(qemu), (process.pidfd,)), process


def test_a_lost_dead_man_is_noticed_and_another_is_started(qemu: Qemu) -> None:
    lost: list[str] = []
    man = DeadMan()
    one, process = charge(qemu)
    with process:
        man.guard([one], 0, now().raw_ns + LATE_NS, lambda: lost.append(man.lost))
        first = man.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: lost == ["the dead-man has ended"])
        man.release(["web-0"])
        man.guard([one], 1, now().raw_ns + LATE_NS, lambda: lost.append("again"))
        second = man.pid or 0
        assert second not in (0, first)
        os.kill(second, signal.SIGSTOP)
        until(lambda: len(lost) == 2)
        assert "silent" in man.lost
        man.release(["web-0"])
    assert not psutil.pid_exists(second)
    assert len(lost) == 2


def test_what_is_not_released_is_resumed_when_its_controller_leaves(qemu: Qemu, folder: Path) -> None:
    (folder / "events.jsonl").touch()
    man = DeadMan()
    man.history = folder / "events.jsonl"
    one, process = charge(qemu)
    with process:
        man.guard([one], 0, now().raw_ns + LATE_NS, lambda: None)
        qemu.monitor.execute("stop")
        man.close()
    assert qemu.is_running()
    (event,) = history(folder)
    assert (event["act"], event["why"]) == ("resumed", "the controller could not resume it")


def test_what_it_could_not_resume_is_not_frozen(qemu: Qemu, folder: Path) -> None:
    man = DeadMan()
    one, process = charge(qemu)
    nowhere = replace(one.rescue, monitor=MonitorAddress(str(folder / "nowhere")))
    with process, pytest.raises(HypervisorError, match="could not resume it, so it is not frozen"):
        man.guard([Charge(nowhere, one.files)], 0, now().raw_ns + LATE_NS, lambda: None)
    assert man.pid is None
