"""The real `ports.Announcer`: the core's machine, locked, with the host's clock."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence

from lab.core.announcement import notice_of, notices_beside, together
from lab.core.plan import Announcement, CycleSpec
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import Event, Happening, State
from lab.ports import Clock

OPERATOR = "the operator"


def new_id() -> str:
    """A GUID as the real service writes it."""
    return str(uuid.uuid4()).upper()


class ServiceAnnouncer:
    """Events are those of one machine. lock: held while the machine is used, by all who use it; never for
    long."""

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
        self._beside: dict[str, list[str]] = {}  # events that go with one

    # -- ports.Announcer ---------------------------------------------------------------------------

    def announce(self, guests: Sequence[str], spec: Announcement, cycle: CycleSpec) -> tuple[str, ...]:
        """See ports.Announcer. KeyError for a guest that the service does not know: nothing is published."""
        concerned: dict[str, list[str]] = {}
        for guest in dict.fromkeys(guests):
            concerned.setdefault(self._groups[guest], []).append(guest)
        made = []
        with self._lock:  # for all of it: no request comes between an event and the faults that go with it
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
                    self._machine.cancel(now, other)  # which does nothing to one that has started
                    self._machine.finish(now, other)

    def happened(self) -> tuple[Happening, ...]:
        with self._lock:
            self._machine.advance(self._clock.now())
            return self._machine.happened()

    # -- what only a service that runs alone is asked ------------------------------------------------

    def start(self, events: Sequence[str]) -> None:
        """Started now, approved or not."""
        with self._lock:
            now = self._clock.now()
            for event in events:
                self._machine.start(now, event)

    def approve(self, events: Sequence[str]) -> None:
        """On behalf of the guests, by whoever runs the service: that is what the history says."""
        with self._lock:
            now = self._clock.now()
            for event in events:
                self._machine.release(now, event, f"by {OPERATOR}")

    def silence_ns(self, guest: str) -> int | None:
        """For how long nobody of the guest's group has asked; None when its events are off. KeyError: no such
        guest."""
        with self._lock:
            return self._machine.silence_ns(self._clock.now(), guest)

    def has_asked(self, guest: str) -> bool:
        """Whether the guest has asked since its group was switched on. KeyError: no such guest."""
        with self._lock:
            self._machine.advance(self._clock.now())
            return self._machine.has_asked(guest)
