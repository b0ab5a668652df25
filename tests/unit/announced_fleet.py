"""A simulated fleet whose freezes are announced: the real controller, the real machine of the metadata
service and the real announcer over it, on guests whose handlers ask once a second."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lab.core.announcement import groups_of, rules_of
from lab.core.history import (
    EventHappened,
    EventsAnnounced,
    ResumeCalled,
    StopCalled,
)
from lab.core.plan import Announcement, CycleSpec, Expectations, GuestSpec, Rollout
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import EventStatus, Happening, Kind
from lab.core.timeline import Call
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.events.announcer import ServiceAnnouncer
from tests.unit.sim_fleet import SHORT, World, world_of

MINUTE = 60 * NS_PER_S


@dataclass
class Handler:
    """A program in a guest that polls each second, and approves what concerns its guest after `drains_ns`;
    None: never. seen: (when, status) of each event in each answer."""

    world: World
    machine: Machine
    guest: str
    drains_ns: int | None
    seen: list[tuple[int, str, EventStatus]] = field(default_factory=list)
    since: dict[str, int] = field(default_factory=dict)

    def poll(self) -> None:
        now = self.world.now()
        self.world.later(self.world.at + NS_PER_S, self.poll)
        if self.world.guests[self.guest].frozen_at is not None:
            return
        self.machine.admit(now, self.guest)
        for event in self.machine.poll(now, self.guest)[1]:
            self.seen.append((now.raw_ns, event.id, event.status))
            if event.status is EventStatus.SCHEDULED and self.guest in event.notice.resources:
                begun = self.since.setdefault(event.id, now.raw_ns)
                if self.drains_ns is not None and now.raw_ns - begun >= self.drains_ns:
                    self.machine.approve(now, self.guest, [event.id])


@dataclass
class AnnouncedFleet:
    """A fleet with a metadata service. listeners: guests that have a handler; None: all."""

    specs: Sequence[GuestSpec]
    announcement: Announcement
    drains_ns: int | None = 2 * NS_PER_S
    listeners: Sequence[str] | None = None
    cycle: CycleSpec = SHORT

    def __post_init__(self) -> None:
        self.world = world_of(self.specs)
        instances = [
            InstanceInfo(s.name, s.name, "", "", availability_set=s.availability_set) for s in self.specs
        ]
        groups = groups_of(instances)
        self.machine = Machine(groups, rules_of(self.announcement))
        self.announcer = ServiceAnnouncer(self.machine, groups, threading.Lock(), self.world)
        names = [s.name for s in self.specs] if self.listeners is None else self.listeners
        self.handlers = [Handler(self.world, self.machine, name, self.drains_ns) for name in names]
        for number, handler in enumerate(self.handlers):
            self.world.later(self.world.at + number * NS_PER_S // 10, handler.poll)
        self.world.sleep_until(self.world.at + 2 * NS_PER_S)

    def run(self, rollout: Rollout = Rollout()) -> None:  # noqa: B008 - frozen
        cycle = replace(self.cycle, announce=self.announcement)
        expect = Expectations(tolerance_ns=100 * NS_PER_MS, hold_ns=NS_PER_S)
        self.world.roll_out(self.specs, rollout, cycle, self.announcer, expect)

    def happenings(self, kind: Kind) -> list[Happening]:
        notices = [event.happening for event in self.world.of(EventHappened)]
        return [notice for notice in notices if notice.kind is kind]

    def calls(self, kind: type[StopCalled] | type[ResumeCalled]) -> dict[str, Call]:
        return {event.guest: event.call for event in self.world.of(kind)}

    def announced(self) -> list[tuple[str, tuple[str, ...]]]:
        return [
            (event.id, event.notice.resources)
            for announced in self.world.of(EventsAnnounced)
            for event in announced.events
        ]
