"""What a real guest's programs claim through a pause, and what else the pause does to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core.claims import Audit
from lab.core.effects import Effects, Timers, rtc_around
from lab.core.mechanism import ResyncMechanism
from lab.core.plan import FreezeMethod, HoldPatch
from lab.core.result import CycleResult
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.guest.timesync.host_actions import NoResync
from lab.guest.watcher import GuestWatcher
from lab.host import chronyd, patches
from lab.host.chronyd import Chronyd
from lab.session.paths import default_home
from tests.guest.conftest import Lab

PAUSE_NS = 3 * NS_PER_S
STOPPED_NS = 2 * NS_PER_S  # the ACPI PM timer, these guests' clocksource, wraps after 4.69 s without a tick
CHRONY = """\
server 10.0.2.2 port {port} minpoll -2 maxpoll -2 iburst
makestep 0.1 -1
rtcsync
"""
START = """\
cat > /run/watched.conf
install -d -o _chrony -g _chrony -m 0750 /run/chrony
chronyd -f /run/watched.conf
chronyc waitsync 100 0.05 2000 0.2
chronyc offline
"""
STOP = "chronyc shutdown; rm -f /run/watched.conf"
OURS = "pgrep -f '[ ]chronyc,timedatectl'; pgrep -x chronyc"


@pytest.fixture(scope="module")
def watched(lab: Lab, home: Path) -> Iterator[Lab]:
    """A guest whose chronyd was synchronised once and does not ask its server any more; nobody repairs its
    clock, and a watcher is in it. Nothing of the watcher is left in the end."""
    with Chronyd(chronyd.find(home, default_home()), lab.folder / "chronyd", lab.clock) as server:
        lab.probe.ssh.check(START, stdin=CHRONY.format(port=server.port).encode())
        most_ns = 600 * NS_PER_S
        with GuestWatcher(
            "web-0", lambda: lab.probe.ssh, ResyncMechanism.CHRONY, True, 0.0, 1, most_ns
        ) as watcher:
            assert lab.probe.ssh.run(OURS).out
            subject = replace(lab.subject, resync=NoResync(), watcher=watcher)
            yield Lab(lab.hypervisor, subject, lab.folder, lab.clock)
        end = time.monotonic() + 20
        while (left := lab.probe.ssh.run(OURS).out) and time.monotonic() < end:
            time.sleep(0.2)
        assert not left
        lab.probe.ssh.run(STOP)


def cycle(lab: Lab, method: FreezeMethod, pause_ns: int) -> CycleResult:
    result, found = lab.cycle(
        method=method,
        patch=patches.make(HoldPatch(pause_ns), lab.clock),
        settle_ns=0,
        before_ns=3 * NS_PER_S,
        watch_ns=6 * NS_PER_S,
        effects=True,
    )
    assert result.problems == ()
    assert {f.metric: f.outcome for f in found}["monotonic"] is Outcome.PASSED
    return result


def audit_of(result: CycleResult, source: str) -> Audit:
    return {audit.source: audit for audit in result.audits}[source]


def effects_of(result: CycleResult) -> Effects:
    assert result.observation.effects is not None
    return result.observation.effects


def late(fleet: Timers, from_ns: int) -> int:
    """How many were later than that."""
    edges = [0, *(edge for edge, _ in fleet.buckets)]
    return sum(count for edge, (_, count) in zip(edges, fleet.buckets, strict=False) if edge >= from_ns)


def test_a_chronyd_that_does_not_notice_a_suspend_is_found_out(watched: Lab) -> None:
    result = cycle(watched, FreezeMethod.SUSPEND, PAUSE_NS)
    assert result.pause is not None
    pause = result.pause.pause
    claims = result.observation.claims
    assert result.resumed_guest is not None
    for source in ("adjtimex", "chronyc tracking"):
        audit = audit_of(result, source)
        own = [claim for claim in claims if claim.source == source]
        after = [claim for claim in own if claim.from_raw_ns > result.resumed_guest.high_ns]
        assert len(after) < len(own)
        assert audit.wrong == len(after) > 0, audit
        # By about the pause: what it claimed, and what the clock was off before, are much less.
        assert pause.low_ns * 0.8 < audit.worst_ns <= pause.high_ns + 100 * NS_PER_MS
        assert audit.wrong_ns.low_ns > NS_PER_S
        assert "claims synced" in audit.example and "behind" in audit.example
    # By their own clock, which stood still, the timers were not late.
    for fleet in effects_of(result).timers:
        assert fleet.count > fleet.timers == 6
        assert late(fleet, 2 * NS_PER_S) == 0
    before, after_look = rtc_around(effects_of(result).rtc, result.resumed_guest)
    if before is not None and after_look is not None:  # a busy machine may miss the moment
        moved = after_look.rtc_minus_real_ns - before.rtc_minus_real_ns
        slack = before.bound_ns + after_look.bound_ns + 50 * NS_PER_MS
        assert pause.low_ns - slack < moved < pause.high_ns + slack


def test_timers_are_late_where_the_clocks_run_on(watched: Lab) -> None:
    result = cycle(watched, FreezeMethod.SIGSTOP, STOPPED_NS)
    assert result.pause is not None
    for fleet in effects_of(result).timers:
        # The shortest period is 0.3 s; three are below a second.
        assert fleet.worst_ns > result.pause.pause.low_ns - 300 * NS_PER_MS
        assert late(fleet, NS_PER_S) >= 2
        assert fleet.early == 0
    assert effects_of(result).boot_minus_mono_ns is not None


def test_claims_end_with_the_daemon(
    watched: Lab, eventually: Callable[[Callable[[], Any], float], Any]
) -> None:
    watcher = watched.subject.watcher
    assert watcher is not None

    def last() -> Any:
        said = [claim for claim in watcher.claims() if claim.source == "chronyc tracking"]
        return said[-1] if said else None

    watcher.start_cycle()
    assert eventually(last, 30).stands
    watched.probe.ssh.run("chronyc shutdown")
    eventually(lambda: not last().stands, 30)
