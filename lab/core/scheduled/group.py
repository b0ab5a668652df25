"""A delivery group of the metadata service: guests with common events, and these events."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from lab.core.scheduled.model import Event, EventStatus, State


class Due(IntEnum):
    """What can be due, in the order in which it happens at one instant: events become visible before they
    start, and before the service is disabled."""

    REVEAL = 0
    START = 1
    IDLE = 2


@dataclass(eq=False)
class GroupEvent:
    """An event of a group, and its state. shown: the guests that got it, and its state then. approved: the
    guests that approved it."""

    event: Event
    state: State
    shown: set[tuple[str, EventStatus]] = field(default_factory=set)
    approved: set[str] = field(default_factory=set)


@dataclass(eq=False)
class DeliveryGroup:
    """Guests with common events: an availability set, or one guest in no set.

    revealed: events are visible. period: how often the group was enabled. ready_raw_ns: the time of the first
    answer. asked_raw_ns: the last request. asked: guests that have sent a request since it was enabled.
    events: in the order of the document.
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
        """The group's document has changed: counts the incarnation, if the document is visible."""
        if self.revealed:
            self.incarnation += 1


def key_of(event_id: str) -> str:
    """The key of an event's id, which is not case-sensitive."""
    return event_id.upper()
