"""A life of Scheduled Events: the lab's machine, a second one that is given the time far more often, the
reference, and all rules, which are checked after each step."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.core.clock import Stamp
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import (
    Event,
    EventStatus,
    EventType,
    Fault,
    Happening,
    Kind,
    Notice,
    Rules,
    State,
)
from tests.unit.scheduled_reference import GROUPS, RAW0_NS, REAL0_NS, Reference, S, event_id


@dataclass(frozen=True)
class World:
    """What a life is lived in. A tick is a second of the service's; all but rate is in ticks."""

    factor: float = 1.0
    warm: int = 0
    idle: int = 30
    late: int = 0
    rate: int = 0

    @property
    def rules(self) -> Rules:
        return Rules(self.factor, self.rate, self.late, self.warm, self.idle)

    @property
    def tick_ns(self) -> int:
        return round(S / self.factor)


class Life:
    """A machine and all that has to hold for it, whatever is done."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = 0
        self.machine = Machine(GROUPS, world.rules)
        self.often = Machine(GROUPS, world.rules)  # is told of every tick
        self.right = Reference(world.warm, world.idle)
        self.faults: dict[str, list[Fault]] = {guest: [] for guest in GROUPS}
        self.accepted: dict[str, list[int]] = {guest: [] for guest in GROUPS}
        self.heard: dict[str, set[str]] = {name: set() for name in GROUPS.values()}
        self.ready = dict.fromkeys(GROUPS.values(), 0)
        self.let_start: set[str] = set()  # events that were approved, or started by the host
        self.shown_to: dict[tuple[str, str], set[EventStatus]] = {}
        self.story: list[Happening] = []
        self.epoch = dict.fromkeys(GROUPS.values(), 0)
        self.documents: dict[tuple[str, int], dict[int, tuple[Event, ...]]] = {}

    @property
    def at(self) -> Stamp:
        passed = self.now * self.world.tick_ns
        return Stamp(RAW0_NS + passed, REAL0_NS + passed + self.now * 17)

    def both(self, call: Callable[[Machine], Any]) -> Any:
        one, other = call(self.machine), call(self.often)
        assert one == other
        return one

    # -- what can be done -------------------------------------------------------------------------

    def wait(self, ticks: int) -> None:
        for _ in range(ticks):
            self.now += 1
            was_on = {name: group.on for name, group in self.right.groups.items()}
            self.right.tick(self.now)
            self.often.advance(self.at)
            for name, group in self.right.groups.items():
                if was_on[name] and not group.on:
                    self.epoch[name] += 1
                    self.heard[name].clear()
        self.machine.advance(self.at)
        self.check(None)

    def announce(self, group: str, ticks: int, resources: Sequence[str], kind: EventType) -> None:
        new = event_id(len(self.right.events))
        notice = Notice(group, tuple(resources), kind, ticks * self.world.tick_ns, 9, "because")
        expected = self.right.announced(self.now, group, new, ticks)
        assert self.both(lambda machine: machine.announce(self.at, notice, new)) is expected
        event = self.machine.event(new)
        assert event.published == self.at and event.notice == notice and event.id == new
        wait_ns = max(0, notice.notice_ns)
        assert event.not_before == Stamp(self.at.raw_ns + wait_ns, self.at.real_ns + wait_ns)
        self.check(group)

    def ask(self, guest: str) -> None:
        """A poll that comes in by the front door."""
        name = GROUPS[guest]
        fresh = not self.right.groups[name].on
        self.right.asked(self.now, name)
        if fresh:
            self.ready[name] = self.now + self.world.late
        self.heard[name].add(guest)
        fault, late_ns = self.both(lambda machine: machine.admit(self.at, guest))
        recent = [tick for tick in self.accepted[guest] if (self.now - tick) * self.world.tick_ns < S]
        if self.world.rate and len(recent) >= self.world.rate:
            assert (fault, late_ns) == (Fault.TOO_MANY, 0)
        else:
            self.accepted[guest].append(self.now)
            expected = self.faults[guest].pop(0) if self.faults[guest] else None
            assert fault is (None if expected is Fault.NONE else expected)
            ready_ns = max(0, self.ready[name] - self.now) * self.world.tick_ns
            assert late_ns == (0 if fault else ready_ns)
        if fault is None:
            _, events = self.both(lambda machine: machine.poll(self.at, guest))
            for event in events:
                self.shown_to.setdefault((guest, event.id), set()).add(event.status)
        self.check(name)

    def approve(self, guest: str, ids: Sequence[str]) -> None:
        name = GROUPS[guest]
        known = [self.right.events.get(one.upper()) if one.isascii() else None for one in ids]
        fine = all(one and one.group == name and one.state.is_shown for one in known)
        assert self.both(lambda machine: machine.approve(self.at, guest, ids)) is fine
        for one in known:
            if fine and one:
                self.let_start.add(one.id)
                self.right.started(one)
        self.check(name if fine else "")

    def start(self, one: str) -> None:
        self.both(lambda machine: machine.start(self.at, one))
        self.let_start.add(one)
        self.right.started(self.right.events[one])
        self.check(self.right.events[one].group)

    def cancel(self, one: str) -> None:
        self.both(lambda machine: machine.cancel(self.at, one))
        event = self.right.events[one]
        if event.state in (State.SCHEDULED, State.NOT_ENABLED):
            self.right.ended(event, State.CANCELLED)
        self.check(event.group)

    def finish(self, one: str) -> None:
        self.both(lambda machine: machine.finish(self.at, one))
        event = self.right.events[one]
        if event.state is not State.CANCELLED:
            self.right.ended(event, State.OVER)
        self.check(event.group)

    def restart(self, group: str) -> None:
        self.both(lambda machine: machine.restart(self.at, group))
        self.right.groups[group].incarnation = 1
        self.epoch[group] += 1
        self.check(group)

    def reorder(self, group: str, rng: random.Random) -> None:
        there = self.right.groups[group]
        order = list(range(len(there.events)))
        rng.shuffle(order)
        self.both(lambda machine: machine.reorder(self.at, group, order))
        there.change(lambda: setattr(there, "events", [there.events[index] for index in order]))
        self.check(group)

    def fail(self, guests: Sequence[str], answers: Sequence[Fault]) -> None:
        self.both(lambda machine: machine.fail(self.at, guests, answers))
        for guest in guests:
            self.faults[guest] = list(answers)
        self.check("")

    # -- what has to hold -------------------------------------------------------------------------

    def check(self, touched: str | None) -> None:
        """After every step. touched: the only group that may be another now; None: time has passed."""
        for name, group in self.right.groups.items():
            members = [guest for guest in GROUPS if GROUPS[guest] == name]
            incarnation, events = self.machine.shown(self.at, members[0])
            assert all(self.machine.shown(self.at, guest) == (incarnation, events) for guest in members)
            assert self.often.shown(self.at, members[0]) == (incarnation, events)
            # The contract, as the reference has it.
            expected = tuple((one, state.value) for one, state in group.document())
            assert tuple((event.id, event.status.lower()) for event in events) == expected
            assert incarnation == group.incarnation
            # Isolation.
            assert all(event.notice.group == name for event in events)
            assert all(self.machine.event(event.id) == event for event in events)
            # Until it starts anew it never goes back, and documents of one incarnation are equal.
            if group.on:
                documents = self.documents.setdefault((name, self.epoch[name]), {})
                assert documents.setdefault(incarnation, events) == events
                assert max(documents) == incarnation
            for guest in members:
                assert self.machine.has_asked(guest) is (group.on and guest in self.heard[name])
                assert self.machine.group_of(guest) == name
        for one in self.right.events.values():
            assert self.machine.state(one.id) is one.state
            assert self.machine.state(one.id.lower()) is one.state
            if one.state is State.STARTED and one.id not in self.let_start:
                assert self.at.raw_ns >= self.machine.event(one.id).not_before.raw_ns
        happened = self.machine.happened()
        assert self.machine.happened() == ()
        assert [replace(h, at=self.at) for h in self.often.happened()] == list(happened)
        if happened and touched is not None:
            last = happened[-1]
            assert last.incarnation == self.right.groups[last.group].incarnation
        for one_happening in happened:
            assert one_happening.at == self.at
            if touched is not None:
                assert one_happening.group == touched or not touched
            self.believe(one_happening)

    def believe(self, it: Happening) -> None:
        """The timeline tells nothing that cannot be."""
        if it.guest:
            assert GROUPS[it.guest] == it.group
        past = [h for h in self.story if h.event == it.event and it.event]
        kinds = {h.kind for h in past}
        mine = {h.kind for h in past if h.guest == it.guest}
        if it.event:
            assert self.machine.event(it.event).notice.group == it.group
            assert it.kind not in mine  # once at most, each
        match it.kind:
            case Kind.PUBLISHED | Kind.NOT_ENABLED:
                assert not past
            case Kind.STARTED | Kind.APPROVED | Kind.SEEN | Kind.SEEN_STARTED:
                assert Kind.PUBLISHED in kinds and not kinds & {Kind.GONE, Kind.CANCELLED}
            case Kind.GONE:
                assert Kind.PUBLISHED in kinds and Kind.CANCELLED not in kinds
            case Kind.CANCELLED:
                assert not kinds & {Kind.STARTED, Kind.GONE}
            case Kind.SEEN_GONE:
                assert kinds & {Kind.GONE, Kind.CANCELLED} and mine & {Kind.SEEN, Kind.SEEN_STARTED}
        if it.kind is Kind.SEEN:
            assert Kind.STARTED not in kinds
        if it.kind is Kind.SEEN_STARTED:
            assert Kind.STARTED in kinds
        self.story.append(it)

    def close(self) -> None:
        """All is told that was: every answer that had an event, and the first without it."""
        for guest in GROUPS:
            self.faults[guest] = []
        self.both(lambda machine: machine.fail(self.at, list(GROUPS), ()))
        self.wait(max(self.world.late, 2))
        for one in list(self.right.events):
            self.finish(one)
        for guest in GROUPS:
            self.wait(1)
            self.ask(guest)
        told = {(h.guest, h.event, h.kind) for h in self.story}
        for (guest, one), statuses in self.shown_to.items():
            assert ((guest, one, Kind.SEEN) in told) is (EventStatus.SCHEDULED in statuses)
            assert ((guest, one, Kind.SEEN_STARTED) in told) is (EventStatus.STARTED in statuses)
        over_rate = self.world.rate and self.world.factor > 1
        for guest, one, kind in told:
            if kind in (Kind.SEEN, Kind.SEEN_STARTED):
                assert (guest, one) in self.shown_to
                assert (guest, one, Kind.SEEN_GONE) in told or over_rate
        unheard = {h.event for h in self.story if h.kind is Kind.NOT_ENABLED}
        assert not unheard & {one for _, one in self.shown_to}
        assert {h.event for h in self.story if h.kind in (Kind.PUBLISHED, Kind.NOT_ENABLED)} == set(
            self.right.events
        )
