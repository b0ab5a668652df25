"""Announcements: from the history to timelines, and to run.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.core.clock import Interval, Stamp
from lab.core.event_findings import event_findings, unannounced
from lab.core.event_timeline import Announced, EventTimeline, Member, timeline_of
from lab.core.fleet_clocks import FleetClocks
from lab.core.handlers import handler_findings
from lab.core.history import (
    CycleBegan,
    CycleEnded,
    EventHappened,
    EventsAnnounced,
    HandlerEnded,
    RunEnded,
    ServiceFailed,
)
from lab.core.plan import Cell
from lab.core.result import CycleResult
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.model import Event, Happening, State
from lab.core.timeline import Call
from lab.core.verdict import Finding, Outcome, worst
from lab.record.cycle import measure_of
from lab.record.journal import History
from lab.record.model import CycleRecord
from lab.record.model_events import EventRecord as EventMember
from lab.record.model_events import EventTotals, Moment
from lab.record.model_events import MemberRecord as GuestMember

SERVICE = "metadata service"
"""The metric of its findings."""


class _Spans:
    """The positions of each guest's cycles in the history, as line numbers of the file. A guest's name and a
    cycle's number may recur in another cell. hosts: the cells are hosts of one fleet."""

    def __init__(self, history: History, *, hosts: bool = False) -> None:
        self._hosts = hosts
        self._spans: dict[tuple[int | None, str], list[tuple[int, str]]] = {}
        self.whole: set[tuple[str, int, str]] = set()
        for place, entry in enumerate(history.entries):
            event = entry.event
            if isinstance(event, CycleBegan):
                # Until its end is found, it is open to the last.
                span = len(history.entries), event.cell
                self._spans.setdefault((event.cycle, event.guest), []).append(span)
            elif isinstance(event, CycleEnded) and (spans := self._spans.get((event.cycle, event.guest))):
                cell = spans[-1][1]
                spans[-1] = place, cell
                self.whole.add(("" if hosts else cell, event.cycle, event.guest))

    def cell(self, cycle: int, guests: Iterable[str], at: int) -> str:
        """The cell of the cycle of one of the guests that is open at position `at` of the history, or else
        opened next; "" for events of a fleet over hosts."""
        if self._hosts:
            return ""
        found = [span for guest in guests for span in self._spans.get((cycle, guest), []) if span[0] >= at]
        return min(found, default=(0, ""))[1]


@dataclass(frozen=True)
class _Published:
    """An announced event, and its position in the history."""

    event: Event
    cycle: int
    time_factor: float
    cloud: Cloud
    cell: str
    place: int


def announced_of(history: History, *, hosts: bool = False) -> list[Announced]:
    """The announced events, in their order. hosts: of a fleet over hosts."""
    spans = _Spans(history, hosts=hosts)
    published: dict[str, _Published] = {}
    happenings: dict[str, list[Happening]] = {}
    loose: list[tuple[int, int, Happening]] = []
    for place, entry in enumerate(history.entries):
        match entry.event:
            case EventsAnnounced(cycle=cycle, events=events, time_factor=factor, cloud=cloud):
                for event in events:
                    cell = spans.cell(cycle, event.notice.resources, place)
                    published[event.id] = _Published(event, cycle, factor, cloud, cell, place)
            case EventHappened(happening=happening) if happening.event:
                happenings.setdefault(happening.event, []).append(happening)
            case EventHappened(happening=happening, cycle=index):
                loose.append((place, -1 if index is None else index, happening))
            case _:
                pass
    groups: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for id_, one in published.items():
        groups.setdefault((one.cycle, one.event.notice.group), []).append((one.place, id_))
    for at, cycle, happening in loose:
        of_group = groups.get((cycle, happening.group), [])
        before = [each for each in of_group if each[0] <= at]
        chosen = max(before) if before else min(of_group, default=None)
        if chosen is not None:
            happenings.setdefault(chosen[1], []).append(happening)
    stopped = any(end.interrupted or end.failure for end in history.of(RunEnded))
    whole = history.complete and not stopped
    return [
        Announced(
            one.event,
            one.cycle,
            one.time_factor,
            tuple(happenings.get(id_, ())),
            one.cell,
            whole and all((one.cell, one.cycle, name) in spans.whole for name in one.event.notice.resources),
            one.cloud,
        )
        for id_, one in published.items()
    ]


def handlers_of(history: History, cell: str) -> list[Finding]:
    """Findings of the handlers of a cell that have ended."""
    ends = [
        (end.guest, -1 if end.cycle is None else end.cycle, end.end)
        for end in history.of(HandlerEnded)
        if end.cell == cell
    ]
    return handler_findings(ends, cell)


def service_findings(history: History, cell: str) -> list[Finding]:
    """An inconclusive finding if the metadata service of a cell failed other than deliberately."""
    troubles = [failed.trouble for failed in history.of(ServiceFailed) if failed.cell == cell]
    return [
        Finding("", -1, SERVICE, "works", "failed", Outcome.INCONCLUSIVE, f"{SERVICE}: {trouble}", cell)
        for trouble in troubles
    ]


def event_timelines(
    history: History, results: Sequence[CycleResult], clocks: FleetClocks | None = None
) -> list[EventTimeline]:
    """The timeline of every event, with the guests' cycles in it. clocks: of a fleet over hosts, whose
    controller's clock stamps the events."""
    if clocks is not None:
        mapped = [_mapped(result, clocks) for result in results]
        there = {("", r.observation.cycle, r.observation.guest): r for r in mapped if r is not None}
        return [timeline_of(announced, there) for announced in announced_of(history, hosts=True)]
    cycles = {(r.observation.cell, r.observation.cycle, r.observation.guest): r for r in results}
    found = announced_of(history)
    # Cells that are run together share a cycle's number, and a set of theirs an event.
    others: dict[tuple[int, str], list[CycleResult]] = {}
    for result in results:
        others.setdefault((result.observation.cycle, result.observation.guest), []).append(result)
    for one in found:
        for guest in one.event.notice.resources:
            given = others.get((one.cycle, guest), [])
            if len(given) == 1:
                cycles.setdefault((one.cell, one.cycle, guest), given[0])
    return [timeline_of(announced, cycles) for announced in found]


def _mapped(result: CycleResult, clocks: FleetClocks) -> CycleResult | None:
    """The result with the stop, the resume and the return to time on the scale of the events; None when the
    clock of its host is not known. A call is as much longer as the offset is uncertain."""
    obs, resync, cell = result.observation, result.resync, result.observation.cell
    stop, resume = (_mapped_call(call, cell, clocks) for call in (obs.stop, obs.resume))
    if (stop is None) != (obs.stop is None) or (resume is None) != (obs.resume is None):
        return None
    if resume is not None and obs.resume is not None and resync is not None and resync.time is not None:
        # The time since the resume's return, which is now the latest that it may have been.
        by = (resume.returned.raw_ns - resume.called.raw_ns) - (
            obs.resume.returned.raw_ns - obs.resume.called.raw_ns
        )
        resync = replace(resync, time=Interval(resync.time.low_ns - max(0, by), resync.time.high_ns))
    return replace(result, observation=replace(obs, stop=stop, resume=resume), resync=resync)


def _mapped_call(call: Call | None, cell: str, clocks: FleetClocks) -> Call | None:
    """The call, from the earliest that it may have begun to the latest that it may have ended."""
    at = (
        None if call is None else clocks.controllers(cell, Interval(call.called.raw_ns, call.returned.raw_ns))
    )
    if call is None or at is None:
        return None
    return Call(clocks.stamp(at.low_ns, call.called), clocks.stamp(at.high_ns, call.returned))


def _moment(stamp: Stamp | None, published: Stamp | None, guest: str = "") -> Moment | None:
    if stamp is None:
        return None
    return Moment(stamp.real_ns, None if published is None else stamp.raw_ns - published.raw_ns, guest)


def _since(interval: Interval | None, published: Stamp | None) -> Interval | None:
    if interval is None or published is None:
        return None
    return interval.shifted(-published.raw_ns)


def _member(timeline: EventTimeline, member: Member) -> GuestMember:
    first = timeline.published
    return GuestMember(
        member.guest,
        member.affected,
        _moment(member.seen, first, member.guest),
        _moment(member.seen_started, first, member.guest),
        _moment(member.approved, first, member.guest),
        _moment(member.stop.called if member.stop is not None else None, first, member.guest),
        _moment(member.resume.returned if member.resume is not None else None, first, member.guest),
        _since(member.in_time, first),
        _moment(member.seen_gone, first, member.guest),
        measure_of(member.pause),
        timeline.within_announced(member),
    )


def _within_announced(timeline: EventTimeline) -> bool | None:
    each = [timeline.within_announced(member) for member in timeline.to_be_frozen]
    if False in each:
        return False
    return True if each and all(each) else None


def event_of(timeline: EventTimeline, found: Sequence[Finding]) -> EventMember:
    """The event's entry in run.json. found: its findings."""
    event, first = timeline.event, timeline.published
    shown = [(member.first_shown(), member.guest) for member in timeline.members]
    looks = [(stamp, guest) for stamp, guest in shown if stamp is not None]
    look = min(looks, key=lambda each: each[0].raw_ns, default=None)
    approval, after = timeline.approved, timeline.after_not_before
    pauses = [member.pause for member in timeline.to_be_frozen if member.pause is not None]
    not_before = _moment(event.not_before, first)
    assert not_before is not None  # noqa: S101 - of a stamp
    return EventMember(
        id=event.id,
        cycle=timeline.announced.cycle,
        group=event.notice.group,
        resources=event.notice.resources,
        type=event.notice.type,
        source=event.notice.source,
        description=event.notice.description,
        state=timeline.state,
        time_factor=timeline.announced.time_factor,
        notice_ns=event.notice.notice_ns,
        minimum_ns=timeline.minimum_ns,
        duration_s=event.notice.duration_s,
        not_before=not_before,
        published=_moment(first, first),
        seen=None if look is None else _moment(look[0], first, look[1]),
        approved=None if approval is None else _moment(approval[1], first, approval[0]),
        released=_moment(timeline.released, first),
        started=_moment(timeline.started, first),
        frozen=_moment(timeline.first_stop, first),
        resumed=_moment(timeline.last_resume, first),
        in_time=_since(timeline.in_time, first),
        cancelled=_moment(timeline.cancelled, first),
        gone=_moment(timeline.gone, first),
        given_ns=timeline.notice_ns,
        after_not_before=after,
        kept=_within_announced(timeline),
        longest=measure_of(max(pauses, key=lambda pause: pause.mid_ns, default=None)),
        members=tuple(_member(timeline, member) for member in timeline.members),
        refused=sum(count for _, count in timeline.refused),
        restarts=timeline.restarts,
        outcome=worst(f.outcome for f in found),
        cell=timeline.announced.cell,
        cloud=timeline.announced.cloud,
    )


def totals_of(events: Sequence[EventMember]) -> EventTotals | None:
    """The announcements of a cell or of a wave taken together; None without any."""
    if not events:
        return None
    kept = [event.kept for event in events if event.state != State.CANCELLED]
    late = [event.after_not_before for event in events if event.after_not_before is not None]
    return EventTotals(
        count=len(events),
        seen=sum(event.seen is not None for event in events),
        approved=sum((event.approved or event.released) is not None for event in events),
        cancelled=sum(event.state == State.CANCELLED for event in events),
        notice_ns=min((event.given_ns for event in events if event.given_ns is not None), default=None),
        after_not_before=max(late, key=lambda interval: interval.mid_ns, default=None),
        kept=False if False in kept else True if kept and all(kept) else None,
        refused=sum(event.refused for event in events),
        outcome=worst(event.outcome for event in events),
    )


def judged(
    timelines: Sequence[EventTimeline], cell: Cell, results: Sequence[CycleResult]
) -> dict[str, list[Finding]]:
    """The findings of each event of one cell, by the event's id; those under "" belong to no event. results:
    those of the cell."""
    expect, here = cell.expectations.notice, [one for one in timelines if one.announced.cell == cell.id]
    found = {one.event.id: event_findings(one, cell.cycle, expect) for one in here}
    found[""] = unannounced(results, timelines, cell.id)
    return found


def marked(
    cycles: Sequence[tuple[str, CycleRecord]],
    timelines: Sequence[EventTimeline],
    waves: Mapping[tuple[int, str], int],
) -> list[CycleRecord]:
    """The cycles, each with its guest, with the event that announced them and their wave. waves: by cycle and
    guest."""
    cells = {one.announced.cell for one in timelines}
    by_guest = {
        (one.announced.cell, one.announced.cycle, guest): one
        for one in timelines
        for guest in one.event.notice.resources
    }
    found = []
    for guest, cycle in cycles:
        cell = "" if cells == {""} else cycle.cell  # of all cells, when they are hosts of a fleet
        one, wave = by_guest.get((cell, cycle.index, guest)), waves.get((cycle.index, guest))
        off = one is not None and one.cancelled is not None and cycle.control
        known = one.event.id if one is not None else ""
        found.append(replace(cycle, event=known, cancelled=off, wave=wave))
    return found
