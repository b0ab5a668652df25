"""Selects the observations of the boot that was to be frozen.

A guest may reboot by itself. Its MONOTONIC_RAW then begins again, and a new boot's observations are of other
clocks, another sampler and other programs, so none of them counts for the old boot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lab.core.clock import PHI_PPM, GuestClock, Interval
from lab.core.offsets import Rate
from lab.core.rates import UNKNOWN_DRIFT_PPM
from lab.core.timeline import Heartbeat, Observation, Reading

FREE = Rate.within(UNKNOWN_DRIFT_PPM + PHI_PPM)


@dataclass(frozen=True)
class Boots:
    """Observations divided by boot. observation: those of the boot before the freeze. another: the guest was
    certainly observed in another boot. when: from the last observation of the first boot to the first one of
    the second, host MONOTONIC_RAW; None where no reading bounds it."""

    observation: Observation
    another: bool
    when: Interval | None = None


def _new(earlier: Reading, later: Reading, still_ns: int, known: bool) -> bool:
    """True when the later reading is of another boot. still_ns: for how long the clocks may have stood still
    between the readings. known: the boot_id at the end shows that there was another boot.

    Within a boot MONOTONIC_RAW never goes back. When another boot is known, a clock that lost more time than
    it may have stood still belongs to that boot.

    """
    raw = GuestClock.RAW
    if later.t1.raw_ns < earlier.t4.raw_ns:
        return False  # both under way at once
    if raw not in later.t3 or raw not in earlier.t3:
        return False
    if later.t3[raw] < earlier.t2[raw]:
        return True
    if not known:
        return False
    passed = Interval(later.t1.raw_ns - earlier.t4.raw_ns, later.t4.raw_ns - earlier.t1.raw_ns)
    change = later.offset(raw) - earlier.offset(raw)
    may = FREE.change_ns(passed.low_ns, passed.high_ns)
    return change.high_ns < may.low_ns - still_ns


def _still_ns(obs: Observation, earlier: Reading, later: Reading) -> int:
    stop, resume = obs.stop, obs.resume
    if stop is None or resume is None:
        return 0
    if earlier.t4.raw_ns > resume.returned.raw_ns or later.t1.raw_ns < stop.called.raw_ns:
        return 0
    return resume.returned.raw_ns - stop.called.raw_ns


def _beats(beats: Sequence[Heartbeat], until_raw_ns: int | None) -> tuple[Heartbeat, ...]:
    """The heartbeats of the first boot: until one has an earlier time, or arrives after another boot was
    observed."""
    in_order: list[Heartbeat] = []
    for beat in beats:
        if in_order and beat.sent_raw_ns < in_order[-1].sent_raw_ns:
            break
        if until_raw_ns is not None and beat.arrived.raw_ns >= until_raw_ns:
            break
        in_order.append(beat)
    return tuple(in_order)


def of_first_boot(obs: Observation) -> Boots:
    """Divides the observations by boot. For a patch with a reboot see core.reboot."""
    first, last = obs.facts_before, obs.facts_after
    ids = [facts.boot_id for facts in (first, last) if facts is not None]
    known, same = len(set(ids)) == 2, len(ids) == 2 and len(set(ids)) == 1
    if obs.method.boots_anew or same:
        return Boots(obs, known)
    readings = obs.readings
    cut = next(
        (
            number
            for number, (earlier, later) in enumerate(pairwise(readings), 1)
            if _new(earlier, later, _still_ns(obs, earlier, later), known)
        ),
        None,
    )
    if cut is None and not known:
        return Boots(obs, False)
    when = until = None
    if cut is not None:
        when = Interval(
            readings[cut - 1].t4.raw_ns, max(readings[cut - 1].t4.raw_ns, readings[cut].t4.raw_ns)
        )
        until, readings = readings[cut].t1.raw_ns, readings[:cut]
    return Boots(
        replace(
            obs,
            readings=readings,
            beats=_beats(obs.beats, until),
            # Fetched at the end, from the boot that was there then.
            sampler=None,
            claims=(),
            effects=None,
        ),
        True,
        when,
    )
