"""The clock of a freeze by hand, whose waits can be called off. test_pytest_plugin.py freezes guests."""

from __future__ import annotations

import threading
import time

import pytest

from lab.core.units import NS_PER_S
from lab.errors import Interrupted
from lab.process.clock import HostClock
from lab.session.guest_session import InterruptibleClock


def test_a_wait_ends_when_it_is_over() -> None:
    clock = InterruptibleClock(HostClock())
    until = clock.now().raw_ns + NS_PER_S // 20
    clock.sleep_until(until)
    assert 0 <= clock.now().raw_ns - until < NS_PER_S
    clock.sleep_until(until)


def test_an_interrupt_ends_the_present_wait_and_all_later_ones() -> None:
    clock = InterruptibleClock(HostClock())
    begun = time.monotonic()
    timer = threading.Timer(0.1, clock.interrupt)
    timer.start()
    with pytest.raises(Interrupted):
        clock.sleep_until(clock.now().raw_ns + 3600 * NS_PER_S)
    timer.join()
    for past in (0, clock.now().raw_ns + 3600 * NS_PER_S):
        with pytest.raises(Interrupted):
            clock.sleep_until(past)
    assert time.monotonic() - begun < 30
