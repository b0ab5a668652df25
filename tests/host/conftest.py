"""Patches with the host's own programs and kernel. What a host cannot show is skipped with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lab.controller import RESERVE_NS
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.ports import HostPatch, PatchResult
from lab.process.clock import HostClock


@pytest.fixture(scope="session")
def clock() -> HostClock:
    return HostClock()


@pytest.fixture(scope="session")
def expendable() -> None:
    """A host that is there to be tried on: its kernel and its services are changed. test_lab_host.py makes
    one."""
    if os.environ.get("FREEZELAB_EXPENDABLE") != "1":
        pytest.skip(
            "changes this host: set FREEZELAB_EXPENDABLE=1 on one that may be, or see test_lab_host.py"
        )
    if os.geteuid() != 0:
        pytest.skip("only root can change the host")


@pytest.fixture
def apply(clock: HostClock) -> Callable[[HostPatch, float], PatchResult]:
    """Apply, and hold the patch to its promises: back in time, its steps in order and within the call."""

    def go(patch: HostPatch, budget_s: float) -> PatchResult:
        began = clock.now().raw_ns
        deadline = began + round(budget_s * NS_PER_S)
        result = patch.apply(deadline)
        ended = clock.now().raw_ns
        assert ended <= deadline + RESERVE_NS // 2  # what is later, the budget's guard has in its hands
        assert bool(result.why) != result.ok
        for step in result.steps:
            assert began <= step.began_raw_ns <= step.ended_raw_ns <= ended
        return result

    return go


@pytest.fixture
def refusal() -> Callable[[HostPatch], MachineError]:
    """What check() says."""

    def ask(patch: HostPatch) -> MachineError:
        with pytest.raises(MachineError) as caught:
            patch.check()
        assert "\n" not in caught.value.what
        return caught.value

    return ask
