"""The real `ports.Announcer`: core.scheduled's state machine with a lock and the host's clock."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lab.core.announcement import notice_of, notices_beside, together
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import Event, Happening, State

if TYPE_CHECKING:
    from lab.core.plan import Announcement, CycleSpec
    from lab.ports import Clock

OPERATOR = "the operator"


def new_id() -> str:
    """A GUID as the real service writes it."""
    return str(uuid.uuid4()).upper()


class ServiceAnnouncer:
    """Announces the events of one state machine. lock: held, always briefly, by everything that uses the
    machine."""

    def __init__(
        self,
        machine: Machine,
        groups: dict[str, str],
        lock: threading.Lock,
        clock: Clock,
        make_id: Callable[[], str] = new_id,
    ) -> None:
        self._machine, self._groups, self._lock, self._clock = machine, groups, lock, clock
        self._make_id = make_id
        self._beside: dict[str, list[str]] = {}  # by event: the fault events published with it

    # -- ports.Announcer ---------------------------------------------------------------------------

    def announce(self, guests: Sequence[str], spec: Announcement, cycle: CycleSpec) -> tuple[str, ...]:
        """See ports.Announcer. KeyError when the service does not know a guest; nothing is published then."""
        concerned: dict[str, list[str]] = {}
        for guest in dict.fromkeys(guests):
            concerned.setdefault(self._groups[guest], []).append(guest)
        made = []
        with self._lock:  # throughout: no request may come between an event and its faults
            now = self._clock.now()
            for group, resources in concerned.items():
                made.append(self._make_id())
                self._machine.announce(now, notice_of(group, resources, spec, cycle), made[-1])
                for notice in notices_beside(group, resources, spec, cycle):
                    other = self._make_id()
                    self._machine.announce(now, notice, other)
                    self._beside.setdefault(made[-1], []).append(other)
                if spec.service.restarts:
                    self._machine.restart(now, group)
            if spec.service.answers:
                members = [guest for guest, group in self._groups.items() if group in concerned]
                self._machine.fail(now, members, spec.service.answers)
        return tuple(made)

    def published(self, events: Sequence[str]) -> tuple[Event, ...]:
        with self._lock:
            self._machine.advance(self._clock.now())
            return tuple(self._machine.event(event) for event in events)

    def state(self, events: Sequence[str]) -> State:
        with self._lock:
            self._machine.advance(self._clock.now())
            return together(self._machine.state(event) for event in events)

    def cancel(self, events: Sequence[str]) -> None:
        with self._lock:
            now = self._clock.now()
            for event in events:
                self._machine.cancel(now, event)

    def all_clear(self, events: Sequence[str]) -> None:
        with self._lock:
            now = self._clock.now()
            for event in events:
                self._machine.finish(now, event)
                for other in self._beside.pop(event, ()):
                    self._machine.cancel(now, other)  # does nothing to an event that has started
                    self._machine.finish(now, other)

    def happened(self) -> tuple[Happening, ...]:
        with self._lock:
            self._machine.advance(self._clock.now())
            return self._machine.happened()

    # -- only for a service that runs without a playbook ---------------------------------------------

    def start(self, events: Sequence[str]) -> None:
        """Start the events now, approved or not."""
        with self._lock:
            now = self._clock.now()
            for event in events:
                self._machine.start(now, event)

    def approve(self, events: Sequence[str]) -> None:
        """Approve the events on behalf of the guests. The history names the operator as the approver."""
        with self._lock:
            now = self._clock.now()
            for event in events:
                self._machine.release(now, event, f"by {OPERATOR}")

    def silence_ns(self, guest: str) -> int | None:
        """Nanoseconds since a guest of this guest's group last asked; None when the group's events are not
        enabled. KeyError when there is no such guest."""
        with self._lock:
            return self._machine.silence_ns(self._clock.now(), guest)

    def has_asked(self, guest: str) -> bool:
        """Whether the guest has asked since its group was enabled. KeyError when there is no such guest."""
        with self._lock:
            self._machine.advance(self._clock.now())
            return self._machine.has_asked(guest)
