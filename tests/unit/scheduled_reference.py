"""The contract of Scheduled Events, written only to be right: tick by tick, without a heap.

The lab's machine is compared with it. An incarnation is counted by comparing documents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from lab.core.scheduled.model import (
    State,
)

S = 1_000_000_000
REAL0_NS = 1_700_000_000 * S
RAW0_NS = 5_000 * S
GROUPS = {"a0": "a", "a1": "a", "a2": "a", "b0": "b", "b1": "b", "lone": "lone"}
"""Group names are among guest names on purpose: a guest in no set is a group of its own."""
NOWHERE = "00000000-0000-4000-8000-000000000000"


def event_id(number: int) -> str:
    return f"FFCDEF00-0000-4000-8000-{number:012X}"


@dataclass
class ReferenceEvent:
    """One event as the reference has it. due: the tick of NotBefore."""

    id: str
    group: str
    due: int
    state: State
    in_document: bool = False


@dataclass
class ReferenceGroup:
    on: bool = False
    since: int = 0
    asked: int = 0
    incarnation: int = 1
    events: list[ReferenceEvent] = field(default_factory=list)

    def document(self) -> tuple[tuple[str, State], ...]:
        return tuple((event.id, event.state) for event in self.events if event.in_document) if self.on else ()

    def change(self, do: Callable[[], None]) -> None:
        """Do one thing. If the document is another one then, that is one incarnation more."""
        before = self.document()
        do()
        self.incarnation += self.document() != before


class Reference:
    """The contract, tick by tick. warm, idle: in ticks."""

    def __init__(self, warm: int, idle: int) -> None:
        self.warm, self.idle = warm, idle
        self.groups = {name: ReferenceGroup() for name in GROUPS.values()}
        self.events: dict[str, ReferenceEvent] = {}

    def tick(self, now: int) -> None:
        for group in self.groups.values():
            if group.on and now >= group.since + self.warm:
                for event in group.events:
                    group.change(partial(setattr, event, "in_document", True))
            for event in group.events:
                if event.state is State.SCHEDULED and now >= event.due:
                    self.started(event)
            if group.on and now >= group.asked + self.idle:
                group.on, group.incarnation = False, 1
                for event in group.events:
                    event.in_document = False

    def started(self, event: ReferenceEvent) -> None:
        if event.state is State.SCHEDULED:
            self.groups[event.group].change(lambda: setattr(event, "state", State.STARTED))

    def ended(self, event: ReferenceEvent, state: State) -> None:
        group = self.groups[event.group]
        if event in group.events:
            group.change(lambda: group.events.remove(event))
        event.state = state

    def announced(self, now: int, name: str, new: str, ticks: int) -> State:
        group = self.groups[name]
        state = (State.SCHEDULED if ticks > 0 else State.STARTED) if group.on else State.NOT_ENABLED
        event = self.events[new] = ReferenceEvent(new, name, now + max(ticks, 0), state)
        if group.on:
            event.in_document = now >= group.since + self.warm
            group.change(lambda: group.events.append(event))
        return state

    def asked(self, now: int, name: str) -> None:
        group = self.groups[name]
        group.asked = now
        if not group.on:
            group.on, group.since = True, now
            for event in group.events:
                event.in_document = self.warm <= 0
