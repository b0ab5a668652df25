"""A fleet behind the controller's ports, on a clock that only moves when somebody waits or asks.

Guests stop with a suspend and are behind by it; some time after the resume their clock is set. Handlers in
them ask the real metadata service's machine (lab.core.scheduled) once a second. Nothing here judges: tests
do.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from lab.controller import Controller, CycleGuest, CycleRunner, RolloutRunner, RolloutStop
from lab.controller.meeting import Meeting
from lab.core.clock import GuestClock, Stamp
from lab.core.handlers import HandlerEnd
from lab.core.history import HistoryEvent
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.patch import HoldPatch, Impact
from lab.core.plan import Cell, CycleSpec, Expectations, Gate, GuestSpec, Rollout
from lab.core.timeline import Call, CpuWait, Heartbeat, ProbeFacts, Reading, SamplerReport
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestError, GuestGone
from lab.ports import (
    Announcer,
    Freezing,
    Frozen,
    Guard,
    Health,
    PatchResult,
    Resumed,
    Successor,
)

REAL_NS = 1_790_000_000 * NS_PER_S
BEGIN = Stamp(0, REAL_NS)
CALL_NS = 2 * NS_PER_MS
FACTS = ProbeFacts("boot", "tsc")
SAMPLES = SamplerReport(1, 2, 0, 1, 1, 1)


@dataclass(frozen=True)
class AboutToFreeze:
    """CycleGuest.before_freeze was called."""

    guest: str


E = TypeVar("E", bound=HistoryEvent | AboutToFreeze)


@dataclass
class SimGuest:
    """behind_ns: of both of its clocks, by all of its pauses. set_ns: of REALTIME, put right since.
    ends_at: when it powers itself off."""

    name: str
    behind_ns: int = 0
    set_ns: int = 0
    frozen_at: int | None = None
    deaf: bool = False
    resting: bool = False
    sick: str = ""
    ends_at: float = math.inf


@dataclass
class World:
    """All guests of a fleet and the host below them. read_ns, repair_ns: what a reading takes, and how long
    after the resume a clock is set; None: never. gate_ns: how long a guest takes to answer a gate."""

    guests: dict[str, SimGuest]
    read_ns: int = 300_000
    repair_ns: int | None = 20 * NS_PER_MS
    gate_ns: int = 0
    at: int = NS_PER_S
    keep: bool = True
    events: list[HistoryEvent | AboutToFreeze] = field(default_factory=list)
    shown: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    due: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    asked_for: int = 0
    readings: int = 0
    most_down: int = 0
    handler_ends: dict[str, Callable[[], HandlerEnd | None]] = field(default_factory=dict)
    stamp: Stamp = BEGIN
    read_now: dict[tuple[int, int], Reading] = field(default_factory=dict)
    """The readings that began and ended at `stamp`, by how far the clocks were behind and set. Guests whose
    clocks agree share them: what a reading costs here is no cost of the controller's (tests.bench.fleet)."""

    # -- ports.Clock

    def now(self) -> Stamp:
        if self.stamp.raw_ns != self.at:
            self.stamp, self.read_now = Stamp(self.at, REAL_NS + self.at), {}
        return self.stamp

    def sleep_until(self, raw_ns: int) -> None:
        while self.due and self.due[0][0] <= raw_ns:
            when, _, do = heapq.heappop(self.due)
            self.at = max(self.at, when)
            do()
        self.at = max(self.at, raw_ns)

    def later(self, raw_ns: int, do: Callable[[], None]) -> None:
        """Have it done at that instant, when the clock gets there by somebody's waiting."""
        self.asked_for += 1
        heapq.heappush(self.due, (raw_ns, self.asked_for, do))

    # -- ports.Hypervisor

    def prepare(self, guest: str, freezing: Freezing) -> None:
        return None

    def finish(self, guest: str) -> None:
        return None

    def begin_freeze(self, guests: Sequence[str], freezing: Freezing) -> None:
        """Nothing is ordered before freeze()."""

    def begin_resume(self, guests: Sequence[str]) -> None:
        """Nothing is ordered before resume()."""

    def freeze(self, guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:
        called = self.now()
        if freezing.method.freezes:
            self.at += CALL_NS
            self.guests[guest].frozen_at = self.at
            self.most_down = max(self.most_down, sum(g.frozen_at is not None for g in self.guests.values()))
        return Frozen(Call(called, self.now()))

    def resume(self, guest: str, freezing: Freezing) -> Resumed:
        called = self.now()
        one = self.guests[guest]
        if one.frozen_at is not None:
            one.behind_ns += self.at - one.frozen_at
            one.frozen_at = None
            self.at += CALL_NS
        return Resumed(Call(called, self.now()))

    def guard(
        self, guests: Sequence[str], freezing: Freezing, at_raw_ns: int, until_raw_ns: int, cycle: int
    ) -> Guard:
        return _Unneeded()

    def shutdown(self, guest: str, deadline_raw_ns: int) -> Call:
        raise NotImplementedError

    def start(self, guest: str, successor: Successor) -> Call:
        raise NotImplementedError

    def state(self, guest: str) -> str:
        return "running" if self.guests[guest].frozen_at is None else "paused"

    def look(self, guest: str) -> None:
        if self.at >= self.guests[guest].ends_at:
            raise GuestGone("has ended", where=f"guest {guest}", ended=True)

    def wake(self, guest: str) -> None:
        """All guests are awake."""

    def cpu_time_ns(self, guest: str) -> int:
        return 0

    def cpu_wait(self, guest: str) -> CpuWait | None:
        return None

    # -- ports.Journal, ports.View, ports.Doctor

    def append(self, event: HistoryEvent) -> None:
        if self.keep:
            self.events.append(event)

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        return None

    def note(self, text: str) -> None:
        return None

    def cycle(self, number: int, of: int) -> None:
        return None

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None:
        return None

    def resumed(self) -> None:
        return None

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        self.shown.append((label, state))

    def ask(self, guest: str, gate: Gate, deadline_raw_ns: int) -> Health:
        self.asked.append((guest, gate.label))
        sick, answers_at = self.guests[guest].sick, self.at + self.gate_ns
        self.sleep_until(min(answers_at, deadline_raw_ns))
        if answers_at > deadline_raw_ns:
            return Health(False, "no answer in time")
        return Health(not sick, sick)

    # -- what a test asks

    def of(self, kind: type[E]) -> list[E]:
        """All events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def roll_out(
        self,
        specs: Sequence[GuestSpec],
        rollout: Rollout,
        cycle: CycleSpec,
        announcer: Announcer | None = None,
        expect: Expectations = Expectations(),  # noqa: B008 - frozen
        all_guests: Sequence[GuestSpec] = (),
        meeting: Meeting | None = None,
    ) -> RolloutStop | None:
        """The whole rollout over these guests, by the real controller. all_guests, meeting: with other hosts
        that have guests of it."""
        cell = Cell("", (), tuple(specs), ResyncMechanism.PUSH, cycle, expect)
        freezes = self.runner(cell, announcer, meeting)
        fleet = RolloutRunner(
            rollout, specs, self, self, self, self, expect.tolerance_ns, all_guests, meeting
        )
        return fleet.roll_out(0, self.subjects(), freezes.run)

    def runner(
        self, cell: Cell, announcer: Announcer | None = None, meeting: Meeting | None = None
    ) -> CycleRunner:
        """Runs the cycles of a cell with the real controller."""
        controller = Controller(self, self, self, self, _shield, meeting)
        return CycleRunner(controller, self, self, self, cell, _Hold(self, cell.cycle), announcer)

    def subjects(self) -> Mapping[str, CycleGuest]:
        return {
            n: CycleGuest(
                n,
                _Probe(self, g),
                _Resync(self, g),
                before_freeze=partial(self.events.append, AboutToFreeze(n)),
                handler_end=self.handler_ends.get(n),
            )
            for n, g in self.guests.items()
        }


@contextmanager
def _shield() -> Iterator[None]:
    yield


class _Unneeded:
    why = ""

    def bring_forward(self, by_ns: int) -> None:
        return None

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def resumed(self, guest: str) -> Resumed | None:
        return None


class _Probe:
    def __init__(self, world: World, guest: SimGuest) -> None:
        self._world, self._guest = world, guest

    def read(self) -> Reading:
        world, guest = self._world, self._guest
        if guest.deaf:
            raise GuestError("does not answer", where=f"guest {guest.name}")
        t1 = t4 = world.now()
        world.readings += 1
        if world.read_ns or world.due:
            world.sleep_until(world.at + world.read_ns)
            t4 = world.now()
        state = guest.behind_ns, guest.set_ns
        if t4 is t1 and (known := world.read_now.get(state)) is not None:
            return known
        raw, real = world.at - guest.behind_ns, REAL_NS + world.at - guest.behind_ns + guest.set_ns
        clocks = {GuestClock.RAW: raw, GuestClock.MONO: raw, GuestClock.BOOT: raw, GuestClock.REAL: real}
        reading = Reading(t1, clocks, clocks, t4)
        if t4 is t1:
            world.read_now[state] = reading
        return reading

    def start_cycle(self) -> None:
        self._guest.resting = False

    def rest(self) -> None:
        self._guest.resting = True

    def heartbeats(self) -> Sequence[Heartbeat]:
        return ()

    def samples(self) -> SamplerReport:
        return SAMPLES

    def facts(self) -> ProbeFacts:
        return FACTS

    def restart(self, deadline_raw_ns: int) -> None:
        return None


class _Resync:
    def __init__(self, world: World, guest: SimGuest) -> None:
        self._world, self._guest = world, guest

    def setup(self) -> Setup:
        return Setup(ResyncMechanism.PUSH)

    def resumed(self) -> None:
        world, guest = self._world, self._guest

        def repair() -> None:
            guest.set_ns = guest.behind_ns

        if world.repair_ns is not None:
            world.later(world.at + world.repair_ns, repair)

    def outcome(self) -> str:
        return ""

    def finished_raw_ns(self) -> int | None:
        return None

    def remove(self) -> None:
        return None


class _Hold:
    label, impact, successor, acts = "hold", Impact.FREEZE, Successor(), True

    def __init__(self, world: World, cycle: CycleSpec) -> None:
        self._world, self._length = world, cycle.patch.longest_ns

    def check(self) -> None:
        return None

    def version(self, guest: str) -> str:
        return ""

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        self._world.at += self._length
        return PatchResult(True)

    def verify(self, before: str, after: str) -> str:
        return ""

    def undo(self) -> str:
        return ""


def fleet(count: int, update_domains: int, sets: int = 1, fault_domains: int = 2) -> list[GuestSpec]:
    """So many guests, in turn in the sets, spread over their domains."""
    return [
        GuestSpec(
            f"g{n}",
            availability_set=f"set-{n % sets}",
            update_domain=n // sets % update_domains,
            fault_domain=n // sets % fault_domains,
        )
        for n in range(count)
    ]


def world_of(specs: Sequence[GuestSpec], **settings: Any) -> World:
    return World({spec.name: SimGuest(spec.name) for spec in specs}, **settings)


SHORT = CycleSpec(
    FreezeMethod.SUSPEND,
    HoldPatch(2 * NS_PER_S),
    settle_ns=0,
    before_ns=NS_PER_S,
    watch_ns=3 * NS_PER_S,
)
