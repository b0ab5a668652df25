"""Reads the guests' clocks in turn, and journals each burst of readings as soon as it is taken; and collects
what was recorded inside the guests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from lab.core.clock import Stamp
from lab.core.handlers import HandlerEnd
from lab.core.history import (
    BeatsArrived,
    FactsRead,
    FilesWritten,
    HandlerEnded,
    ProblemMet,
    ReadingsTaken,
    ResyncReported,
    SamplesTaken,
    WatcherReported,
    WorkCounted,
)
from lab.core.timeline import CpuWait, Reading
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.work import WorkCounts
from lab.errors import GuestError, GuestGone
from lab.ports import Clock, Journal, Probe, Resync, View, Watcher, Writer

DENSE_NS = NS_PER_S
"""How long guests are read at the shortest interval after a resume, and before the end of the watch."""

PACE_NS = 100 * NS_PER_MS
BURST = 4
"""At other times, each burst of BURST readings begins PACE_NS after the one before."""

BREATH_NS = 2 * NS_PER_MS
"""The shortest rest between two bursts before a freeze, when only the probe has to run in the guest."""

REST_NS = 20 * NS_PER_MS
"""The shortest rest after a resume: under TCG a burst keeps the guest busy for some 12 ms, and the resync
mechanism has to run as well."""

LEAST_CPU_WAIT_NS = 5 * NS_PER_MS
"""A QEMU's wait for a CPU is recorded when it has grown by at least this. Idle hosts stay below it."""

Look = Callable[[str, Reading], None]


class WorkCounter(Protocol):
    """A program in one guest that dirties memory and counts how fast the guest works."""

    def start_cycle(self) -> None:
        """Forget, and work from now on. GuestError when the guest does not answer."""

    def counts(self) -> WorkCounts | None:
        """What was counted since start_cycle, and rest. None when it is gone."""


@dataclass(frozen=True)
class CycleGuest:
    """A guest in a cycle, and its ports.

    cell: the guest's cell of the matrix; "" without a matrix. booted: called when the guest answers again
    after a reboot for a patch; raises GuestError when its work in the guest fails. before_freeze: called just
    before the guest is frozen. frozen: when it is. before_resume: just before it is resumed. handler_end: how
    the guest's event handler has ended; None while it runs. It raises GuestError when the guest does not
    answer."""

    name: str
    probe: Probe
    resync: Resync
    watcher: Watcher | None = None
    cell: str = ""
    booted: Callable[[], None] | None = None
    before_freeze: Callable[[], None] | None = None
    frozen: Callable[[], None] | None = None
    before_resume: Callable[[], None] | None = None
    handler_end: Callable[[], HandlerEnd | None] | None = None
    writer: Writer | None = None
    work: WorkCounter | None = None

    @property
    def recorders(self) -> list[Callable[[], None]]:
        """What makes its programs forget what they have recorded before a cycle."""
        return [one.start_cycle for one in (self.watcher, self.writer, self.work) if one is not None]

    def resumed_at_once(self) -> None:
        """Do what goes with a freeze and a resume that are both over."""
        self.resync.resumed()
        for then in (self.frozen, self.before_resume):
            if then is not None:
                then()


@dataclass
class GuestObservation:
    """What one cycle has observed of one guest so far. lost: the guest can no longer be observed. gone: the
    known reason why it cannot answer. cpu_waits: in order of time, without those that repeat the last
    value."""

    lost: bool = False
    gone: GuestGone | None = None
    cpu_waits: list[CpuWait] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether the guest has ended for good."""
        return self.gone is not None and self.gone.ended

    def add_cpu_wait(self, wait: CpuWait | None) -> None:
        """Record how long the guest's QEMU has waited for a CPU, if that has grown since the last record."""
        last = self.cpu_waits[-1] if self.cpu_waits else None
        if wait is not None and (
            last is None or wait.pid != last.pid or wait.waited_ns >= last.waited_ns + LEAST_CPU_WAIT_NS
        ):
            self.cpu_waits.append(wait)


NO_READING = Reading(Stamp(0, 0), {}, {}, Stamp(0, 0))
"""In place of the readings of a guest that is lost in a burst."""


def _no_reading() -> Reading:
    return NO_READING


@dataclass(frozen=True)
class _Reads:
    """The guests that can be observed, and the call that reads each."""

    names: list[str]
    reads: list[Callable[[], Reading]]

    @classmethod
    def of(cls, subjects: Mapping[str, CycleGuest], observations: Mapping[str, GuestObservation]) -> _Reads:
        there = [one for one in subjects.values() if not observations[one.name].lost]
        return cls([one.name for one in there], [one.probe.read for one in there])


class ClockReader:
    """Reads the guests of one cycle after another."""

    def __init__(self, clock: Clock, journal: Journal, view: View) -> None:
        self._clock, self._journal, self._view = clock, journal, view

    def read(
        self,
        subjects: Mapping[str, CycleGuest],
        observations: Mapping[str, GuestObservation],
        index: int,
        until_raw_ns: int,
        *,
        dense_start: bool = False,
        dense_end: bool = False,
        look: Look | None = None,
    ) -> None:
        """Read all guests in turn until host MONOTONIC_RAW `until_raw_ns`, and journal each burst. look:
        called with each guest's last reading after each burst."""
        begun = self._clock.now().raw_ns
        there = _Reads.of(subjects, observations)
        append = self._journal.append
        while there.names:
            now = self._clock.now().raw_ns
            if now >= until_raw_ns:
                return
            dense = (dense_start and now < begun + DENSE_NS) or (dense_end and now >= until_raw_ns - DENSE_NS)
            lost = False
            for name, readings in self._burst(there, observations, index):
                if readings[-1] is NO_READING:
                    lost = True
                    readings = tuple(reading for reading in readings if reading is not NO_READING)
                    if not readings:
                        continue
                append(ReadingsTaken(name, index, readings))
                if look is not None:
                    look(name, readings[-1])
            if lost:
                there = _Reads.of(subjects, observations)
            least = REST_NS if dense_start and now < begun + DENSE_NS else BREATH_NS
            rest = least if dense else max(least, now + PACE_NS - self._clock.now().raw_ns)
            self._clock.sleep_until(min(until_raw_ns, self._clock.now().raw_ns + rest))

    def _burst(
        self, there: _Reads, observations: Mapping[str, GuestObservation], index: int
    ) -> Iterator[tuple[str, tuple[Reading, ...]]]:
        """Read the guests in turn, BURST times. Returns each guest's readings; from the one on at which it
        was lost they are NO_READING."""
        turns = [self._turn(there, observations, index) for _ in range(BURST)]
        return zip(there.names, zip(*turns, strict=True), strict=True)

    def _turn(self, there: _Reads, observations: Mapping[str, GuestObservation], index: int) -> list[Reading]:
        """Read each guest once."""
        found: list[Reading] = []
        add, reads = found.append, there.reads
        while len(found) < len(reads):
            try:
                for read in reads[len(found) :]:
                    add(read())
            except GuestError as error:
                number = len(found)
                self._lose(there.names[number], index, observations[there.names[number]], error)
                reads[number] = _no_reading
                add(NO_READING)
        return found

    def _lose(self, name: str, index: int, observation: GuestObservation, error: GuestError) -> None:
        """Journal that the guest cannot be observed. The cycle goes on with the other guests."""
        observation.lost = True
        if isinstance(error, GuestGone):
            observation.gone = error
        self._journal.append(ProblemMet(name, index, str(error)))
        self._view.note(str(error))

    @contextmanager
    def observing(self, name: str, index: int, observation: GuestObservation) -> Iterator[None]:
        """A context in which a GuestError loses this guest for the cycle instead of ending the cycle."""
        try:
            yield
        except GuestError as error:
            self._lose(name, index, observation, error)

    def collect(self, name: str, subject: CycleGuest, index: int) -> None:
        """Journal what was recorded inside the guest."""
        if (samples := subject.probe.samples()) is not None:
            self._journal.append(SamplesTaken(name, index, samples))
        self._journal.append(BeatsArrived(name, index, tuple(subject.probe.heartbeats())))
        self._journal.append(FactsRead(name, index, "after", subject.probe.facts()))
        outcome, finished = subject.resync.outcome(), subject.resync.finished_raw_ns()
        self._journal.append(ResyncReported(name, index, outcome, finished))
        if subject.watcher is not None:
            claims, effects = tuple(subject.watcher.claims()), subject.watcher.effects()
            self._journal.append(WatcherReported(name, index, claims, effects))
        if subject.writer is not None:
            self._journal.append(FilesWritten(name, index, subject.writer.writes()))
        if subject.work is not None and (counts := subject.work.counts()) is not None:
            self._journal.append(WorkCounted(name, index, counts))
        if subject.handler_end is not None and (end := subject.handler_end()) is not None:
            self._journal.append(HandlerEnded(name, end, subject.cell, index))
