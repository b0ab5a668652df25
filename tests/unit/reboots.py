"""A synthetic guest that reboots by itself."""

from __future__ import annotations

from dataclasses import replace

from lab.core.clock import GuestClock, Stamp
from lab.core.plan import Regime
from lab.core.timeline import Observation
from tests.unit.simulated_clocks import BASE, GUEST_RAW
from tests.unit.simulation import MS, S, Scenario, Truth, simulate


def rebooting(s: Scenario, after_ns: int, boot_ns: int, uptime_ns: int) -> tuple[Observation, Truth]:
    """The guest reboots by itself after_ns after it got going, and its probe answers again boot_ns later;
    what is fetched at the end is of that boot. uptime_ns: of the first boot at the beginning."""
    obs, truth = simulate(s)
    at = truth.pauses[-1][1] + after_ns if truth.pauses else truth.resumed + after_ns
    again, _ = simulate(
        Scenario(seed=s.seed + 1, regime=Regime.RUNNING, pause_ns=0, before_ns=300 * MS, watch_ns=S)
    )
    raw = GuestClock.RAW
    old = [r for r in obs.readings if r.t4.raw_ns < at]

    def shifted(clocks: dict[GuestClock, int], by: int) -> dict[GuestClock, int]:
        return {clock: value + (0 if clock is GuestClock.REAL else by) for clock, value in clocks.items()}

    older = uptime_ns - GUEST_RAW
    first = [replace(r, t2=shifted(r.t2, older), t3=shifted(r.t3, older)) for r in old]
    moved, younger = at + boot_ns - BASE, boot_ns - GUEST_RAW
    later = [
        replace(
            r,
            t1=Stamp(r.t1.raw_ns + moved, r.t1.real_ns + moved),
            t4=Stamp(r.t4.raw_ns + moved, r.t4.real_ns + moved),
            t2=shifted(r.t2, younger),
            t3=shifted(r.t3, younger),
        )
        for r in again.readings
    ]
    beats = [replace(b, sent_raw_ns=b.sent_raw_ns + older) for b in obs.beats if b.arrived.raw_ns < at] + [
        replace(
            b,
            sent_raw_ns=b.sent_raw_ns + younger,
            arrived=Stamp(b.arrived.raw_ns + moved, b.arrived.real_ns + moved),
        )
        for b in again.beats
    ]
    assert again.sampler is not None
    assert obs.facts_after is not None
    sampler = again.sampler
    sampler = replace(
        sampler,
        first_raw_ns=sampler.first_raw_ns + younger,
        last_raw_ns=sampler.last_raw_ns + younger,
        holes=tuple(
            replace(h, from_raw_ns=h.from_raw_ns + younger, to_raw_ns=h.to_raw_ns + younger)
            for h in sampler.holes
        ),
    )
    assert all(r.t3[raw] >= 0 for r in first)
    return (
        replace(
            obs, readings=(*first, *later), beats=tuple(beats), sampler=sampler,
            facts_after=replace(obs.facts_after, boot_id="another"),
        ),
        truth,
    )  # fmt: skip
