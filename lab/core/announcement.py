"""What an announcement of the lab's comes to: the event's type, its notice, its duration, its words, and the
rules of the service that tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lab.core.patch import Impact, Patch
from lab.core.plan import Announcement, CycleSpec
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import UNKNOWN_S, EventSource, EventType, Notice, Rules, State
from lab.core.units import NS_PER_S

RATE_LIMIT = 5
"""Requests a second of one guest that the real service answers."""

DURATIONS_S = (5, 9, 30)
"""What a Freeze is announced to take at most, in seconds; 6 was seen as well."""

_MAINTENANCE = "Host server is undergoing maintenance."
_WORDS = {
    EventType.FREEZE: _MAINTENANCE,
    EventType.REBOOT: _MAINTENANCE,
    EventType.REDEPLOY: "Virtual machine has encountered a failure.",
    EventType.PREEMPT: "The Virtual Machine will be evicted.",
    EventType.TERMINATE: "The Virtual Machine will be terminated.",
}
"""What Azure's simulator of Scheduled Events says of the platform's events. Terminate's is in its manner."""

_WORDS_OF_USER = {
    EventType.REBOOT: "Virtual machine is going to be restarted as requested by authorized user.",
    EventType.REDEPLOY: "Virtual machine is going to be redeployed as requested by authorized user.",
}


def event_type(spec: Announcement, patch: Patch) -> EventType:
    """As announced, else by what the patch asks of the guests."""
    if spec.type is not None:
        return spec.type
    return EventType.REBOOT if patch.impact is Impact.REBOOT else EventType.FREEZE


def notice_ns(spec: Announcement, kind: EventType) -> int:
    """From the publication to NotBefore in real time."""
    enabled = kind.minimum_notice_s * NS_PER_S if spec.notice_ns is None else spec.notice_ns
    return spec.real_ns(enabled)


def duration_s(spec: Announcement, kind: EventType, cycle: CycleSpec) -> int:
    """DurationInSeconds. Of a Freeze the shortest usual one that the patch and the freeze's own overhead fit
    in; UNKNOWN_S when they fit in none, and for all other types."""
    if spec.duration_s is not None:
        return spec.duration_s
    if kind is not EventType.FREEZE:
        return UNKNOWN_S
    return next((s for s in DURATIONS_S if cycle.longest_pause_ns <= s * NS_PER_S), UNKNOWN_S)


def notice_of(group: str, resources: Sequence[str], spec: Announcement, cycle: CycleSpec) -> Notice:
    """What one delivery group is told."""
    kind = event_type(spec, cycle.patch)
    return Notice(
        group,
        tuple(resources),
        kind,
        notice_ns(spec, kind),
        duration_s(spec, kind, cycle),
        spec.description or _description(kind, spec.source),
        spec.source,
    )


def notices_beside(
    group: str, resources: Sequence[str], spec: Announcement, cycle: CycleSpec
) -> list[Notice]:
    """What the group is told of at the same time."""
    return [
        notice_of(
            group,
            resources,
            Announcement(
                type=other.type,
                notice_ns=other.notice_ns,
                source=other.source,
                description=other.description,
                time_factor=spec.time_factor,
            ),
            cycle,
        )
        for other in spec.others
    ]


def _description(kind: EventType, source: EventSource) -> str:
    return _WORDS_OF_USER.get(kind, _WORDS[kind]) if source is EventSource.USER else _WORDS[kind]


def rules_of(announcement: Announcement) -> Rules:
    """How a service behaves that this is announced through."""
    faults = announcement.service
    return Rules(
        time_factor=announcement.time_factor,
        most_per_second=RATE_LIMIT if faults.rate_limit else 0,
        first_answer_s=faults.first_answer_ns / NS_PER_S,
    )


def groups_of(instances: Iterable[InstanceInfo]) -> dict[str, str]:
    """Each guest's delivery group: its availability set. A guest in none is a group of its own, which has no
    set's name, whatever guests and sets are called."""
    given = list(instances)
    taken = {about.availability_set for about in given}
    groups: dict[str, str] = {}
    for about in given:
        name = about.availability_set
        if not name:
            name = f"guest {about.guest}"
            while name in taken:
                name += "'"
            taken.add(name)
        groups[about.guest] = name
    return groups


def together(states: Iterable[State]) -> State:
    """The state of events that were announced together, see ports.Announcer.state. Those that nobody was told
    of do not count beside others. NOT_ENABLED for none."""
    given = set(states)
    for state in (State.SCHEDULED, State.CANCELLED):
        if state in given:
            return state
    enabled = given - {State.NOT_ENABLED}
    if not enabled:
        return State.NOT_ENABLED
    return State.OVER if enabled == {State.OVER} else State.STARTED
