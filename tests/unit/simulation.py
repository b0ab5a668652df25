"""A synthetic guest with a known truth, in exact integers.

What happens to the guest and its clocks is in simulated_clocks.py; here is what the lab sees of it.

A Scenario is drawn by hypothesis; what is too many to draw (delays) comes from its seed. `simulate` gives
the Observation that the lab would have made, and the Truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lab.core.clock import GuestClock, Stamp
from lab.core.plan import FreezeMethod, Regime
from lab.core.timeline import (
    Call,
    ClockStep,
    CrossTimestamp,
    Heartbeat,
    Hole,
    Observation,
    ProbeFacts,
    Reading,
    SamplerReport,
)
from tests.unit.scenario import MS as MS
from tests.unit.scenario import US as US
from tests.unit.scenario import Move as Move
from tests.unit.scenario import Network as Network
from tests.unit.scenario import Repair as Repair
from tests.unit.scenario import S as S
from tests.unit.scenario import Scenario as Scenario
from tests.unit.simulated_clocks import BASE, GUEST_MONO, GUEST_RAW, SimulatedClocks

PERIOD, FLOOR, BEAT = 4 * MS, 8 * MS, 20 * MS
STEP_FLOOR, STEP_SHARE = 500 * US, 8


@dataclass
class Truth:
    """What really was. held: from the last vCPU's stop until they may run. still: the time for which the
    clocks stood still. rest: from the last to the next instruction. hole: guest time in it."""

    scenario: Scenario
    host_real: Callable[[int], int]
    guest_raw: Callable[[int], int]
    guest_real: Callable[[int], int]
    held: int = 0
    still: int = 0
    rest: int = 0
    hole: int = 0
    called: int = 0
    resumed: int = 0
    clocks_started: int = 0
    pauses: tuple[tuple[int, int], ...] = ()
    """From when to when no instruction ran because of the freeze; host instants."""
    aside: tuple[int, int] = (0, 0)
    """From when to when somebody else stopped the guest, its clocks with it."""
    looks: dict[int, int] = field(default_factory=dict)
    """Of each reading, by its t1: when the guest read the REALTIME that it answered."""
    steps_after: tuple[int, ...] = ()
    """Host instants of steps after the resume."""
    sends: dict[int, int] = field(default_factory=dict)
    """Of each heartbeat and answer, by its arrival: when its MONOTONIC_RAW was read."""

    def offset(self, at: int) -> int:
        return self.guest_real(at) - self.host_real(at)

    def stepped(self, until: int) -> bool:
        """Whether there was a step after the resume, before `until`."""
        return any(at <= until for at in self.steps_after)

    def raw_offset(self, at: int) -> int:
        return self.guest_raw(at) - at

    @property
    def real_ppm_quiet(self) -> float:
        """The rate of the REALTIME offset where nothing moves the clock."""
        s = self.scenario
        guest = (1 + s.raw_ppb / 1e9) * (1 + s.real_ppb / 1e9)
        return (guest - (1 + s.host_ppb / 1e9)) * 1e6


class _World(SimulatedClocks):
    """What the lab sees of the guest."""

    def __init__(self, s: Scenario) -> None:
        super().__init__(s)
        self._arrived = 0
        self.sends: dict[int, int] = {}
        self._burst_until = self._burst_from = BASE

    def stamp(self, at: int, *, calm: bool = False) -> tuple[Stamp, int]:
        """Two clocks one after the other, and when it is over."""
        apart = self.random.randint(50, 300)
        if self.s.preempted and not calm and self.random.random() < 0.01:
            apart = self.random.randint(10 * US, 3 * MS)
        return Stamp(at, self.host_real(at + apart)), at + apart

    def delay(self, at: int, *, up: bool) -> int:
        s, r = self.s, self.random
        base = s.rtt_ns // 5
        if s.network is Network.FAST:
            return r.randint(50 * US, 400 * US)
        usual = base + int(r.expovariate(1) * base)
        if s.network is Network.ASYMMETRIC:
            return usual * 4 if up else usual // 3
        if s.network is Network.HEAVY and r.random() < 0.05:
            return usual * r.randint(5, 100)
        if s.network is Network.BURSTY:
            if at > self._burst_until:
                self._burst_from = at + r.randint(0, 2 * S)
                self._burst_until = self._burst_from + r.randint(0, 300 * MS)
            if self._burst_from <= at <= self._burst_until:
                return usual + r.randint(0, 50 * MS)
        return usual

    def arrival(self, sent: int) -> int:
        """One channel: nothing overtakes."""
        self._arrived = max(self._arrived + 1, sent + self.delay(sent, up=False))
        return self._arrived

    def look(
        self, at: int, order: tuple[GuestClock, ...]
    ) -> tuple[dict[GuestClock, int], dict[GuestClock, int], int]:
        """Guest clocks read one after the other; also when each was, and when it was over."""
        values: dict[GuestClock, int] = {}
        when: dict[GuestClock, int] = {}
        for clock in order:
            at = self.ahead(at, int(self.random.uniform(1 * US, 60 * US)))
            if self.s.preempted and self.random.random() < 0.005:
                at = self.ahead(at, self.random.randint(100 * US, 10 * MS))
            value = self.guest_raw(at)
            when[clock] = at
            if clock is GuestClock.REAL:
                value = self._real_of(value)
            elif clock is not GuestClock.RAW:
                value += GUEST_MONO - GUEST_RAW
                if clock is GuestClock.BOOT:
                    value += self.slept(at)
            values[clock] = value
        return values, when, at

    def exchange(self, at: int, looks: dict[int, int]) -> tuple[Reading, int]:
        t1, over = self.stamp(at)
        arrives = over + self.delay(at, up=True)
        received = self.ahead(self.ahead(arrives, 0), self.random.randint(1 * US, 200 * US))
        order = (GuestClock.RAW, GuestClock.REAL, GuestClock.MONO, GuestClock.BOOT)
        t2, _, received = self.look(received, order)
        busy = self.random.randint(5 * US, 50 * US)
        if self.s.preempted and self.random.random() < 0.02:
            busy += self.random.randint(0, 20 * MS)
        cross = None
        if self.s.crossed:
            received = self.ahead(received, self.random.randint(1 * US, 100 * US))
            apart = self.random.choice((0, self.random.randint(1 * US, 3 * MS)))
            raws = self.guest_raw(received), self.guest_raw(received + apart)
            cross = CrossTimestamp(self.host_real(received + self.random.randint(0, apart)), *raws)
            received += apart
        t3, when, answered = self.look(self.ahead(received, busy), order[::-1])
        interrupted = t1.real_ns - self.host_real(t1.raw_ns) > US
        t4, over = self.stamp(self.arrival(answered), calm=interrupted)
        looks[t1.raw_ns] = when[GuestClock.REAL]
        self.sends[t4.raw_ns] = when[GuestClock.RAW]
        return Reading(t1, t2, t3, t4, cross=cross), over

    def reads(self, begin: int, end: int, looks: dict[int, int], *, dense_start: bool) -> list[Reading]:
        """As controller._read does it: bursts of four, dense at the edges."""
        found: list[Reading] = []
        at = begin
        while at < end:
            dense = (dense_start and at < begin + S) or at >= end - S
            burst = at
            for _ in range(4):
                reading, over = self.exchange(at, looks)
                if over > end and not dense_start:
                    return found
                if self.random.randrange(100) >= self.s.loss:
                    found.append(reading)
                at = over + self.random.randint(20 * US, 200 * US)
            at = at + 5 * MS if dense else max(at + 5 * MS, burst + 100 * MS)
            if self.s.hole_ns and self.random.random() < 0.2:
                at += self.random.randint(0, self.s.hole_ns)
        return found

    def sampler(self, end: int, begin: int = BASE - 3 * MS) -> tuple[SamplerReport, list[Heartbeat]]:
        """The probe's Sampler and its heartbeats. Looks at rest are all alike, but each one is made."""
        r, s = self.random, self.s
        at = begin
        last = first = self.guest_raw(at)
        apart = self._real_of(last) - last
        holes: list[Hole] = []
        steps: list[ClockStep] = []
        beats: list[Heartbeat] = []
        count, next_beat, distance = 1, last, 0
        arrived = 0
        while at < end:
            late = r.randint(20 * US, 400 * US)
            if r.random() < 0.004:
                late = r.randint(0, s.late_ns)
            at = self.ahead(at, PERIOD + late)
            raw = self.guest_raw(at)
            distance, last, count = raw - last, raw, count + 1
            if distance > FLOOR:
                holes.append(Hole(raw - distance, raw))
            moved = self._real_of(raw) - raw - apart
            if abs(moved) > STEP_FLOOR + distance // STEP_SHARE:
                steps.append(ClockStep(raw, moved))
            apart += moved
            if raw >= next_beat:
                next_beat = raw + BEAT
                arrived = max(arrived + 1, at + self.delay(at, up=False))
                muted = self.called - s.mute_ns <= at <= self.first + s.mute_ns and s.mute_ns
                silent = s.blind_ns and self.called <= arrived <= self.resumed + s.blind_ns
                if muted or silent:
                    continue
                self.sends[arrived] = at
                beats.append(Heartbeat(len(beats) + 1, raw, Stamp(arrived, self.host_real(arrived))))
        usual = PERIOD + 210 * US
        seen = SamplerReport(PERIOD, count, first, last, usual, FLOOR, tuple(holes), tuple(steps))
        return replace(seen, step_floor_ns=STEP_FLOOR, step_share=STEP_SHARE), beats


def simulate(s: Scenario) -> tuple[Observation, Truth]:
    world = _World(s)
    world.before()
    steps_after = world.repair()
    frozen = s.regime is not Regime.RUNNING
    truth = Truth(
        s, world.host_real, world.guest_raw, world.guest_real,
        held=world.held,
        still=world.still,
        rest=world.first - world.last,
        hole=max((world.guest_raw(b) - world.guest_raw(a) for a, b in world.pauses), default=0),
        called=world.called, resumed=world.resumed, clocks_started=world.clocks_started,
        steps_after=steps_after, pauses=world.pauses, aside=world.aside,
    )  # fmt: skip
    readings = world.reads(BASE, world.called, truth.looks, dense_start=False)
    if s.straddle:
        readings.append(world.exchange(world.called - world.random.randint(0, 4 * MS), truth.looks)[0])
    begin = max(world.resumed + s.blind_ns, readings[-1].t4.raw_ns if readings else 0) + world.random.randint(
        1, MS
    )
    end = world.resumed + s.blind_ns + s.watch_ns
    readings += world.reads(begin, end, truth.looks, dense_start=True)
    over = max(end, readings[-1].t4.raw_ns if readings else end) + 10 * MS
    report, beats = world.sampler(over)
    if s.amnesia:
        report = world.sampler(over, world.resumed + s.blind_ns)[0]
    truth.sends.update(world.sends)

    def call(begin: int, event: int, end: int) -> Call:
        # QEMU cuts to microseconds.
        real = world.host_real(event) // US * US if s.events and s.regime is not Regime.JUMPED else None
        late = 3 * MS if s.preempted and world.random.random() < 0.3 else 100
        called = Stamp(begin - late, world.host_real(begin))
        return Call(called, Stamp(end, world.host_real(end + 100)), real)

    ran = world.random.randint(0, max(0, world.resumed - world.first)) if s.return_ns else 0
    stop = call(world.called, world.stop_event, world.stopped)
    resume = replace(call(world.resume_called, world.resume_event, world.resumed), ran_ns=ran)
    if s.early_ns and not s.again_ns:
        resume = replace(resume, event_real_ns=None)  # QEMU says nothing of a guest that runs already
    moved = world.host_real(end) - world.host_real(BASE) - (end - BASE)
    method = {Regime.RUNNING: FreezeMethod.NONE, Regime.JUMPED: FreezeMethod.SIGSTOP}.get(
        s.regime, FreezeMethod.SUSPEND
    )
    facts = ProbeFacts("boot", "tsc", "6.1", "3.11")
    return (
        Observation(
            "web-0", 0, frozen, method, "hold", 30 * S, tuple(readings), tuple(beats), report, stop, resume,
            facts, facts, True, "", 0, moved, cut=s.blind_ns > 0,
        ),
        truth,
    )  # fmt: skip
