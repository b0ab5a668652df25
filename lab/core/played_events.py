"""Events that are played without guests: the clients that stand in for the guests, and the verdict.

An event's course is that of a run, and so are the checks (core.event_findings). No guest is frozen, so the
freeze is what was done to its client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lab.core.clock import Interval
from lab.core.event_findings import event_findings
from lab.core.event_timeline import Announced, EventTimeline, Member, timeline_of
from lab.core.plan import CycleSpec, NoticeExpectations
from lab.core.timeline import Call
from lab.core.verdict import Finding


@dataclass(frozen=True)
class PlayedFreeze:
    """A freeze that was played: the calls that stopped the client and let it go on, or the instants at which
    a client that the lab has not started would have been stopped and resumed."""

    stop: Call
    resume: Call


@dataclass(frozen=True)
class PlayedMember(Member):
    """A client in place of a guest. freeze: None when the event was called off, or named other guests."""

    freeze: PlayedFreeze | None = None

    @property
    def has_cycle(self) -> bool:
        return True

    @property
    def is_to_be_frozen(self) -> bool:
        return self.freeze is not None

    @property
    def stop(self) -> Call | None:
        return None if self.freeze is None else self.freeze.stop

    @property
    def resume(self) -> Call | None:
        return None if self.freeze is None else self.freeze.resume

    @property
    def in_time(self) -> Interval | None:
        return None

    @property
    def pause(self) -> Interval | None:
        if self.freeze is None:
            return None
        stop, resume = self.freeze.stop, self.freeze.resume
        return Interval(
            resume.called.raw_ns - stop.returned.raw_ns, resume.returned.raw_ns - stop.called.raw_ns
        )


def played(announced: Announced, freezes: Mapping[str, PlayedFreeze]) -> EventTimeline:
    """The timeline of an event. freezes: by guest."""
    timeline = timeline_of(announced, {})
    members = tuple(
        PlayedMember(
            *(one.guest, one.affected, one.seen, one.seen_started, one.approved, one.seen_gone),
            freeze=freezes.get(one.guest),
        )
        for one in timeline.members
    )
    return replace(timeline, members=members)


def played_findings(
    timelines: Sequence[EventTimeline], cycle: CycleSpec, expect: NoticeExpectations
) -> list[Finding]:
    """All findings of the events."""
    return [finding for timeline in timelines for finding in event_findings(timeline, cycle, expect)]
