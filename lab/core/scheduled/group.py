"""A delivery group of the metadata service: the guests that are shown the same events, and these events."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from lab.core.scheduled.model import Event, EventStatus, State


class Due(IntEnum):
    """What can be due. At one instant events are shown before they start, and before nobody is shown any."""

    REVEAL = 0
    START = 1
    IDLE = 2


@dataclass(eq=False)
class GroupEvent:
    """An event of a group, and what has become of it. shown: to which guests, as what. approved: by which
    guests."""

    event: Event
    state: State
    shown: set[tuple[str, EventStatus]] = field(default_factory=set)
    approved: set[str] = field(default_factory=set)


@dataclass(eq=False)
class DeliveryGroup:
    """Guests that see, approve and end the same events: an availability set, or one guest without any.

    revealed: events are shown. period: how often it was switched on. ready_raw_ns: nothing is answered
    before. asked_raw_ns: the last request. asked: guests that have asked since it was switched on. events: in
    the order in which they are shown.
    """

    name: str
    enabled: bool = False
    revealed: bool = False
    period: int = 0
    incarnation: int = 1
    ready_raw_ns: int = 0
    asked_raw_ns: int = 0
    asked: set[str] = field(default_factory=set)
    events: list[GroupEvent] = field(default_factory=list)

    def changed(self) -> None:
        """What the group's document says has changed, if it is shown one."""
        if self.revealed:
            self.incarnation += 1


def key_of(event_id: str) -> str:
    """Ids of one event are equal whatever the case of their letters."""
    return event_id.upper()
