"""The state machine of the metadata service: it changes by announcements, by requests, and with time.

A document is a group's events and an incarnation. The incarnation counts visible changes: publication, start,
cancellation, end, another order. A change that is not visible to the group, because the service is disabled
or was enabled too recently, does not count. So documents of one incarnation are equal, except after `restart`
and after the service was disabled.

Disabling the service ends no event. Published events stay and keep their NotBefore. A group that asks again
gets them in a first document, whose incarnation is 1.

Every call brings the machine to its time first: everything that is due happens then, in the order of the due
times. So the frequency of calls makes no difference to guests.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lab.core.clock import Stamp
from lab.core.scheduled.group import DeliveryGroup, Due, GroupEvent, key_of
from lab.core.scheduled.model import (
    Enabling,
    Event,
    EventStatus,
    Fault,
    Happening,
    Kind,
    Late,
    Notice,
    OnPurpose,
    Recorded,
    Rules,
    State,
)
from lab.core.units import NS_PER_S

MOST_REFUSALS = 1000
"""The most refused requests that one `happened` reports; the rest of a flood is dropped to save memory."""


class Machine:
    """All delivery groups of one service. It reads no clock: every call gets the time. Not thread-safe.

    groups: each guest's delivery group; a guest that is in no availability set is a group of its own. rules:
    the service's.
    """

    def __init__(self, groups: Mapping[str, str], rules: Rules = Rules()) -> None:  # noqa: B008 - frozen
        self.rules = rules
        self._member_of = dict(groups)
        everybody = rules.enabling is Enabling.EVERYBODY
        self._groups = {name: DeliveryGroup(name, everybody, everybody) for name in groups.values()}
        self._entries: dict[str, GroupEvent] = {}
        self._gone: dict[str, list[GroupEvent]] = {guest: [] for guest in groups}  # to be missed by the guest
        self._faults: dict[str, deque[OnPurpose]] = {guest: deque() for guest in groups}
        self._recent: dict[str, deque[int]] = {guest: deque() for guest in groups}
        self._due: list[tuple[int, Due, str, int]] = []
        self._happened: list[Happening] = []
        self._refusals = 0

    # -- what the host does ------------------------------------------------------------------------

    def announce(self, now: Stamp, notice: Notice, event_id: str) -> State:
        """Publish an event with this id (a new upper-case GUID). NOT_ENABLED when the service is not enabled
        for the group: then the event is never visible. STARTED when there is no notice. KeyError: no such
        group, or a resource that is not in it. ValueError: the id is not new."""
        self.advance(now)
        group = self._groups[notice.group]
        for guest in notice.resources:
            if self._member_of[guest] != group.name:
                raise KeyError(guest)
        key = key_of(event_id)
        if key in self._entries:
            raise ValueError(f"event {event_id} was announced before")
        wait_ns = max(0, notice.notice_ns)
        event = Event(
            id=event_id,
            notice=notice,
            status=EventStatus.SCHEDULED if wait_ns else EventStatus.STARTED,
            published=now,
            not_before=Stamp(now.raw_ns + wait_ns, now.real_ns + wait_ns),
        )
        if not group.enabled:
            self._entries[key] = GroupEvent(event, State.NOT_ENABLED)
            self._note(now, Kind.NOT_ENABLED, group, event)
            return State.NOT_ENABLED
        entry = GroupEvent(event, State.SCHEDULED if wait_ns else State.STARTED)
        self._entries[key] = entry
        group.events.append(entry)
        group.changed()
        self._note(now, Kind.PUBLISHED, group, event)
        if wait_ns:
            heapq.heappush(self._due, (event.not_before.raw_ns, Due.START, key, 0))
        else:
            self._note(now, Kind.STARTED, group, event)
        return entry.state

    def start(self, now: Stamp, event_id: str) -> None:
        """Start the event, whether or not it is approved or due. No effect when it is gone, or not enabled.
        KeyError: no such event."""
        self.advance(now)
        self._start(now, self._entries[key_of(event_id)])

    def cancel(self, now: Stamp, event_id: str) -> None:
        """Remove an event that has not started; no effect when it has. KeyError: no such event."""
        self.advance(now)
        entry = self._entries[key_of(event_id)]
        if entry.state is State.SCHEDULED:
            self._remove(now, entry, State.CANCELLED, Kind.CANCELLED)
        elif entry.state is State.NOT_ENABLED:
            entry.state = State.CANCELLED
            self._note(now, Kind.CANCELLED, self._groups[entry.event.notice.group], entry.event)

    def finish(self, now: Stamp, event_id: str) -> None:
        """All clear: remove the event. A cancelled one stays cancelled. KeyError: no such event."""
        self.advance(now)
        entry = self._entries[key_of(event_id)]
        if entry.state.is_shown:
            self._remove(now, entry, State.OVER, Kind.GONE)
        elif entry.state is State.NOT_ENABLED:
            entry.state = State.OVER

    def release(self, now: Stamp, event_id: str, text: str) -> None:
        """Approve the event on behalf of the group, without a request of a guest; text: by whom. No effect
        when the event is gone, or not enabled. KeyError: no such event."""
        self.advance(now)
        entry = self._entries[key_of(event_id)]
        if entry.state.is_shown:
            group = self._groups[entry.event.notice.group]
            self._note(now, Kind.APPROVED, group, entry.event, text=text)
            self._start(now, entry)

    def restart(self, now: Stamp, group: str) -> None:
        """Restart the group's incarnation at 1, as after a move of the service; events stay. A client may
        then get an incarnation, and an ETag, that it got before with other events. KeyError: no such
        group."""
        self.advance(now)
        self._groups[group].incarnation = 1
        self._note(now, Kind.RESTARTED, self._groups[group])

    def reorder(self, now: Stamp, group: str, order: Sequence[int]) -> None:
        """Show the group's events in another order (a permutation of their indices). The order has no
        meaning. KeyError: no such group. ValueError: not a permutation."""
        self.advance(now)
        there = self._groups[group]
        if sorted(order) != list(range(len(there.events))):
            raise ValueError(f"no permutation of {len(there.events)} indices: {list(order)}")
        if list(order) != sorted(order):
            there.events = [there.events[index] for index in order]
            there.changed()

    def fail(self, now: Stamp, guests: Sequence[str], answers: Sequence[OnPurpose]) -> None:
        """Give the next requests of each of these guests these answers, one after another, and then correct
        ones. The rest of an earlier call is discarded. KeyError: no such guest."""
        self.advance(now)
        for queue in [self._faults[guest] for guest in guests]:
            queue.clear()
            queue.extend(answers)

    # -- what guests do ----------------------------------------------------------------------------

    def admit(self, now: Stamp, guest: str, *, poll: bool = True) -> tuple[Fault | Recorded | None, int]:
        """Accept a request of the guest: its deliberate answer, if any, and the delay of the answer, in real
        nanoseconds. This enables the guest's group. poll: a document is requested; only then can it be a
        broken one.

        Faults have no delay. A group's first correct answer has a fixed time: a client that gives up and asks
        again waits for the same instant.
        """
        self.advance(now)
        group = self._group(guest)
        group.asked_raw_ns = now.raw_ns
        if not group.enabled:
            self._enable(now, group, guest)
        group.asked.add(guest)
        if self.is_over_rate(now, guest):
            return Fault.TOO_MANY, 0
        late_ns = max(0, group.ready_raw_ns - now.raw_ns)
        match self._next_fault(guest, poll):
            case None | Fault.NONE:
                return None, late_ns
            case Late() as fault:
                return None, max(late_ns, fault.late_ns)
            case fault:
                self.refuse(now, guest, f"{fault}: on purpose")
                return fault, 0

    def is_over_rate(self, now: Stamp, guest: str) -> bool:
        """True when a request of the guest exceeds the rate limit. Only answered requests count: a client
        that asks too often gets answers at the permitted rate."""
        most = self.rules.most_per_second
        if not most:
            return False
        recent = self._recent[guest]
        while recent and recent[0] <= now.raw_ns - NS_PER_S:
            recent.popleft()
        if len(recent) >= most:
            self.refuse(now, guest, f"{Fault.TOO_MANY}: over the rate")
            return True
        recent.append(now.raw_ns)
        return False

    def poll(self, now: Stamp, guest: str) -> tuple[int, tuple[Event, ...]]:
        """The incarnation and the visible events of the guest's group, in their order. They count as seen by
        the guest."""
        incarnation, events = self.shown(now, guest)
        self.saw(now, guest, events)
        return incarnation, events

    def shown(self, now: Stamp, guest: str) -> tuple[int, tuple[Event, ...]]:
        """Like `poll`, without counting them as seen."""
        self.advance(now)
        group = self._group(guest)
        events = tuple(entry.event for entry in group.events) if group.revealed else ()
        return group.incarnation, events

    def saw(self, now: Stamp, guest: str, events: Iterable[Event]) -> None:
        """Count these events as seen by the guest; they are from the last `shown`."""
        group = self._group(guest)
        for event in events:
            entry = self._entries[key_of(event.id)]
            if (guest, event.status) not in entry.shown:
                entry.shown.add((guest, event.status))
                kind = Kind.SEEN if event.status is EventStatus.SCHEDULED else Kind.SEEN_STARTED
                self._note(now, kind, group, event, guest)
        for entry in self._gone[guest]:
            self._note(now, Kind.SEEN_GONE, group, entry.event, guest)
        self._gone[guest].clear()

    def approve(self, now: Stamp, guest: str, event_ids: Sequence[str]) -> bool:
        """Approve events for the whole group: Scheduled ones are Started. Ids are not case-sensitive; a
        started event may be approved again. False, without any effect, when an id is not one of the group's,
        or its event is gone or was never visible."""
        self.advance(now)
        group = self._group(guest)
        entries = []
        for event_id in event_ids:
            entry = self._entries.get(key_of(event_id)) if event_id.isascii() else None
            if entry is None or not entry.state.is_shown or entry.event.notice.group != group.name:
                return False
            entries.append(entry)
        for entry in entries:
            if guest not in entry.approved:
                entry.approved.add(guest)
                self._note(now, Kind.APPROVED, group, entry.event, guest)
            self._start(now, entry)
        return True

    def refuse(self, now: Stamp, guest: str, text: str) -> None:
        """Record that a request of the guest is answered with an error; text: the status and the reason."""
        if self._refusals < MOST_REFUSALS:
            self._refusals += 1
            self._note(now, Kind.REFUSED, self._group(guest), None, guest, text)

    # -- what time does, and what is known ---------------------------------------------------------

    def advance(self, now: Stamp) -> None:
        """Start due events, and disable idle groups. Every other call does this first."""
        while self._due and self._due[0][0] <= now.raw_ns:
            at_raw_ns, due, key, period = heapq.heappop(self._due)
            if due is Due.START:
                self._start(now, self._entries[key])
                continue
            group = self._groups[key]
            if not group.enabled or group.period != period:
                continue
            if due is Due.REVEAL:
                group.revealed = True
                group.incarnation += len(group.events)
            elif at_raw_ns < self._idle_raw_ns(group):
                self._wait_for_idle(group)  # it has asked since, which touches nothing that waits
            else:
                self._disable(now, group)

    def state(self, event_id: str) -> State:
        """KeyError: no such event."""
        return self._entries[key_of(event_id)].state

    def event(self, event_id: str) -> Event:
        """The event in its present or last state. KeyError: no such event."""
        return self._entries[key_of(event_id)].event

    def past(self, guest: str) -> tuple[tuple[Event, State], ...]:
        """The events of the guest's group that are over or were called off, oldest first. KeyError: no such
        guest."""
        group = self._member_of[guest]
        over = (State.OVER, State.CANCELLED)
        entries = [entry for entry in self._entries.values() if entry.event.notice.group == group]
        return tuple((entry.event, entry.state) for entry in entries if entry.state in over)

    def group_of(self, guest: str) -> str:
        """KeyError: no such guest."""
        return self._member_of[guest]

    def has_asked(self, guest: str) -> bool:
        """True when the guest has sent a request since its group was enabled. KeyError: no such guest."""
        return guest in self._group(guest).asked

    def silence_ns(self, now: Stamp, guest: str) -> int | None:
        """The real time since the last request of the guest's group; None when it is disabled. KeyError: no
        such guest."""
        self.advance(now)
        group = self._group(guest)
        return now.raw_ns - group.asked_raw_ns if group.enabled else None

    def happened(self) -> tuple[Happening, ...]:
        """Everything since the last call, in order."""
        happened = tuple(self._happened)
        self._happened.clear()
        self._refusals = 0
        return happened

    # -- within ------------------------------------------------------------------------------------

    def _next_fault(self, guest: str, poll: bool) -> OnPurpose | None:
        waiting = self._faults[guest]
        if not waiting or (not poll and _spoils(waiting[0])):
            return None
        return waiting.popleft()

    def _group(self, guest: str) -> DeliveryGroup:
        return self._groups[self._member_of[guest]]

    def _start(self, now: Stamp, entry: GroupEvent) -> None:
        if entry.state is State.SCHEDULED:
            group = self._groups[entry.event.notice.group]
            entry.state = State.STARTED
            entry.event = replace(entry.event, status=EventStatus.STARTED)
            group.changed()
            self._note(now, Kind.STARTED, group, entry.event)

    def _remove(self, now: Stamp, entry: GroupEvent, state: State, kind: Kind) -> None:
        group = self._groups[entry.event.notice.group]
        entry.state = state
        group.events.remove(entry)
        group.changed()
        self._note(now, kind, group, entry.event)
        for guest in sorted({guest for guest, _ in entry.shown}):
            self._gone[guest].append(entry)
        if self.rules.enabling is Enabling.ASKING_AGAIN and not group.events:
            self._disable(now, group)

    def _enable(self, now: Stamp, group: DeliveryGroup, guest: str) -> None:
        group.enabled = True
        group.period += 1
        group.ready_raw_ns = now.raw_ns + self.rules.real_ns(self.rules.first_answer_s)
        hidden_ns = self.rules.real_ns(self.rules.events_after_s)
        group.revealed = hidden_ns <= 0
        if hidden_ns > 0:
            heapq.heappush(self._due, (now.raw_ns + hidden_ns, Due.REVEAL, group.name, group.period))
        self._wait_for_idle(group)
        self._note(now, Kind.ENABLED, group, None, guest)

    def _idle_raw_ns(self, group: DeliveryGroup) -> int:
        return group.asked_raw_ns + self.rules.real_ns(self.rules.idle_s)

    def _wait_for_idle(self, group: DeliveryGroup) -> None:
        if self.rules.enabling is Enabling.ASKING:
            heapq.heappush(self._due, (self._idle_raw_ns(group), Due.IDLE, group.name, group.period))

    def _disable(self, now: Stamp, group: DeliveryGroup) -> None:
        group.enabled = group.revealed = False
        group.incarnation = 1
        group.asked.clear()
        self._note(now, Kind.DISABLED, group)

    def _note(
        self,
        now: Stamp,
        kind: Kind,
        group: DeliveryGroup,
        event: Event | None = None,
        guest: str = "",
        text: str = "",
    ) -> None:
        event_id = event.id if event else ""
        self._happened.append(Happening(now, kind, group.name, event_id, guest, group.incarnation, text))


def _spoils(fault: OnPurpose) -> bool:
    return isinstance(fault, Recorded) or (isinstance(fault, Fault) and fault.is_document)
