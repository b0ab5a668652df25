"""Reading guests' clocks in turn, and journalling what was read as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab.core.handlers import HandlerEnd
from lab.core.history import ProblemMet, ReadingsTaken
from lab.core.timeline import CpuWait, Reading
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestError, GuestGone
from lab.ports import Clock, Journal, Probe, Resync, View, Watcher

DENSE_NS = NS_PER_S
"""How long the guest is read without a rest after a resume, and before the end of the watch."""

PACE_NS = 100 * NS_PER_MS
BURST = 4
"""In between: BURST readings, then a rest until PACE_NS after the burst began."""

BREATH_NS = 2 * NS_PER_MS
"""The shortest rest between two bursts, when nothing but the probe has to run in the guest."""

REST_NS = 20 * NS_PER_MS
"""The same after a resume: under TCG a burst keeps the guest busy for some 12 ms, and what repairs its
clock has to run as well."""

LEAST_CPU_WAIT_NS = 5 * NS_PER_MS
"""A wait for a CPU by which two looks differ; less is usual on an idle host."""

Look = Callable[[str, Reading], None]


@dataclass(frozen=True)
class CycleGuest:
    """A guest in a cycle, and how it is reached. cell: of the matrix, "" without one. booted: called when it
    was rebooted for a patch, and answers again; GuestError when what it should do does not work.
    before_freeze: called just before the guest is frozen. handler_end: how its handler of events has ended,
    None while that runs; GuestError when the guest does not answer."""

    name: str
    probe: Probe
    resync: Resync
    watcher: Watcher | None = None
    cell: str = ""
    booted: Callable[[], None] | None = None
    before_freeze: Callable[[], None] | None = None
    handler_end: Callable[[], HandlerEnd | None] | None = None


@dataclass
class GuestObservation:
    """What one cycle has seen of one guest so far. lost: it cannot be observed any more. gone: what is known
    to keep it from answering. cpu_waits: those that differ."""

    lost: bool = False
    gone: GuestGone | None = None
    cpu_waits: list[CpuWait] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """It will not come back by itself."""
        return self.gone is not None and self.gone.ended

    def add_cpu_wait(self, wait: CpuWait | None) -> None:
        """Keep a look at how long the guest's QEMU waited for a CPU, if it tells more than the one before."""
        last = self.cpu_waits[-1] if self.cpu_waits else None
        if wait is not None and (
            last is None or wait.pid != last.pid or wait.waited_ns >= last.waited_ns + LEAST_CPU_WAIT_NS
        ):
            self.cpu_waits.append(wait)


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
        """Read all guests in turn until `until_raw_ns`, and journal what was read as it comes. look: shown
        each guest's last reading after each burst."""
        begun = self._clock.now().raw_ns
        there = [one for one in subjects.values() if not observations[one.name].lost]
        while there:
            now = self._clock.now().raw_ns
            if now >= until_raw_ns:
                return
            dense = (dense_start and now < begun + DENSE_NS) or (dense_end and now >= until_raw_ns - DENSE_NS)
            for name, readings in self._burst(there, observations, index):
                self._journal.append(ReadingsTaken(name, index, tuple(readings)))
                if look is not None:
                    look(name, readings[-1])
            there = [one for one in there if not observations[one.name].lost]
            least = REST_NS if dense_start and now < begun + DENSE_NS else BREATH_NS
            rest = least if dense else max(least, now + PACE_NS - self._clock.now().raw_ns)
            self._clock.sleep_until(min(until_raw_ns, self._clock.now().raw_ns + rest))

    def _burst(
        self, there: Sequence[CycleGuest], observations: Mapping[str, GuestObservation], index: int
    ) -> list[tuple[str, list[Reading]]]:
        """Read the guests in turn, BURST times; of each what was read, if anything."""
        batch: dict[str, list[Reading]] = {one.name: [] for one in there}
        ways = [(one.probe.read, batch[one.name].append, one.name) for one in there]
        for _ in range(BURST):
            lost = False
            for read, add, name in ways:
                try:
                    add(read())
                except GuestError as error:
                    self._lose(name, index, observations[name], error)
                    lost = True
            if lost:
                ways = [way for way in ways if not observations[way[-1]].lost]
        return [(name, readings) for name, readings in batch.items() if readings]

    def _lose(self, name: str, index: int, observation: GuestObservation, error: GuestError) -> None:
        """A guest that cannot be observed is a problem of that guest, not the end of the cycle."""
        observation.lost = True
        if isinstance(error, GuestGone):
            observation.gone = error
        self._journal.append(ProblemMet(name, index, str(error)))
        self._view.note(str(error))

    @contextmanager
    def observing(self, name: str, index: int, observation: GuestObservation) -> Iterator[None]:
        """A context in which a guest that cannot be observed is lost to the cycle, and not the cycle's
        end."""
        try:
            yield
        except GuestError as error:
            self._lose(name, index, observation, error)
