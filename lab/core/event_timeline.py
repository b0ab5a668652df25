"""One timeline for each event that was announced: published, seen, approved, started, frozen, resumed, in
time again, gone. The service's part comes from its own report, the guests' part from their measured cycles;
the host's clocks stamp both. What is missing did not happen, or was not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.core.clock import Interval, Stamp
from lab.core.one_at_a_time import in_time_at, stopped_at, taken_down
from lab.core.result import CycleResult
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.model import UNKNOWN_S, Event, EventType, Happening, Kind, State
from lab.core.timeline import Call
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome, at_most


@dataclass(frozen=True)
class Announced:
    """An announced event in the history. happenings: those of the event, and those of its group in this
    cycle that name no event. complete: the history continues after the event, so what is not in it did not
    happen. cloud: in whose words."""

    event: Event
    cycle: int
    time_factor: float
    happenings: tuple[Happening, ...] = ()
    cell: str = ""
    complete: bool = True
    cloud: Cloud = Cloud.AZURE


@dataclass(frozen=True)
class Member:
    """A guest of the delivery group: the answers that it got, and its pause.

    affected: it is one of the event's resources. seen, seen_started, seen_gone: its first answer with the
    event in that state. approved: its first approval. result: its cycle, None when it had none with the
    event.
    """

    guest: str
    affected: bool
    seen: Stamp | None = None
    seen_started: Stamp | None = None
    approved: Stamp | None = None
    seen_gone: Stamp | None = None
    result: CycleResult | None = None

    @property
    def has_cycle(self) -> bool:
        """True when it is known whether it was frozen."""
        return self.result is not None

    @property
    def is_to_be_frozen(self) -> bool:
        """True when its cycle was to stop it."""
        return self.result is not None and taken_down(self.result)

    @property
    def stop(self) -> Call | None:
        """The call that froze the guest, or shut it down; None when it was not to be frozen, or the call is
        not in the history."""
        if self.result is None or not taken_down(self.result):
            return None
        return self.result.observation.stop

    @property
    def resume(self) -> Call | None:
        return None if self.stop is None or self.result is None else self.result.observation.resume

    @property
    def in_time(self) -> Interval | None:
        """When the guest was in time again, host MONOTONIC_RAW."""
        return None if self.stop is None or self.result is None else in_time_at(self.result)

    @property
    def pause(self) -> Interval | None:
        """The pause as the guest felt it, with what observing it cost. None when it was not frozen, or not
        measured."""
        if self.stop is None or self.result is None or self.result.pause is None:
            return None
        return self.result.pause.pause

    def first_shown(self) -> Stamp | None:
        """When the guest first got the event, in any state."""
        known = [stamp for stamp in (self.seen, self.seen_started) if stamp is not None]
        return min(known, key=lambda stamp: stamp.raw_ns, default=None)


@dataclass(frozen=True)
class EventTimeline:
    """An event's timeline. not_enabled: when it was withheld, because its group had never sent a request.
    released: when it was approved on behalf of the group, by no guest of it. refused: the number of the
    group's requests in this cycle that were answered with an error, by guest. restarts: of the
    incarnation."""

    announced: Announced
    published: Stamp | None
    not_enabled: Stamp | None
    started: Stamp | None
    cancelled: Stamp | None
    gone: Stamp | None
    members: tuple[Member, ...]
    refused: tuple[tuple[str, int], ...] = ()
    restarts: int = 0
    released: Stamp | None = None

    @property
    def event(self) -> Event:
        return self.announced.event

    @property
    def enabled(self) -> bool:
        """True when its group gets the event."""
        return self.not_enabled is None

    @property
    def affected(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.affected)

    @property
    def state(self) -> State:
        """The event's last known state."""
        if self.not_enabled is not None:
            return State.NOT_ENABLED
        if self.cancelled is not None:
            return State.CANCELLED
        if self.gone is not None:
            return State.OVER
        return State.STARTED if self.started is not None else State.SCHEDULED

    @property
    def to_be_frozen(self) -> tuple[Member, ...]:
        """The resources that their cycle was to stop."""
        return tuple(member for member in self.affected if member.is_to_be_frozen)

    @property
    def frozen(self) -> Interval | None:
        """When the first resource was frozen, host MONOTONIC_RAW."""
        stops = [stopped_at(member.stop) for member in self.affected if member.stop is not None]
        if not stops:
            return None
        return Interval(min(s.low_ns for s in stops), min(s.high_ns for s in stops))

    @property
    def first_stop(self) -> Stamp | None:
        stops = [member.stop.called for member in self.affected if member.stop is not None]
        return min(stops, key=lambda stamp: stamp.raw_ns, default=None)

    @property
    def last_resume(self) -> Stamp | None:
        """When the last resource ran again; None while that is not known of one of them."""
        resumes = [member.resume for member in self.affected if member.stop is not None]
        known = [call.returned for call in resumes if call is not None]
        return max(known, key=lambda stamp: stamp.raw_ns) if known and len(known) == len(resumes) else None

    @property
    def in_time(self) -> Interval | None:
        """When the last resource was in time again; None while that is not known of one of them."""
        known = [member.in_time for member in self.affected if member.stop is not None]
        times = [time for time in known if time is not None]
        if not times or len(times) < len(known):
            return None
        return Interval(max(t.low_ns for t in times), max(t.high_ns for t in times))

    @property
    def approved(self) -> tuple[str, Stamp] | None:
        """The first approval: the guest, and the time."""
        known = [(m.guest, m.approved) for m in self.members if m.approved is not None]
        return min(known, key=lambda each: each[1].raw_ns, default=None)

    @property
    def notice_ns(self) -> int | None:
        """From the publication to the start, real time."""
        if self.published is None or self.started is None:
            return None
        return self.started.raw_ns - self.published.raw_ns

    @property
    def minimum_ns(self) -> int:
        """The documented minimum notice of its type, real time; 0 where there is none."""
        enabled = self.announced.cloud.minimum_s(self.event.notice.type) * NS_PER_S
        return round(enabled / self.announced.time_factor)

    @property
    def after_not_before(self) -> Interval | None:
        """The real freeze minus NotBefore: negative when it was approved early."""
        frozen = self.frozen
        return None if frozen is None else frozen.shifted(-self.event.not_before.raw_ns)

    @property
    def duration_ns(self) -> int | None:
        """The announced DurationInSeconds; None when it is unknown."""
        notice = self.event.notice
        if notice.type is not EventType.FREEZE or notice.duration_s == UNKNOWN_S:
            return None
        return notice.duration_s * NS_PER_S

    def within_announced(self, member: Member) -> bool | None:
        """True when the guest's pause was no longer than announced; None where that is not known, or the
        pause's bounds contain the announced duration."""
        if self.duration_ns is None or member.pause is None:
            return None
        outcome = at_most(self.duration_ns, member.pause.low_ns, member.pause.high_ns)
        return {Outcome.PASSED: True, Outcome.FAILED: False}.get(outcome)


Cycles = Mapping[tuple[str, int, str], CycleResult]
"""Measured cycles, by cell, cycle and guest."""


def _first(happenings: Sequence[Happening], kind: Kind, guest: str | None = None) -> Stamp | None:
    found = [h.at for h in happenings if h.kind is kind and (guest is None or h.guest == guest)]
    return min(found, key=lambda stamp: stamp.raw_ns, default=None)


def timeline_of(announced: Announced, cycles: Cycles) -> EventTimeline:
    """The event's timeline. Of several of a kind the first counts."""
    event = announced.event
    own = [h for h in announced.happenings if h.event == event.id]
    by_guest: dict[str, list[Happening]] = {name: [] for name in event.notice.resources}
    for happening in own:
        if happening.guest:
            by_guest.setdefault(happening.guest, []).append(happening)
    members = tuple(
        Member(
            name,
            name in event.notice.resources,
            _first(given, Kind.SEEN),
            _first(given, Kind.SEEN_STARTED),
            _first(given, Kind.APPROVED),
            _first(given, Kind.SEEN_GONE),
            cycles.get((announced.cell, announced.cycle, name)),
        )
        for name, given in by_guest.items()
    )
    refused: dict[str, int] = {}
    for happening in announced.happenings:
        if happening.kind is Kind.REFUSED:
            refused[happening.guest] = refused.get(happening.guest, 0) + 1
    not_enabled = _first(own, Kind.NOT_ENABLED)
    published = _first(own, Kind.PUBLISHED) or (event.published if not_enabled is None else None)
    return EventTimeline(
        announced,
        published,
        not_enabled,
        _first(own, Kind.STARTED),
        _first(own, Kind.CANCELLED),
        _first(own, Kind.GONE),
        members,
        tuple(refused.items()),
        sum(h.kind is Kind.RESTARTED for h in announced.happenings),
        _first(own, Kind.APPROVED, ""),
    )
