"""An operator's actions on a metadata service that runs without a playbook, and the state of its events.

The process that runs the service calls `turn` repeatedly. The control socket's thread calls everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab.core.clock import Stamp
from lab.core.scheduled.model import Happening, Kind, State
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import UsageError
from lab.events.announcer import OPERATOR
from lab.events.client import IDS
from lab.events.service import MetadataService

if TYPE_CHECKING:
    from lab.core.plan import Announcement
    from lab.ports import Clock

USUAL_S = 5
"""The default announced duration of a Freeze, in seconds."""


@dataclass
class _EventCourse:
    """What the operator records of an event beside the service's own state. over_after_ns: from its start."""

    over_after_ns: int | None
    shown_to: list[str] = field(default_factory=list)
    approved: list[str] = field(default_factory=list)
    started: Stamp | None = None
    gone: Stamp | None = None


class EventOperator:
    """Announces and changes events by hand. Errors are UsageErrors, which are sent back to the client."""

    def __init__(self, service: MetadataService, clock: Clock, time_factor: float) -> None:
        self._service, self._clock, self.time_factor = service, clock, time_factor
        self.cloud = service.answers.cloud
        self._lock = threading.RLock()
        self._courses: dict[str, _EventCourse] = {}
        self._pending: list[Happening] = []

    def turn(self) -> list[Happening]:
        """End the events whose time is over. Returns all happenings since the last turn, in order of time."""
        with self._lock:
            self._learn()
            now = self._clock.now().raw_ns
            for event, course in self._courses.items():
                if course.over_after_ns is None or course.started is None or course.gone is not None:
                    continue
                if now >= course.started.raw_ns + course.over_after_ns:
                    self._service.announcer.all_clear([event])
            self._learn()
            pending, self._pending = self._pending, []
            return pending

    def guests(self) -> list[dict[str, Any]]:
        """The guests and the state of their events, as JSON values."""
        return [
            {
                "guest": about.guest,
                "name": about.name,
                "set": about.availability_set,
                "asks": self._service.has_asked(about.guest),
                "silent_s": _seconds(self._service.announcer.silence_ns(about.guest)),
                "socket": str(self._service.path(about.guest)),
                "counts": asdict(self._service.counts[about.guest]),
            }
            for about in self._service.instances.values()
        ]

    def events(self) -> list[dict[str, Any]]:
        """All announced events as JSON values, oldest first."""
        with self._lock:
            self._learn()
            return [self._event(event) for event in self._courses]

    def announce(
        self, guests: Sequence[str], everyone: bool, spec: Announcement, over_after_ns: int | None
    ) -> list[dict[str, Any]]:
        """Announce an event to these guests. A service with one guest needs no guest's name. over_after_ns:
        how long the event is shown as Started; None: until `finish`."""
        known = list(self._service.instances)
        if unknown := [guest for guest in guests if guest not in known]:
            raise UsageError(
                f"there is no guest {unknown[0]!r}", hint=f"guests of this service: {', '.join(known)}"
            )
        if guests and everyone:
            raise UsageError("name the guests or use --all, not both")
        if not guests and not everyone and len(known) > 1:
            raise UsageError(
                "name the guests, or use --all", hint=f"guests of this service: {', '.join(known)}"
            )
        from lab.core.plan import CycleSpec, FreezeMethod, HoldPatch

        # No guest is frozen, so the event is shown for exactly this long.
        lasts = HoldPatch(USUAL_S * NS_PER_S if over_after_ns is None else over_after_ns)
        cycle = CycleSpec(FreezeMethod.NONE, lasts, budget_ns=lasts.duration_ns)
        with self._lock:
            made = self._service.announcer.announce(guests or known, spec, cycle)
            for event in made:
                self._courses[event] = _EventCourse(over_after_ns)
            self._learn()
            return [self._event(event) for event in made]

    def act(self, verb: str, prefix: str) -> dict[str, Any]:
        """Change an event. verb: approve, start, cancel or finish. prefix: the beginning of its id."""
        announcer = self._service.announcer
        with self._lock:
            self._learn()
            event = self._find(prefix)
            state = announcer.state([event])
            short = event[:8]
            if state is State.NOT_ENABLED:
                raise UsageError(
                    f"no guest gets event {short}, and nothing waits for it",
                    hint="its guests had not asked for events when it was announced",
                )
            if not state.is_shown:
                raise UsageError(f"event {short} is already {state.value}")
            if verb == "approve":
                if not self.cloud.traits.approvals:
                    hint = f"freezelab events start {short}"
                    raise UsageError(f"guests cannot approve events in {self.cloud}", hint=hint)
                announcer.approve([event])
            elif verb == "start":
                announcer.start([event])
            elif verb == "cancel":
                if state is State.STARTED:
                    raise UsageError(f"event {short} has started", hint=f"freezelab events finish {short}")
                announcer.cancel([event])
            else:
                if state is State.SCHEDULED:
                    hint = f"freezelab events start {short}, or cancel {short}"
                    raise UsageError(f"event {short} has not started", hint=hint)
                announcer.all_clear([event])
            self._learn()
            return self._event(event)

    # -- internal ----------------------------------------------------------------------------------

    def _find(self, prefix: str) -> str:
        found = [event for event in self._courses if event.startswith(prefix.upper())]
        if len(found) == 1 and prefix:
            return found[0]
        if not found:
            raise UsageError(f"there is no event {prefix!r}", hint=IDS)
        shown = ", ".join(event[: max(8, len(prefix) + 1)] for event in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise UsageError(
            f"{prefix!r} may be any of {len(found)} events", hint=f"give more of the id: {shown}{more}"
        )

    def _learn(self) -> None:
        for one in self._service.announcer.happened():
            self._pending.append(one)
            course = self._courses.get(one.event)
            if course is None:
                continue
            if one.kind in (Kind.SEEN, Kind.SEEN_STARTED) and one.guest not in course.shown_to:
                course.shown_to.append(one.guest)
            elif one.kind is Kind.APPROVED:
                course.approved.append(one.guest or OPERATOR)
            elif one.kind is Kind.STARTED:
                course.started = one.at
            elif one.kind in (Kind.GONE, Kind.CANCELLED):
                course.gone = one.at

    def _event(self, event_id: str) -> dict[str, Any]:
        (event,) = self._service.announcer.published([event_id])
        course, notice = self._courses[event_id], event.notice
        left_ns = event.not_before.raw_ns - self._clock.now().raw_ns
        return {
            "id": event.id,
            "type": notice.type.value,
            "state": self._service.announcer.state([event_id]).value,
            "resources": list(notice.resources),
            "group": notice.group,
            "published": _iso(event.published),
            "not_before": _iso(event.not_before),
            "left_s": max(0.0, round(left_ns / NS_PER_S, 3)),
            "duration_s": notice.duration_s,
            "source": notice.source.value,
            "description": notice.description,
            "seen": list(course.shown_to),
            "approved": list(course.approved),
            "started": _iso(course.started),
            "gone": _iso(course.gone),
            "over_after_s": None if course.over_after_ns is None else course.over_after_ns / NS_PER_S,
        }


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else round(ns / NS_PER_S, 3)


def _iso(stamp: Stamp | None) -> str | None:
    """The stamp's CLOCK_REALTIME in ISO 8601, UTC; None for None."""
    if stamp is None:
        return None
    at = datetime.fromtimestamp(stamp.real_ns // NS_PER_MS / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
