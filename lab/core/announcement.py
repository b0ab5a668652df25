"""From a playbook's `announce` section to a notice: the event's type, its notice, its duration, its
description, and the rules of the service that publishes it.

It imports the plan only where it is needed, so that the metadata service alone starts without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.ec2 import ImdsOptions
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import UNKNOWN_S, EventSource, EventType, Notice, Rules, State
from lab.core.units import NS_PER_S

if TYPE_CHECKING:
    from lab.core.patch import Patch
    from lab.core.plan import Announcement, CycleSpec

RATE_LIMIT = 5
"""The most requests a second from one guest that the real service answers."""

DURATIONS_S = (5, 9, 30)
"""The usual DurationInSeconds of a Freeze; 6 has been observed as well."""

ENABLED_WITHIN_NS = 60 * NS_PER_S
"""The longest time until a handler's first request."""

_MAINTENANCE = "Host server is undergoing maintenance."
_WORDS = {
    EventType.FREEZE: _MAINTENANCE,
    EventType.REBOOT: _MAINTENANCE,
    EventType.REDEPLOY: "Virtual machine has encountered a failure.",
    EventType.PREEMPT: "The Virtual Machine will be evicted.",
    EventType.TERMINATE: "The Virtual Machine will be terminated.",
}
"""Descriptions of the platform's events, from Azure's simulator of Scheduled Events. Terminate's is worded
like them."""

_WORDS_OF_USER = {
    EventType.REBOOT: "Virtual machine is going to be restarted as requested by authorized user.",
    EventType.REDEPLOY: "Virtual machine is going to be redeployed as requested by authorized user.",
}


def event_type(spec: Announcement, patch: Patch) -> EventType:
    """The event's type: as announced, else derived from what the patch requires of the guests."""
    if spec.type is not None:
        return spec.type
    from lab.core.patch import Impact

    return EventType.REBOOT if patch.impact is Impact.REBOOT else EventType.FREEZE


def notice_ns(spec: Announcement, kind: EventType) -> int:
    """The real time from the publication to NotBefore."""
    return spec.real_ns(service_notice_ns(spec, kind))


def service_notice_ns(spec: Announcement, kind: EventType) -> int:
    """The same in the service's time."""
    return spec.cloud.notice_s(kind) * NS_PER_S if spec.notice_ns is None else spec.notice_ns


def duration_s(spec: Announcement, kind: EventType, cycle: CycleSpec) -> int:
    """DurationInSeconds. For a Freeze it is the shortest usual duration that is long enough for the patch and
    the method's overhead, or UNKNOWN_S if none is; for all other types it is UNKNOWN_S."""
    if spec.duration_s is not None:
        return spec.duration_s
    if kind is not EventType.FREEZE:
        return UNKNOWN_S
    return next((s for s in DURATIONS_S if cycle.longest_pause_ns <= s * NS_PER_S), UNKNOWN_S)


def notice_of(group: str, resources: Sequence[str], spec: Announcement, cycle: CycleSpec) -> Notice:
    """The notice for one delivery group."""
    kind = event_type(spec, cycle.patch)
    return Notice(
        group,
        tuple(resources),
        kind,
        notice_ns(spec, kind),
        duration_s(spec, kind, cycle),
        spec.description or spec.cloud.traits.descriptions.get(kind) or _description(kind, spec.source),
        spec.source,
    )


def notices_beside(
    group: str, resources: Sequence[str], spec: Announcement, cycle: CycleSpec
) -> list[Notice]:
    """The notices of the further events (`others`) of the same group."""
    from lab.core.plan import Announcement

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
                cloud=spec.cloud,
            ),
            cycle,
        )
        for other in spec.others
    ]


def _description(kind: EventType, source: EventSource) -> str:
    return _WORDS_OF_USER.get(kind, _WORDS[kind]) if source is EventSource.USER else _WORDS[kind]


def rules_of(announcement: Announcement) -> Rules:
    """The rules of a service that publishes this announcement."""
    faults = announcement.service
    return Rules(
        time_factor=announcement.time_factor,
        most_per_second=RATE_LIMIT if faults.rate_limit else 0,
        first_answer_s=faults.first_answer_ns / NS_PER_S,
        enabling=announcement.cloud.traits.enabling,
    )


def answers_of(announcement: Announcement) -> CloudAnswers:
    """In whose words such a service answers."""
    return CloudAnswers(announcement.cloud, ImdsOptions(announcement.imdsv1))


def groups_of(instances: Iterable[InstanceInfo], cloud: Cloud = Cloud.AZURE) -> dict[str, str]:
    """Each guest's delivery group: its availability set, where the cloud has such. A guest in no set is a
    group of its own, whose name differs from all names of sets."""
    given = list(instances)
    taken = {about.availability_set for about in given}
    groups: dict[str, str] = {}
    for about in given:
        name = about.availability_set if cloud.traits.sets else ""
        if not name:
            name = f"guest {about.guest}"
            while name in taken:
                name += "'"
            taken.add(name)
        groups[about.guest] = name
    return groups


def together(states: Iterable[State]) -> State:
    """The common state of events that were announced together; see ports.Announcer.state. Events that are not
    enabled do not count beside others. NOT_ENABLED if there are none."""
    given = set(states)
    for state in (State.SCHEDULED, State.CANCELLED):
        if state in given:
            return state
    enabled = given - {State.NOT_ENABLED}
    if not enabled:
        return State.NOT_ENABLED
    return State.OVER if enabled == {State.OVER} else State.STARTED
