"""A shared guest that goes over to another process, for the tests of in-place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_S
from lab.ports import Freezing, Frozen, Resumed
from tests.guest.conftest import Lab

IN_PLACE = Freezing(FreezeMethod.IN_PLACE)


@pytest.fixture(autouse=True)
def quiet(shared: Lab) -> Iterator[None]:
    yield
    shared.hypervisor.on_step(lambda _guest, _step: None)
    if shared.hypervisor.state("web-0") != "shut off":
        shared.hypervisor.resume("web-0", IN_PLACE)
    shared.hypervisor.finish("web-0")


def hand_over(
    lab: Lab, freezing: Freezing = IN_PLACE, budget_ns: int = 30 * NS_PER_S
) -> tuple[Frozen, Resumed]:
    lab.hypervisor.prepare("web-0", freezing)
    frozen = lab.hypervisor.freeze("web-0", freezing, lab.clock.now().raw_ns + budget_ns)
    resumed = lab.hypervisor.resume("web-0", freezing)
    lab.hypervisor.finish("web-0")
    return frozen, resumed
