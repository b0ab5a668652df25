"""Rollouts: from the history to their progress, and to run.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from lab.core.clock import Stamp
from lab.core.fleet_clocks import FleetClocks
from lab.core.history import (
    CycleBegan,
    CycleEnded,
    GateAsked,
    RolloutEnded,
    RolloutPlanned,
    WaveReached,
)
from lab.core.one_at_a_time import Ends, Proof, Skew, named
from lab.core.plan import DomainKind, GuestSpec, RolloutEnd
from lab.core.rollout import Domain, set_of
from lab.core.rollout_result import GateHistory, RolloutHistory, WaveHistory, over_hosts, stands
from lab.core.verdict import Finding, worst
from lab.errors import RecordError
from lab.record.event_timelines import totals_of
from lab.record.journal import History
from lab.record.model import CycleRecord
from lab.record.model_events import ApartRecord, EventRecord, OneAtATime, RolloutRecord, WaveRecord
from lab.record.model_events import DomainRecord as DomainMember
from lab.record.parts import parts_of
from lab.record.statistics import spread_of_pauses


def ends_of(history: History) -> Ends:
    """The end of each guest's cycle, host MONOTONIC_RAW. A cycle that was cut off has none."""
    cells: dict[tuple[int, str], str] = {}
    found: dict[tuple[str, int, str], int] = {}
    for entry in history.entries:
        match entry.event:
            case CycleBegan(guest=guest, cycle=cycle, cell=cell):
                cells[cycle, guest] = cell
            case CycleEnded(guest=guest, cycle=cycle) if (cycle, guest) in cells:
                found[cells[cycle, guest], cycle, guest] = entry.at.raw_ns
            case _:
                pass
    return found


def _changed(
    history: RolloutHistory, event: WaveReached | GateAsked | RolloutEnded, at: Stamp
) -> RolloutHistory:
    """The rollout's history with one more event. IndexError when no wave has begun."""
    if isinstance(event, RolloutEnded):
        return replace(history, ended=event.ended, why=event.why, stopped_in=event.wave)
    if isinstance(event, WaveReached) and event.when == "begin":
        wave = WaveHistory(event.number, event.cycle, event.domains, event.guests, at.real_ns)
        return replace(history, waves=(*history.waves, wave))
    last = history.waves[-1]
    if isinstance(event, GateAsked):
        gate = GateHistory(event.guest, event.gate, event.ok, event.why, event.took_ns)
        last = replace(last, gates=(*last.gates, gate))
    else:
        last = replace(last, over=True)
    return replace(history, waves=(*history.waves[:-1], last))


def rollouts_of(history: History, hosts: int = 0, clocks: FleetClocks | None = None) -> list[RolloutHistory]:
    """Every rollout that has begun. hosts, clocks: how many a fleet over hosts has, and their clocks; 0 and
    None for any other. RecordError for an event of a rollout or of a wave that has not."""
    if clocks is None:
        return _rollouts(history)
    each = [
        _rollouts(own, partial(clocks.controllers_stamp, str(part.host.details.get("host", ""))))
        for part, own in parts_of(history)
    ]
    many = max((len(one) for one in each), default=0)
    return [over_hosts([one[n] for one in each if n < len(one)], hosts) for n in range(many)]


def _rollouts(history: History, stamp: Callable[[Stamp], Stamp] = lambda at: at) -> list[RolloutHistory]:
    """Those of one host. stamp: maps its clocks to those that the times are to be of."""
    found: list[RolloutHistory] = []
    for entry in history.entries:
        event = entry.event
        try:
            if isinstance(event, RolloutPlanned):
                found.append(RolloutHistory(event.seed, event.by, event.waves))
            elif isinstance(event, WaveReached | GateAsked | RolloutEnded):
                found[-1] = _changed(found[-1], event, stamp(entry.at))
        except IndexError:
            raise RecordError(
                f"event {entry.seq} ({entry.kind}) is damaged: its rollout or its wave was not begun",
                where=str(history.folder),
            ) from None
    return found


def _iso(real_ns: int) -> str:
    return datetime.fromtimestamp(real_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _state(history: RolloutHistory, wave: WaveHistory) -> str:
    if history.done(wave):
        return "done"
    stopped = history.ended is RolloutEnd.STOPPED and wave.number == history.stopped_in
    return "stopped" if stopped or wave.refused is not None else "cut off"


def rollout_of(
    history: RolloutHistory,
    guests: Sequence[GuestSpec],
    cycles: Sequence[tuple[str, CycleRecord]],
    events: Sequence[EventRecord],
    skews: Sequence[Skew],
    found: Sequence[Finding],
) -> RolloutRecord:
    """The rollout's entry in run.json. cycles: all of the run, each with its guest. found: all findings."""
    apart = {(skew.cycle, skew.domain): skew for skew in skews}
    sets = {guest.name: (set_of(guest), history.by.of(guest)) for guest in guests}
    by_cycle: dict[int, list[tuple[str, CycleRecord]]] = {}
    for guest, cycle in cycles:
        by_cycle.setdefault(cycle.index, []).append((guest, cycle))
    events_of: dict[int, list[EventRecord]] = {}
    for event in events:
        events_of.setdefault(event.cycle, []).append(event)
    judged: dict[int, list[Finding]] = {}
    for finding in found:
        judged.setdefault(finding.cycle, []).append(finding)
    waves = [
        _begun(
            history, wave, sets, by_cycle.get(wave.cycle, []), events_of.get(wave.cycle, []), apart, judged
        )
        for wave in history.waves
    ]
    for number, guests_of in enumerate(history.planned[len(waves) :], start=len(waves) + 1):
        domains = dict.fromkeys(sets[name] for name in guests_of if name in sets)
        waves.append(
            WaveRecord(number, "not begun", _domains(domains, guests_of, sets, {}, -1), len(guests_of))
        )
    return RolloutRecord(
        history.by,
        history.seed,
        history.ended.value if history.ended is not None else "",
        history.why,
        tuple(waves),
        history.stopped_in if history.ended is RolloutEnd.STOPPED else None,
        stands(history, guests),
    )


def _domains(
    domains: Sequence[Domain] | Mapping[Domain, None],
    guests: Sequence[str],
    sets: Mapping[str, Domain],
    apart: Mapping[tuple[int, Domain | None], Skew],
    cycle: int,
) -> tuple[DomainMember, ...]:
    found = []
    for domain in domains:
        skew = apart.get((cycle, domain))
        members = tuple(guest for guest in guests if sets.get(guest) == domain)
        stop, resume = (skew.stop, skew.resume) if skew is not None else (None, None)
        found.append(DomainMember(*domain, members, stop, resume))
    return tuple(found)


def _begun(
    history: RolloutHistory,
    wave: WaveHistory,
    sets: Mapping[str, Domain],
    given: Sequence[tuple[str, CycleRecord]],
    events: Sequence[EventRecord],
    apart: Mapping[tuple[int, Domain | None], Skew],
    judged: Mapping[int, Sequence[Finding]],
) -> WaveRecord:
    cycles = [cycle for guest, cycle in given if guest in wave.guests]
    notices = [event.given_ns for event in events if event.given_ns is not None]
    times = [c.resync.time_ns for c in cycles if c.resync is not None and c.resync.time_ns is not None]
    return WaveRecord(
        number=wave.number,
        state=_state(history, wave),
        domains=_domains(wave.domains, wave.guests, sets, apart, wave.cycle),
        guests=len(wave.guests),
        cycle=wave.cycle,
        began=_iso(wave.began_real_ns),
        notice_ns=min(notices, default=None),
        pause=spread_of_pauses(cycles),
        in_time_ns=max(times) if times and len(times) == len(wave.guests) else None,
        gates=wave.gates,
        outcome=(outcome := worst(f.outcome for f in judged.get(wave.cycle, ()))),
        why=next((f.why for f in judged.get(wave.cycle, ()) if f.outcome is outcome and f.why), ""),
        events=totals_of(events),
    )


def proof_of(proof: Proof, by: DomainKind) -> OneAtATime:
    """The proof's entry in run.json."""
    near = proof.overlap or proof.nearest
    nearest = None if near is None else ApartRecord(named(near.first, by), named(near.second, by), near.ns)
    return OneAtATime(proof.outcome, proof.why, proof.sets, proof.times, nearest)
