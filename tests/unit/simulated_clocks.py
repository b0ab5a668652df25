"""The guest of simulation.py and its clocks, in exact integers.

Time is the host's MONOTONIC_RAW in nanoseconds, from BASE on; everything else is a function of it:

    host REALTIME   BASE_REAL plus a constant NTP slew, plus steps
    guest RAW       runs at a constant rate but for the stretches in which it stands still
    guest REALTIME  guest RAW at a frequency of its own, plus slews and steps at instants of guest RAW
    instructions    run but for one stretch, from the last before the pause to the first after it

The parts of a stop, in the order in which QEMU does them: the call, the clocks stop, the vCPUs stop (with
KVM the vCPUs first), STOP is stamped, the call returns. Of a resume: the call, RESUME is stamped, the clocks
start, the vCPUs may run, the call returns; the first instruction follows, on a busy host up to 50 ms later.
"""

from __future__ import annotations

import random

from lab.core.plan import Regime
from tests.unit.scenario import MS, US, Move, Repair, S, Scenario

BASE = 500 * S
BASE_REAL = 1_790_000_000 * S
GUEST_RAW = 77 * S
GUEST_MONO = 78 * S


class SimulatedClocks:
    """When the guest stands still and when it rests, and its clocks and the host's at each instant."""

    def __init__(self, s: Scenario) -> None:
        self.s, self.random = s, random.Random(s.seed)
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
