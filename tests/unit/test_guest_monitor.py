"""A guest that uses no CPU time, and looks that come late."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.errors import GuestGone
from lab.session.guest_monitor import GuestMonitor

QUARTERS = [look / 4 for look in range(40)]


def stands_still_at(looks: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> float | None:
    """At which of these looks, in seconds, the monitor says so of a guest that uses no CPU time."""
    hypervisor = SimpleNamespace(is_ours=lambda _name: False, cpu_time_ns=lambda _name: 7)
    probes = {"web-0": SimpleNamespace(resting=False)}
    monitor = GuestMonitor(cast("Any", hypervisor), {}, cast("Any", probes))
    for look in looks:
        monkeypatch.setattr("lab.session.guest_monitor.time.monotonic", lambda look=look: look)
        try:
            monitor._look_for_work("web-0")
        except GuestGone:
            return look
    return None


def test_a_guest_stands_still_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stands_still_at(QUARTERS, monkeypatch) == 2.0


def test_not_where_a_freeze_may_have_been_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    late = [0.0, 0.25, *(2.5 + look for look in QUARTERS)]
    assert stands_still_at(late, monkeypatch) == 4.5
