"""The controller's ports in memory, on a clock that only the test moves. Each call is a line of a log, and
each can be made to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from lab.controller import Controller, CycleGuest
from lab.core.clock import GuestClock, Stamp
from lab.core.history import (
    HistoryEvent,
    OfGuest,
)
from lab.core.mechanism import ResyncMechanism
from lab.core.migration import QEMU_DEFAULTS, MigrationReport
from lab.core.patch import Impact
from lab.core.plan import CycleSpec, FreezeMethod, HoldPatch
from lab.core.timeline import Call, CpuWait, Heartbeat, ProbeFacts, Reading, SamplerReport
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestGone, HypervisorError, Interrupted
from lab.ports import Freezing, Frozen, PatchResult, Resumed, Successor

SPEC = CycleSpec(
    FreezeMethod.SUSPEND,
    HoldPatch(NS_PER_S),
    settle_ns=NS_PER_S,
    before_ns=30 * NS_PER_MS,
    budget_ns=10 * NS_PER_S,
    watch_ns=30 * NS_PER_MS,
)


MIGRATION = MigrationReport(0, 0, "completed", 0, 0, 0, 2, QEMU_DEFAULTS)

E = TypeVar("E", bound=HistoryEvent)


class World:
    """Everything outside the controller; each thing done is a line in `log`. fail: what to raise when a
    line is about to be logged. after: the same, once it was done."""

    def __init__(self) -> None:
        self.at = NS_PER_S
        self.log: list[str] = []
        self.frozen: set[str] = set()
        self.fail: dict[str, BaseException] = {}
        self.after: dict[str, BaseException | None] = {}
        self.events: list[HistoryEvent] = []
        self.guarded: list[str] = []
        self.by_guard: dict[str, Resumed] = {}
        self.called_off: dict[str, str] = {}
        self.at_once: set[str] = set()  # guests that are resumed in their freeze
        self.down: set[str] = set()
        self.gone: dict[str, GuestGone] = {}
        self.finished: list[str] = []
        self.shielded = False
        self.interrupted_on_the_way = False
        self.patch_deadline = 0
        self.interrupt_at: int | None = None
        self.steps = 0

    def now(self) -> Stamp:
        self.at += 1000
        return Stamp(self.at, self.at + NS_PER_S)

    def sleep_until(self, raw_ns: int) -> None:
        self.at = max(self.at, raw_ns)
        self.did("sleep")

    def did(self, what: str, do: Callable[[], object] = lambda: None) -> None:
        self.steps += 1
        if self.interrupt_at == self.steps and not self.shielded:
            raise Interrupted("interrupted")
        if what in self.fail:
            raise self.fail[what]
        self.log.append(what)
        do()
        if what in self.after:
            error = self.after[what]
            if error is None:  # the guests' process is gone from here on
                self.fail |= {f"cpu {name}": HypervisorError("gone") for name in "ab"}
            else:
                raise error

    @contextmanager
    def shield(self) -> Iterator[None]:
        if self.interrupted_on_the_way:
            self.interrupted_on_the_way = False  # lab.process.signals raises once
            raise Interrupted("just before the shield was up")
        self.shielded = True
        try:
            yield
        finally:
            self.shielded = False

    # ports.Hypervisor

    def prepare(self, guest: str, freezing: Freezing) -> None:
        self.did(f"prepare {guest}")

    def begin_freeze(self, guests: Sequence[str], freezing: Freezing) -> None:
        """Nothing is ordered before freeze()."""

    def begin_resume(self, guests: Sequence[str]) -> None:
        """Nothing is ordered before resume()."""

    def freeze(self, guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:
        called = self.now()
        if freezing.method.freezes:
            self.did(f"freeze {guest}", lambda: self.frozen.add(guest))
        call = Call(called, self.now())
        if guest in self.called_off:
            self.frozen.discard(guest)
            return Frozen(call, (), Call(self.now(), self.now()), self.called_off[guest])
        if guest in self.at_once:
            self.frozen.discard(guest)
            done = Resumed(Call(self.now(), self.now()))
            return Frozen(call, resumed=done, migration=lambda: MIGRATION)
        return Frozen(call)

    def resume(self, guest: str, freezing: Freezing) -> Resumed:
        called = self.now()
        self.did(f"resume {guest}", lambda: self.frozen.discard(guest))
        return Resumed(Call(called, self.now()))

    def finish(self, guest: str) -> None:
        self.did(f"finish {guest}")
        self.finished.append(guest)

    def shutdown(self, guest: str, deadline_raw_ns: int) -> Call:
        called = self.now()
        self.did(f"shutdown {guest}", lambda: self.down.add(guest))
        return Call(called, self.now())

    def start(self, guest: str, successor: Successor) -> Call:
        called = self.now()
        self.did(f"boot {guest}", lambda: self.down.discard(guest))
        return Call(called, self.now())

    def guard(
        self, guests: Sequence[str], freezing: Freezing, at_raw_ns: int, until_raw_ns: int, cycle: int
    ) -> FakeGuard:
        self.guarded = list(guests)
        return FakeGuard(self, at_raw_ns)

    def state(self, guest: str) -> str:
        return "paused" if guest in self.frozen else "running"

    def look(self, guest: str) -> None:
        if (gone := self.gone.get(guest)) is not None:
            raise gone

    def wake(self, guest: str) -> None:
        self.did(f"wake {guest}")
        if (gone := self.gone.get(guest)) is not None and gone.ended:
            raise gone
        self.gone.pop(guest, None)

    def cpu_time_ns(self, guest: str) -> int:
        self.did(f"cpu {guest}")
        return 7

    def cpu_wait(self, guest: str) -> CpuWait | None:
        self.did(f"cpu wait {guest}")
        return CpuWait(self.at, 1, self.at // 2)

    # ports.Journal and ports.View

    def append(self, event: HistoryEvent) -> None:
        self.did(f"journal {event.KIND}")
        self.events.append(event)

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        self.did(f"phase {name}")

    def note(self, text: str) -> None:
        self.did("note")

    def view_frozen(self, since_raw_ns: int, budget_ns: int) -> None:
        self.did("view frozen")

    def kinds(self, guest: str) -> list[str]:
        return [event.KIND for event in self.events if isinstance(event, OfGuest) and event.guest == guest]

    def of(self, kind: type[E], guest: str = "") -> list[E]:
        """All events of one kind; of one guest, if it is named."""
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (not guest or getattr(event, "guest", "") == guest)
        ]


class FakeGuard:
    why = ""

    def bring_forward(self, by_ns: int) -> None:
        self.at_raw_ns -= by_ns

    def __init__(self, world: World, at_raw_ns: int) -> None:
        self.world, self.at_raw_ns = world, at_raw_ns

    def __enter__(self) -> FakeGuard:
        self.world.did("guard")
        return self

    def __exit__(self, *_: object) -> None:
        self.world.log.append("guard ends")

    def resumed(self, guest: str) -> Resumed | None:
        call = self.world.by_guard.get(guest)
        if call is not None:
            self.world.frozen.discard(guest)
        return call


class FakeView:
    def __init__(self, world: World) -> None:
        self.phase, self.note, self.frozen = world.phase, world.note, world.view_frozen
        self.world = world

    def resumed(self) -> None:
        self.world.did("view resumed")

    def cycle(self, *_: object, **__: object) -> None:
        self.world.did("view cycle")

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        self.world.did(f"view {label} {state} {number}/{of}")


class FakeProbe:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    def read(self) -> Reading:
        assert self.name not in self.world.frozen, "nobody reads a frozen guest"
        t1 = self.world.now()
        self.world.at += 2 * NS_PER_MS
        self.world.did(f"read {self.name}")
        clocks = dict.fromkeys(GuestClock, self.world.at)
        return Reading(t1, clocks, clocks, self.world.now())

    def start_cycle(self) -> None:
        self.world.did(f"start {self.name}")

    def rest(self) -> None:
        return None

    def heartbeats(self) -> Sequence[Heartbeat]:
        return ()

    def samples(self) -> SamplerReport:
        self.world.did(f"samples {self.name}")
        return SamplerReport(1, 2, 0, 1, 1, 1)

    def facts(self) -> ProbeFacts:
        self.world.did(f"facts {self.name}")
        return ProbeFacts("boot", "tsc")

    def restart(self, deadline_raw_ns: int) -> None:
        self.world.did(f"restart {self.name}")


class FakeResync:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    def resumed(self) -> None:
        self.world.did(f"resync {self.name}")

    def setup(self) -> Setup:
        return Setup(ResyncMechanism.NONE)

    def remove(self) -> None:
        return None

    def outcome(self) -> str:
        return "set"

    def finished_raw_ns(self) -> int | None:
        return None


class FakePatch:
    label = "hold 1 s"
    impact = Impact.FREEZE
    successor = Successor()
    acts = True

    def __init__(self, world: World) -> None:
        self.world = world
        self.result = PatchResult(True)

    def check(self) -> None:
        return None

    def version(self, guest: str) -> str:
        return f"{guest} {len(self.world.log)}"

    def verify(self, before: str, after: str) -> str:
        return "" if before != after else "nothing changed"

    def undo(self) -> str:
        return ""

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        self.world.patch_deadline = deadline_raw_ns
        self.world.at += NS_PER_S
        self.world.did("patch")
        return self.result


def cycle(
    world: World,
    *,
    frozen: bool = True,
    guests: Sequence[str] = ("a", "b"),
    method: FreezeMethod = FreezeMethod.SUSPEND,
    wake: bool = False,
    watch_ns: int = SPEC.watch_ns,
) -> None:
    controller = Controller(world, world, world, FakeView(world), world.shield)
    subjects = {
        n: CycleGuest(
            n,
            FakeProbe(world, n),
            FakeResync(world, n),
            frozen=partial(world.did, f"frozen {n}"),
            before_resume=partial(world.did, f"before resume {n}"),
        )
        for n in guests
    }
    spec = replace(SPEC, method=method, wake=wake, watch_ns=watch_ns)
    controller.run_cycle(0, subjects, spec, FakePatch(world), frozen=frozen)
