"""Cycles on one real guest, through the library."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.core.patch import Impact
from lab.core.plan import CommandPatch, FreezeMethod, HoldPatch, Regime
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.errors import Interrupted
from lab.host import patches
from lab.host.patches import Base
from lab.ports import Freezing, PatchResult
from lab.process.pace import paced
from tests.guest.conftest import Lab

SHORT: dict[str, Any] = {"settle_ns": NS_PER_S // 2, "before_ns": 2 * NS_PER_S, "watch_ns": 4 * NS_PER_S}


def test_a_suspend_of_three_seconds_closes(lab: Lab) -> None:
    result, found = lab.decided_cycle(**SHORT)
    pause = result.pause
    assert pause is not None
    assert pause.closes, pause
    assert pause.regime is Regime.RESUMED
    assert pause.pause.low_ns >= 3 * NS_PER_S
    assert set(pause.witnesses) == {"hypervisor", "lag", "gap", "silence"}
    # Behind by what it was frozen, whatever its offset was before.
    assert result.before is not None and result.at_resume is not None
    assert (result.before - result.at_resume).meets(pause.pause)
    assert result.boot_id_unchanged
    assert result.observation.cpu_ns is not None
    assert {f.outcome for f in found} == {Outcome.PASSED}, found


def test_the_agent_steps_the_clock_back_into_time(lab: Lab) -> None:
    result, _ = lab.cycle(**SHORT)
    resync = result.resync
    assert resync is not None and resync.time is not None
    assert resync.correction == "step"
    assert resync.step_ns is not None and resync.step_ns > 2 * NS_PER_S
    assert result.final is not None and result.at_resume is not None
    assert result.final.largest_ns < result.at_resume.smallest_ns / 10


def test_sigstop_is_recognised_as_a_jump(lab: Lab) -> None:
    result, _ = lab.decided_cycle(method=FreezeMethod.SIGSTOP, **SHORT)
    pause = result.pause
    assert pause is not None
    assert pause.closes, pause
    assert pause.regime is Regime.JUMPED
    # They ran on. What REALTIME showed is not known when the agent was quicker than the sampler.
    assert result.lag is not None and result.lag.high_ns < NS_PER_S


def test_a_control_cycle_finds_no_pause(lab: Lab) -> None:
    result, _ = lab.decided_cycle(frozen=False, **SHORT)
    pause = result.pause
    assert pause is not None
    assert pause.closes, pause
    assert pause.regime is Regime.RUNNING


def _budget_ns() -> int:
    """In an emulated lab host the call that resumes a guest took up to 0.63 s."""
    return round(paced(2 * NS_PER_S))


def test_a_patch_over_budget_is_cut_and_the_guest_resumed_inside_it(lab: Lab) -> None:
    patch = patches.make(CommandPatch(("sleep", "60"), 60 * NS_PER_S), lab.clock)
    result, found = lab.cycle(patch, budget_ns=_budget_ns(), **SHORT)
    failed = {f.metric: f for f in found if f.outcome is Outcome.FAILED}
    assert set(failed) == {"patch"}
    assert "sleep" in failed["patch"].why
    stop, resume = result.observation.stop, result.observation.resume
    assert stop is not None and resume is not None
    assert resume.returned.raw_ns - stop.called.raw_ns <= _budget_ns()
    assert lab.runs()


class _Stuck(Base):
    """A patch that breaks its promise and comes back long after its deadline."""

    def __init__(self, lab: Lab) -> None:
        super().__init__("stuck", Impact.FREEZE)
        self._lab = lab

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        self._lab.clock.sleep_until(deadline_raw_ns + 2 * NS_PER_S)
        return PatchResult(False, "came back late")


def test_a_stuck_controller_does_not_keep_the_guest_frozen(lab: Lab) -> None:
    result, found = lab.cycle(_Stuck(lab), budget_ns=_budget_ns(), **SHORT)
    stop, resume = result.observation.stop, result.observation.resume
    assert stop is not None and resume is not None
    assert resume.returned.raw_ns - stop.called.raw_ns <= _budget_ns()
    assert next(f for f in found if f.metric == "budget").outcome is Outcome.PASSED
    assert next(f for f in found if f.metric == "patch").outcome is Outcome.FAILED


class _Raising(Base):
    def __init__(self, error: BaseException) -> None:
        super().__init__("raising", Impact.FREEZE)
        self._error = error

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        raise self._error


@pytest.mark.parametrize("error", [Interrupted("interrupted"), ZeroDivisionError(), KeyboardInterrupt()])
@pytest.mark.parametrize("method", [FreezeMethod.SUSPEND, FreezeMethod.SIGSTOP])
def test_the_guest_runs_again_whatever_the_patch_raises(
    lab: Lab, error: BaseException, method: FreezeMethod
) -> None:
    with pytest.raises(type(error)):
        lab.cycle(_Raising(error), method=method, settle_ns=0, before_ns=NS_PER_S // 10)
    assert lab.runs()
    assert lab.subject.probe.read().round_trip_ns > 0


@pytest.fixture
def libvirt_is_late(lab: Lab) -> Iterator[None]:
    """Its thread for this guest waits for a CPU, as on a busy host."""
    tasks = Path("/proc/self/task").iterdir()
    threads = [int(task.name) for task in tasks if (task / "comm").read_text().startswith("vm-")]
    assert threads
    cpus, before = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for each in (busy.pid, *threads):
            os.sched_setaffinity(each, {min(cpus)})
        for thread in threads:
            # A tenth of the busy program's share, whatever priority the tests themselves have.
            os.setpriority(os.PRIO_PROCESS, thread, min(19, before + 10))
        yield
    finally:
        busy.kill()
        busy.wait()
        for thread in threads:
            os.sched_setaffinity(thread, cpus)
            with suppress(PermissionError):  # an ordinary user's may not come up again
                os.setpriority(os.PRIO_PROCESS, thread, before)


@pytest.mark.usefixtures("libvirt_is_late")
def test_its_state_is_known_after_the_shortest_pause(lab: Lab) -> None:
    suspend = Freezing(FreezeMethod.SUSPEND)
    for _ in range(20):
        lab.hypervisor.freeze("web-0", suspend, lab.clock.now().raw_ns + NS_PER_S)
        lab.hypervisor.resume("web-0", suspend)
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            assert lab.hypervisor.state("web-0") == "running"
            time.sleep(0.005)


def test_the_probe_survives_a_freeze_longer_than_the_default_budget(lab: Lab) -> None:
    long = patches.make(HoldPatch(31 * NS_PER_S), lab.clock)  # the default is 30 s
    before = lab.subject.probe.facts().reconnects
    result, _ = lab.cycle(long, budget_ns=60 * NS_PER_S, **SHORT)
    assert result.observation.facts_after is not None
    assert result.observation.facts_after.reconnects == before
    assert result.pause is not None and result.pause.closes, result.pause


def test_a_lost_channel_is_had_again_and_counted(lab: Lab, eventually: Callable[..., Any]) -> None:
    probe = lab.probe
    before = probe.facts().reconnects
    probe.ssh.wire.shutdown(socket.SHUT_RDWR)
    assert probe.read().round_trip_ns > 0

    def counted() -> bool:  # readings go on over the serial channel meanwhile
        return probe.read().round_trip_ns > 0 and probe.facts().reconnects == before + 1

    eventually(counted)
