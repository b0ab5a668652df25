"""A signal in the middle of a hand-over: the guest is put back, and the interruption goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.core.clock import Stamp
from lab.core.method import FreezeMethod
from lab.errors import HypervisorError, Interrupted
from lab.hypervisor.freeze.in_place import Exchange
from lab.ports import Call, Freezing, Resumed

NOW = Stamp(0, 0)


class Failing(Exchange):
    """One whose hand-over fails, and whose way back is only noted."""

    def __init__(self, failure: BaseException) -> None:
        clock = SimpleNamespace(now=lambda: NOW)
        context = SimpleNamespace(clock=clock, on_step=lambda _guest, _step: None)
        super().__init__(cast(Any, context), "web-0", Freezing(FreezeMethod.IN_PLACE))
        self._new.spec = cast(Any, object())  # prepared
        self._fails = failure
        self.back: list[str] = []

    def _stop(self) -> Call:
        return Call(NOW, NOW)

    def _hand_over(self, deadline_raw_ns: int) -> None:
        raise self._fails

    def _go_back(self, why: str) -> Resumed:
        self.back.append(why)
        return Resumed(Call(NOW, NOW), why=why)


def test_an_interruption_is_no_refusal() -> None:
    exchange = Failing(Interrupted("interrupted by SIGTERM"))
    with pytest.raises(Interrupted):
        exchange.stop(10**9)
    assert exchange.back == ["interrupted by SIGTERM"]


def test_a_refusal_calls_the_freeze_off() -> None:
    exchange = Failing(HypervisorError("the device state was refused"))
    frozen = exchange.stop(10**9)
    assert frozen.back is not None
    assert frozen.why == "the device state was refused"


def test_a_fault_of_ours_puts_the_guest_back_and_is_raised() -> None:
    exchange = Failing(KeyError("x"))
    with pytest.raises(KeyError):
        exchange.stop(10**9)
    assert exchange.back == ["KeyError"]
