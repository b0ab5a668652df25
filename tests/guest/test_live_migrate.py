"""live-migrate on a real guest: it moves while it runs, or stays where it was; one process is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.core.clocksource import READ_AGAIN
from lab.core.migration import MigrationSpec
from lab.core.plan import FreezeMethod, HoldPatch, Regime
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.host import patches
from lab.ports import Freezing
from tests.guest.conftest import Lab, processes

SHORT: dict[str, Any] = {"settle_ns": NS_PER_S // 2, "before_ns": 2 * NS_PER_S, "watch_ns": 3 * NS_PER_S}
METHOD = FreezeMethod.LIVE_MIGRATE
CRAWLING = MigrationSpec(bandwidth=1 << 20)


def test_a_guest_moves_with_its_memory(lab: Lab, home: Path) -> None:
    (old,) = processes(home)
    result, found = lab.cycle(patches.make(HoldPatch(0), lab.clock), method=METHOD, **SHORT)
    (new,) = processes(home)
    assert new != old
    pause, report = result.pause, result.observation.migration
    assert pause is not None and report is not None
    assert pause.closes and not pause.ran
    regimes = {Regime.RESUMED, None}  # of some ms, a busy host may leave it open
    facts = result.observation.facts_before
    if facts is not None and facts.clocksource == READ_AGAIN:
        # It runs on until QEMU sends the devices, which it does after the rest of the memory.
        regimes |= {Regime.MIXED, Regime.JUMPED}
    assert pause.regime in regimes
    assert result.boot_id_unchanged
    assert (report.status, report.downtime_ns is not None) == ("completed", True)
    assert report.passes >= 2
    # It was stopped for the rest of its memory only.
    assert pause.pause.high_ns < report.took_ns
    held = {check.metric: check.outcome for check in found}
    assert held["freeze"] is Outcome.PASSED


def test_what_does_not_converge_stays_and_never_stops(lab: Lab, home: Path) -> None:
    (old,) = processes(home)
    boot = lab.probe.facts().boot_id
    freezing = Freezing(METHOD, at_once=True, migration=CRAWLING)
    lab.hypervisor.prepare("web-0", freezing)
    began = lab.clock.now().raw_ns
    frozen = lab.hypervisor.freeze("web-0", freezing, began + 2 * NS_PER_S)
    assert lab.clock.now().raw_ns < began + 2 * NS_PER_S
    lab.hypervisor.finish("web-0")
    assert frozen.back is not None and frozen.resumed is None
    assert "did not converge" in frozen.why
    assert frozen.call.called == frozen.back.returned  # an instant: it was not stopped
    assert frozen.migration is not None
    report = frozen.migration()
    assert report is not None and report.status in ("cancelled", "failed")
    assert list(processes(home)) == [old]
    assert lab.runs()
    assert lab.probe.facts().boot_id == boot
