"""A cycle's announcement: it is published, waited for, started, and over once the guests are back in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.core.clock import GuestClock
from lab.core.history import EventHappened, EventsAnnounced
from lab.core.plan import Announcement, CycleSpec
from lab.core.scheduled.model import State
from lab.core.timeline import Reading
from lab.core.units import NS_PER_MS
from lab.ports import Announcer, Clock, Journal, View

LOOK_NS = 20 * NS_PER_MS
"""Interval between two checks whether the guests have approved."""

THERE_NS = 250 * NS_PER_MS
"""Interval between two checks whether there is still a guest to wait for."""

Stage = Callable[[str], None]
"""Called with a stage's name, one word."""


def quietly(_stage: str) -> None:
    """A Stage that does nothing."""


class EventLifecycle:
    """One cycle's announcement, from its publication to its end.

    tolerance_ns, hold_ns: the guests are in time again when every |offset| has been at most tolerance_ns for
    hold_ns. stage: called with "announced" and "started". ended: whether a guest has ended for good.
    """

    def __init__(
        self,
        announcer: Announcer,
        clock: Clock,
        journal: Journal,
        view: View,
        *,
        index: int,
        guests: Sequence[str],
        tolerance_ns: int,
        hold_ns: int,
        stage: Stage = quietly,
        ended: Callable[[str], bool] = lambda _guest: False,
    ) -> None:
        self._announcer, self._clock, self._journal, self._view = announcer, clock, journal, view
        self._index, self._guests = index, tuple(guests)
        self._tolerance_ns, self._hold_ns, self._stage = tolerance_ns, hold_ns, stage
        self._has_ended, self._look_at_ns = ended, 0
        self._events: tuple[str, ...] = ()
        self._since: dict[str, int] = {}
        self._last_ns = 0
        self._ended = False
        self.not_before_raw_ns = 0

    def announce(self, spec: Announcement, cycle: CycleSpec) -> bool:
        """Publish the events, and wait until the guests may be frozen: a guest has approved, NotBefore has
        passed, or no guest receives the events. False when the events were cancelled. Stops waiting when all
        guests have ended. The freeze may begin at host MONOTONIC_RAW `not_before_raw_ns`, when the events
        have been shown as Started for spec.started_ns."""
        self._events = self._announcer.announce(self._guests, spec, cycle)
        published = self._announcer.published(self._events)
        if published:  # else they are the controller's of a fleet, which has them in its own history
            self._journal.append(EventsAnnounced(self._index, tuple(published), spec.time_factor, spec.cloud))
        notice_ns = max((event.notice.notice_ns for event in published), default=0)
        self._stage("announced")
        self._view.phase("announce", guest=", ".join(self._guests), length_ns=max(0, notice_ns))
        cancel_at = None
        if spec.cancel_after_ns is not None:
            cancel_at = self._clock.now().raw_ns + spec.real_ns(spec.cancel_after_ns)
        while (state := self._announcer.state(self._events)).waits and not self._deserted():
            now = self._clock.now().raw_ns
            if cancel_at is not None and now >= cancel_at:
                self._announcer.cancel(self._events)
                continue
            self._clock.sleep_until(now + LOOK_NS)
        if state.waits:  # no guest is left to freeze, which the cycle reports
            self._announcer.cancel(self._events)
            self._write_happenings()
            return True
        self._write_happenings()
        if state is State.CANCELLED:
            self._end()  # of several sets one may have approved before
            self._view.note("called off: the guests are not frozen")
            return False
        self._stage("started")
        if state is State.STARTED:
            self.not_before_raw_ns = self._clock.now().raw_ns + spec.started_ns
        return True

    def _deserted(self) -> bool:
        now = self._clock.now().raw_ns
        if now < self._look_at_ns:
            return False
        self._look_at_ns = now + THERE_NS
        return all(self._has_ended(guest) for guest in self._guests)

    def look(self, guest: str, reading: Reading) -> None:
        """Take a reading after the resume. The event ends once all guests have been in time for hold_ns."""
        if self._ended:
            return
        if reading.offset(GuestClock.REAL).largest_ns > self._tolerance_ns:
            self._since.pop(guest, None)
            return
        if guest not in self._since:
            self._since[guest] = self._last_ns = reading.t4.raw_ns
        if len(self._since) == len(self._guests) and reading.t4.raw_ns - self._last_ns >= self._hold_ns:
            self._end()

    def over(self) -> None:
        """End the event, if it has not ended yet."""
        if not self._ended:
            self._end()
        self._write_happenings()

    def _end(self) -> None:
        self._ended = True
        self._announcer.all_clear(self._events)
        self._write_happenings()

    def _write_happenings(self) -> None:
        for happening in self._announcer.happened():
            self._journal.append(EventHappened(happening, self._index))
