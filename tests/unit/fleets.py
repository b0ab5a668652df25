"""Histories of announced cycles and of rollouts, made of simulated cycles that are moved in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lab.core.clock import GuestClock, Stamp
from lab.core.handlers import HandlerEnd
from lab.core.history import (
    SCHEMA,
    CycleEnded,
    EventHappened,
    EventsAnnounced,
    GateAsked,
    GuestBooted,
    HandlerEnded,
    RolloutEnded,
    RolloutPlanned,
    RunEnded,
    RunStarted,
    ServiceFailed,
    WaveReached,
)
from lab.core.plan import (
    Announcement,
    CycleSpec,
    Expectations,
    FreezeMethod,
    Gate,
    GateKind,
    GuestSpec,
    HoldPatch,
    NoticeExpectations,
    Plan,
    ResyncMechanism,
    Rollout,
    RolloutEnd,
)
from lab.core.rollout import Wave, set_of, waves
from lab.core.scheduled.model import Event, EventStatus, EventType, Happening, Kind, Notice
from lab.core.timeline import Call, Observation
from lab.record.journal import FileJournal
from tests.unit.journalled import HOST, cycle, journal_cycle
from tests.unit.simulated_clocks import BASE
from tests.unit.simulation import MS, S

REAL = 1_795_000_000 * S
EVERY = 12 * S
"""From one wave to the next."""


def at(ns: int) -> Stamp:
    """So long after the run's begin."""
    return Stamp(BASE + ns, REAL + ns)


class Told:
    """The journal's clock: it says what it was told last."""

    def __init__(self) -> None:
        self.ns = 0

    def now(self) -> Stamp:
        return at(self.ns)

    def sleep_until(self, raw_ns: int) -> None:
        self.ns = raw_ns - BASE


def moved(o: Observation, by: int, guest: str) -> Observation:
    """The same cycle of another guest, so much later by all clocks."""

    def stamp(s: Stamp) -> Stamp:
        return Stamp(s.raw_ns + by, s.real_ns + by)

    def call(c: Call | None) -> Call | None:
        if c is None:
            return None
        event = None if c.event_real_ns is None else c.event_real_ns + by
        return replace(c, called=stamp(c.called), returned=stamp(c.returned), event_real_ns=event)

    def clocks(given: dict[GuestClock, int]) -> dict[GuestClock, int]:
        return {clock: value + by for clock, value in given.items()}

    sampler = o.sampler
    if sampler is not None:
        sampler = replace(
            sampler,
            first_raw_ns=sampler.first_raw_ns + by,
            last_raw_ns=sampler.last_raw_ns + by,
            holes=tuple(replace(h, from_raw_ns=h.from_raw_ns + by, to_raw_ns=h.to_raw_ns + by)
                        for h in sampler.holes),
            steps=tuple(replace(s, at_raw_ns=s.at_raw_ns + by) for s in sampler.steps),
        )  # fmt: skip
    readings = (
        replace(r, t1=stamp(r.t1), t2=clocks(r.t2), t3=clocks(r.t3), t4=stamp(r.t4)) for r in o.readings
    )
    beats = (replace(b, sent_raw_ns=b.sent_raw_ns + by, arrived=stamp(b.arrived)) for b in o.beats)
    return replace(
        o, guest=guest, readings=tuple(readings), beats=tuple(beats), sampler=sampler, stop=call(o.stop),
        resume=call(o.resume),
    )  # fmt: skip


@dataclass(frozen=True)
class Spoken:
    """How the guests of a set take an announcement: after how long each kind of thing happens, None: never.
    started_ns: None is when it was approved, or is due."""

    notice_ns: int = 15 * S
    duration_s: int = 5
    seen_ns: int | None = 400 * MS
    approved_ns: int | None = 900 * MS
    started_ns: int | None = None
    heard: bool = True
    cancelled_ns: int | None = None
    gone: bool = True


GOOD = Spoken()
SHOWN_NS = 2 * S


def _id(number: int) -> str:
    return f"{number:08X}-5A1E-4C0D-9E57-0123456789AB"


def announced(
    number: int, group: str, guests: Sequence[str], members: Sequence[str], begin: int, said: Spoken
) -> tuple[Event, list[Happening], int]:
    """An event published at `begin`, what happened to it until its freeze, and when it started."""
    notice = Notice(group, tuple(guests), EventType.FREEZE, said.notice_ns, said.duration_s)
    status = EventStatus.SCHEDULED if said.notice_ns > 0 else EventStatus.STARTED
    event = Event(_id(number), notice, status, at(begin), at(begin + max(0, said.notice_ns)))

    def happened(kind: Kind, since: int, guest: str = "") -> Happening:
        return Happening(at(begin + since), kind, group, event.id, guest, 2)

    if not said.heard:
        return event, [happened(Kind.NOT_ENABLED, 0)], begin
    told = [happened(Kind.PUBLISHED, 0)]
    if said.seen_ns is not None:
        told += [happened(Kind.SEEN, said.seen_ns + 70 * MS * i, guest) for i, guest in enumerate(members)]
    if said.cancelled_ns is not None:
        told.append(happened(Kind.CANCELLED, said.cancelled_ns))
        return event, told, begin + said.cancelled_ns
    started = said.started_ns
    if started is None:
        started = said.notice_ns if said.approved_ns is None else said.approved_ns
    if said.approved_ns is not None:
        told.append(happened(Kind.APPROVED, said.approved_ns, guests[0]))
    told.append(happened(Kind.STARTED, started))
    if said.seen_ns is not None:
        told += [
            happened(Kind.SEEN_STARTED, started + 200 * MS + 70 * MS * i, guest)
            for i, guest in enumerate(members)
        ]
    return event, told, begin + started


EXPECT = Expectations(in_time_within_ns=800 * MS, hold_ns=300 * MS, final_offset_ns=100 * MS)
CLOCK = Gate(GateKind.CLOCK)
HEALTH = Gate(GateKind.COMMAND, "systemctl is-active web")
GATED, ANNOUNCE = Rollout(gates=(HEALTH, CLOCK)), Announcement()


@dataclass(frozen=True)
class Made:
    """A fleet's history. sets: (name, update domains, guests of each). bad: a wave in which a gate does not
    hold. early_ns: by how much the waves after the first come too early. cut: the history ends in this
    wave. ends: of handlers, by guest and cycle. troubles: of the metadata service."""

    sets: tuple[tuple[str, int, int], ...] = (("web", 4, 2),)
    pause_ns: int = 2 * S
    rollout: Rollout | None = GATED
    expect: Expectations = EXPECT
    announce: Announcement | None = ANNOUNCE
    said: Spoken = GOOD
    bad: int | None = None
    early_ns: int = 0
    cut: int | None = None
    change: Callable[[Observation], Observation] | None = None
    ends: tuple[tuple[str, int, HandlerEnd], ...] = ()
    troubles: tuple[str, ...] = ()

    def guests(self) -> tuple[GuestSpec, ...]:
        return tuple(
            GuestSpec(f"{name}-{domain * many + i}", update_domain=domain, availability_set=name)
            for name, domains, many in self.sets
            for domain in range(domains)
            for i in range(many)
        )


def write(folder: Path, name: str, made: Made) -> Path:
    """The history of a run with one cycle of each guest, wave by wave or all at once."""
    guests = made.guests()
    spec = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(made.pause_ns), announce=made.announce)
    plan = Plan(
        name, "", "00", guests, ResyncMechanism.AGENT, spec, made.expect, rollout=made.rollout
    )  # fmt: skip
    where = folder / name
    where.mkdir(parents=True)
    clock = Told()
    with FileJournal(where, clock) as journal:
        journal.append(RunStarted(SCHEMA, name, plan, HOST))
        for guest in guests:
            journal.append(GuestBooted(guest.name, {"to_probe_s": 1.1}))
        _Writer(made, guests, journal, clock).all()
        for name_of, index, end in made.ends:
            journal.append(HandlerEnded(name_of, end, cycle=index))
        for trouble in made.troubles:
            journal.append(ServiceFailed(trouble))
        if made.cut is None:
            journal.append(RunEnded(interrupted=False, failure=""))
    return where


class _Writer:
    def __init__(self, made: Made, guests: tuple[GuestSpec, ...], journal: FileJournal, clock: Told) -> None:
        self.made, self.guests, self.journal, self.clock = made, guests, journal, clock
        self.events = 0

    def all(self) -> None:
        rollout = self.made.rollout
        if rollout is None:
            self.cycle(Wave(1, (), tuple(guest.name for guest in self.guests)), 0)
            return
        planned = waves(self.guests, rollout)
        lists = tuple(wave.guests for wave in planned)
        self.journal.append(RolloutPlanned(rollout.seed, rollout.by, lists))
        for wave in planned:
            self.wave(wave, len(planned), "begin")
            self.cycle(wave, wave.number - 1)
            if self.made.cut == wave.number:
                return
            why = self.gates(wave, rollout)
            self.wave(wave, len(planned), "end")
            if why:
                self.journal.append(RolloutEnded(RolloutEnd.STOPPED, why, wave.number))
                return
        self.journal.append(RolloutEnded(RolloutEnd.COMPLETE, "", len(planned)))

    def wave(self, wave: Wave, of: int, when: Literal["begin", "end"]) -> None:
        index = wave.number - 1
        self.journal.append(WaveReached(index, wave.number, wave.domains, wave.guests, when, of))

    def gates(self, wave: Wave, rollout: Rollout) -> str:
        reason = ""
        for gate in rollout.gates:
            for guest in wave.guests:
                ok = not (wave.number == self.made.bad and gate is HEALTH and guest == wave.guests[-1])
                why = "" if ok else "inactive (exit 3)"
                reason = reason or ("" if ok else f"{guest}: {gate.label}: {why}")
                took = 40 * MS if ok else 30 * S
                self.journal.append(GateAsked(guest, wave.number - 1, gate.label, ok, why, took))
        return reason

    def cycle(self, wave: Wave, index: int) -> None:
        made, said = self.made, self.made.said
        begin = self.clock.ns = index * EVERY - (made.early_ns if index else 0)
        told: list[Happening] = []
        started, found = begin, list[Event]()
        if made.announce is not None:
            groups: dict[str, list[GuestSpec]] = {}
            for spec in self.guests:
                if spec.name in wave.guests:
                    groups.setdefault(set_of(spec), []).append(spec)
            for group, specs in groups.items():
                members = [spec.name for spec in self.guests if set_of(spec) == group]
                names = [spec.name for spec in specs]
                self.events += 1
                event, given, began = announced(self.events, group, names, members, begin, said)
                found.append(event)
                told += given
                started = max(started, began)
            factor = made.announce.time_factor
            self.journal.append(EventsAnnounced(index, tuple(found), factor))
            self.notices(index, told)
        off = made.said.cancelled_ns is not None
        seen: list[Observation] = []
        for number, name in enumerate(wave.guests):
            method = FreezeMethod.NONE if off else FreezeMethod.SUSPEND
            one = cycle(method, index, 0 if off else made.pause_ns, seed=10 * index + number)
            assert one.stop is not None
            # The one before is stopped first: one call after another.
            wanted = started + SHOWN_NS + 50 * MS + number * 8 * MS
            one = moved(one, BASE + wanted - one.stop.called.raw_ns, name)
            seen.append(made.change(one) if made.change is not None else one)
        for one in seen:
            journal_cycle(self.journal, one, end=False)
        last = max(r.t4.raw_ns for one in seen for r in one.readings) - BASE
        self.clock.ns = last
        if made.announce is not None and said.heard and said.gone and not off:
            over = last - 300 * MS
            gone = [
                Happening(at(over + 150 * MS * i), kind, event.notice.group, event.id, guest, 3)
                for event in found
                for i, (kind, guest) in enumerate(
                    ((Kind.GONE, ""), *((Kind.SEEN_GONE, name) for name in event.notice.resources[:1]))
                )
            ]
            self.notices(index, gone)
        if made.cut != wave.number:
            for one in seen:
                self.journal.append(CycleEnded(one.guest, index, one.host_step_ns))

    def notices(self, index: int, told: Sequence[Happening]) -> None:
        for happening in told:
            self.journal.append(EventHappened(happening, index))


def acknowledged(folder: Path) -> Path:
    """Two guests of one set, told, and frozen together once one has approved."""
    expect = replace(EXPECT, notice=NoticeExpectations(acknowledged=True, seen=True, kept=True))
    return write(folder, "acknowledged", Made((("web", 1, 2),), rollout=None, expect=expect))


def surprised(folder: Path) -> Path:
    """A guest that never asked, and was to be told."""
    expect = replace(EXPECT, notice=NoticeExpectations(acknowledged=True, seen=True))
    made = Made((("web", 1, 1),), rollout=None, expect=expect, said=replace(GOOD, heard=False))
    return write(folder, "surprised", made)


def spared(folder: Path) -> Path:
    """Called off."""
    expect = replace(EXPECT, notice=NoticeExpectations(cancelled=True))
    said = replace(GOOD, cancelled_ns=3 * S, approved_ns=None)
    announce = Announcement(cancel_after_ns=180 * S)
    return write(folder, "spared", Made((("web", 1, 2),), rollout=None, expect=expect, said=said,
                                        announce=announce))  # fmt: skip


def rolled_out(folder: Path) -> Path:
    """Two sets side by side, one with more domains than the other."""
    return write(folder, "rolled-out", Made((("web", 4, 2), ("db", 2, 1))))


def stopped(folder: Path) -> Path:
    """A gate that does not hold, unexpectedly."""
    return write(folder, "stopped", Made(bad=2))


def overlapping(folder: Path) -> Path:
    """A wave that was begun while the one before was down."""
    made = Made((("web", 3, 1),), rollout=Rollout(), early_ns=10_500 * MS)
    return write(folder, "overlapping", made)


def large(folder: Path) -> Path:
    """Twenty domains of three sets, shuffled."""
    sets = (("web", 20, 1), ("db", 12, 1), ("cache", 7, 1))
    return write(folder, "large", Made(sets, rollout=Rollout(shuffled=True, seed=7, gates=(CLOCK,))))


ALL = {
    f.__name__: f for f in (acknowledged, surprised, spared, rolled_out, stopped, overlapping, large)
}  # fmt: skip
