"""A synthetic guest with a known truth, in exact integers.

Time is the host's MONOTONIC_RAW in nanoseconds, from BASE on; everything else is a function of it:

    host REALTIME   BASE_REAL plus a constant NTP slew, plus steps
    guest RAW       runs at a constant rate but for the stretches in which it stands still
    guest REALTIME  guest RAW at a frequency of its own, plus slews and steps at instants of guest RAW
    instructions    run but for one stretch, from the last before the pause to the first after it

The parts of a stop, in the order in which QEMU does them: the call, the clocks stop, the vCPUs stop (with
KVM the vCPUs first), STOP is stamped, the call returns. Of a resume: the call, RESUME is stamped, the clocks
start, the vCPUs may run, the call returns; the first instruction follows, on a busy host up to 50 ms later.

A Scenario is drawn by hypothesis; what is too many to draw (delays) comes from its seed. `simulate` gives
the Observation that the lab would have made, and the Truth.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lab.core.clock import GuestClock, Stamp
from lab.core.plan import FreezeMethod, Regime
from lab.core.timeline import (
    Call,
    ClockStep,
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

BASE = 500 * S
BASE_REAL = 1_790_000_000 * S
GUEST_RAW = 77 * S
GUEST_MONO = 78 * S
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


class _World:
    def __init__(self, s: Scenario) -> None:
        self.s, self.random = s, random.Random(s.seed)
        self._arrived = 0
        self.sends: dict[int, int] = {}
        self._burst_until = self._burst_from = BASE
        r = self.random
        part = s.call_ns // 5
        self.called = BASE + s.before_ns
        first, second, third = sorted(r.randint(0, 4 * part) for _ in range(3))
        clock_stop, last = (second, first) if s.kvm else (first, second)
        if s.regime is Regime.JUMPED:
            clock_stop = last
        self.stop_event = self.called + third
        self.stopped = self.called + third + r.randint(0, part)
        self.last = self.called + last
        self.resume_called = self.stopped + s.pause_ns
        first, second, third = sorted(r.randint(0, 4 * part) for _ in range(3))
        self.resume_event = self.resume_called + first
        self.clocks_started = self.resume_called + second
        self.may_run = self.resume_called + third
        self.resumed = self.resume_called + third + r.randint(0, part) + s.return_ns
        self.first = self.may_run + s.stall_ns
        if s.regime is Regime.RUNNING:
            self.last = self.first = self.may_run = self.clocks_started = self.resumed
        began, ended = self.called + clock_stop, self.clocks_started
        self.stills: list[tuple[int, int]] = []
        if s.regime is Regime.RESUMED:
            self.stills = [(began, ended)]
        elif s.regime is Regime.MIXED:  # in two pieces, the first at the stop
            length = (ended - began) * s.standing // 100
            one = length // 3
            at = ended - (length - one) - (ended - began - length) // 4
            self.stills = [(began, began + one), (at, at + length - one)]
        self.rests = [(self.last, self.first)] if self.first > self.last else []
        self.held = self.may_run - self.last
        if s.early_ns:
            self._others()
        self.still = sum(b - a for a, b in self.stills)
        self.pauses = tuple(self.rests)
        self.aside = (0, 0)
        if s.aside_ns:
            self._aside()
        if any(s.edge_ns):
            self._rest([(self.called - s.edge_ns[0], self.last), (self.first, self.first + s.edge_ns[1])])
        if s.busy_ns:
            self._busy()
        if s.hidden_ns:
            # Lost where nobody looks: the clock jumps back by this at the resume, or ahead.
            self.jump_at = self.clocks_started
        self.segments: list[tuple[int, int, int]] = []  # from guest RAW on: rate in ppb, steps
        self.steps: list[tuple[int, int]] = []

    def _others(self) -> None:
        """Somebody else has the guest go on, and may stop it once more."""
        goes_on = self.last + self.s.early_ns
        stops = goes_on + self.s.again_ns if self.s.again_ns else self.first
        assert self.last < goes_on < stops <= self.first
        self.stills = [
            (a, b)
            for one in self.stills
            for a, b in ((one[0], min(one[1], goes_on)), (max(one[0], stops), one[1]))
            if a < b
        ]
        self.rests = [(self.last, goes_on)]
        self.held = self.s.early_ns
        if stops < self.may_run:
            self.rests.append((stops, self.first))
            self.held += self.may_run - stops

    def _aside(self) -> None:
        """Somebody else stops the guest, before the lab does or after it was resumed."""
        s = self.s
        if s.aside_at_ns < 0:
            began = max(BASE - 2 * MS, self.called + s.aside_at_ns - s.aside_ns)
            stop = (began, max(began, min(self.called + s.aside_at_ns, began + s.aside_ns)))
        else:
            stop = (self.first + s.aside_at_ns, self.first + s.aside_at_ns + s.aside_ns)
        if s.aside_stands:
            self.stills, self.aside = sorted([*self.stills, stop]), stop
        self._rest([stop])

    def _busy(self) -> None:
        """The guest's vCPUs do not get to run for a while, again and again; its clocks do not mind."""
        at, found = BASE + self.random.randint(0, 2 * S), []
        while at < self.resumed + self.s.watch_ns:
            found.append((at, at + self.random.randint(self.s.busy_ns // 4, self.s.busy_ns)))
            at = found[-1][1] + self.random.randint(20 * MS, 2 * S)
        self._rest(found)

    def _rest(self, found: list[tuple[int, int]]) -> None:
        """No instruction runs in these stretches of host time either."""
        merged: list[tuple[int, int]] = []
        for began, ended in sorted([*self.rests, *found]):
            if merged and began <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(ended, merged[-1][1])
            else:
                merged.append((began, ended))
        self.rests = merged

    # -- clocks -----------------------------------------------------------------------------------

    def host_real(self, at: int) -> int:
        s = self.s
        step = s.host_step_ns if s.host_step_ns and at >= BASE + s.host_step_at else 0
        return BASE_REAL + (at - BASE) + (at - BASE) * s.host_ppb // S + step

    def guest_raw(self, at: int) -> int:
        ran = at - BASE
        for began, ended in self.stills:
            ran -= max(0, min(at, ended) - began)
        if self.s.hidden_ns and at >= self.jump_at:
            ran -= self.s.hidden_ns
        return GUEST_RAW + ran + ran * self.s.raw_ppb // S

    def slept(self, at: int) -> int:
        if not self.s.boot_counts:
            return 0
        return sum(max(0, min(at, ended) - began) for began, ended in self.stills)

    def guest_real(self, at: int) -> int:
        return self._real_of(self.guest_raw(at))

    def _real_of(self, raw: int) -> int:
        ran = raw - GUEST_RAW
        value = BASE_REAL + self.s.start_offset_ns + ran + ran * self.s.real_ppb // S
        for began, ended, ppb in self.segments:
            if raw > began:
                value += (min(raw, ended) - began) * ppb // S
        for when, by in self.steps:
            if raw >= when:
                value += by
        return value

    def ahead(self, at: int, by: int) -> int:
        """The host instant at which the guest has run for `by` since `at`."""
        for began, ended in self.rests:
            if ended <= at:
                continue
            if at + by < began:
                break
            by -= max(0, began - at)
            at = ended
        return at + by

    # -- what takes time --------------------------------------------------------------------------

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
        t3, when, answered = self.look(self.ahead(received, busy), order[::-1])
        interrupted = t1.real_ns - self.host_real(t1.raw_ns) > US
        t4, over = self.stamp(self.arrival(answered), calm=interrupted)
        looks[t1.raw_ns] = when[GuestClock.REAL]
        self.sends[t4.raw_ns] = when[GuestClock.RAW]
        return Reading(t1, t2, t3, t4), over

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

    # -- what moves the guest's REALTIME ----------------------------------------------------------

    def before(self) -> None:
        s = self.s
        if s.step_before_ns:
            self.steps.append((self.guest_raw(BASE + s.before_ns // 2), s.step_before_ns))
        if s.slew_before_ppb:
            began = self.guest_raw(BASE + s.before_ns // 3)
            self.segments.append((began, began + s.before_ns // 3, s.slew_before_ppb))

    def _awake(self, at: int) -> int:
        """Nobody moves a clock while somebody else has stopped it."""
        began, ended = self.aside
        return ended + US if began <= at <= ended else at

    def _move(self, move: Move) -> tuple[int, ...]:
        """The instants of its steps. Moves come one after another: a slew is over when the next one
        begins."""
        at = self._awake(self.first + move.after_ns)
        by = move.by_ns
        if move.to_ns is not None:  # what was slewed until now counts, what was still to be does not
            by = self.host_real(at) + move.to_ns - self.guest_real(at)
        raw = self.guest_raw(at)
        self.segments = [(began, min(ended, max(began, raw)), ppb) for began, ended, ppb in self.segments]
        if not by:
            return ()
        if not move.ppb:
            self.steps.append((raw, by))
            return (at,)
        rate = move.ppb if by > 0 else -move.ppb
        self.segments.append((raw, raw + abs(by) * S // move.ppb, rate))
        return ()

    def repair(self) -> tuple[int, ...]:
        """The instants of the steps after the resume."""
        s = self.s
        if s.repair is Repair.MOVES:
            return tuple(at for move in s.moves for at in self._move(move))
        at = self._awake(self.first + s.repair_after_ns)
        behind = self.host_real(at) - self.guest_real(at)
        raw = self.guest_raw(at)
        if s.repair in (Repair.AGENT, Repair.LATE_STEP):
            self.steps.append((raw, behind + s.residual_ns))
            return (at,)
        if s.repair is Repair.WHOLE_SECOND:
            told = (self.host_real(at) - abs(s.residual_ns)) // S * S
            self.steps.append((raw, told - self.guest_real(at)))
            return (at,)
        if s.repair is Repair.PARTIAL:
            self.steps.append((raw, behind // 2))
            return (at,)
        if s.repair is Repair.OVERSHOOT:
            later = self._awake(at + 300 * MS + s.repair_after_ns)
            self.steps.append((raw, behind + 150 * MS))
            self.steps.append((self.guest_raw(later), -150 * MS + s.residual_ns))
            return (at, later)
        if s.repair is Repair.SLEW and behind:
            ppb = s.slew_ppb if behind > 0 else -s.slew_ppb
            self.segments.append((raw, raw + abs(behind) * S // s.slew_ppb, ppb))
        return ()


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
