"""Freezes a fleet one domain of each availability set after another, with gates after each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from lab.controller.clock_reader import CycleGuest
from lab.controller.event_lifecycle import Stage
from lab.controller.meeting import Meeting
from lab.core.clock import GuestClock
from lab.core.history import GateAsked, RolloutEnded, RolloutPlanned, WaveReached
from lab.core.plan import Gate, GateKind, GuestSpec, Rollout, RolloutEnd
from lab.core.rollout import Wave, set_of, waves
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import FreezelabError, GuestError
from lab.ports import Clock, Doctor, Health, Journal, View

AGAIN_NS = 250 * NS_PER_MS
"""Interval between two checks of a gate that does not hold yet."""

ASK_NS = 10 * NS_PER_S
"""The longest wait for one guest's answer to one gate."""

Freeze = Callable[[int, Mapping[str, CycleGuest], Stage], None]
"""Runs one cycle of some of the guests. Arguments: the cycle's index, the guests, a callback for its
stage."""


@dataclass(frozen=True)
class RolloutStop:
    """The wave, from 1, after which a gate stopped a rollout. why: the reason, one line."""

    wave: int
    why: str


@dataclass(frozen=True)
class _Asking:
    """A gate that is checked until host MONOTONIC_RAW `deadline_raw_ns`. before: the gates before it in the
    playbook. subjects: all guests of the fleet."""

    gate: Gate
    before: Sequence[Gate]
    subjects: Mapping[str, CycleGuest]
    deadline_raw_ns: int


class RolloutRunner:
    """One rollout over the given guests. doctor: checks gates inside guests. tolerance_ns: a clock is in time
    when its |offset| is at most this.

    fleet: with hosts that have other guests of it, all guests. meeting: with them, all of which take part in
    every wave: one without a guest in it waits for the others.
    """

    def __init__(
        self,
        rollout: Rollout,
        guests: Sequence[GuestSpec],
        clock: Clock,
        journal: Journal,
        view: View,
        doctor: Doctor,
        tolerance_ns: int,
        fleet: Sequence[GuestSpec] = (),
        meeting: Meeting | None = None,
    ) -> None:
        self._rollout, self._clock, self._journal, self._view = rollout, clock, journal, view
        self._doctor, self._tolerance_ns = doctor, tolerance_ns
        self._sets = {guest.name: set_of(guest) for guest in guests}
        self._meeting = meeting
        self.waves = waves(fleet or guests, rollout)

    def roll_out(self, first: int, subjects: Mapping[str, CycleGuest], freeze: Freeze) -> RolloutStop | None:
        """Run every wave as one cycle, with indices from `first` on. Returns where a gate stopped the
        rollout; None when it is complete. A cycle's errors pass through after the rollout's end was
        journalled."""
        rollout = self._rollout
        planned = tuple(wave.guests for wave in self.waves)
        self._journal.append(RolloutPlanned(rollout.seed, rollout.by, planned))
        self._rest(subjects, subjects)
        for wave in self.waves:
            self._show(wave, "waiting")
        stopped = None
        for wave in self.waves:
            if wave.number > 1 and rollout.between_ns:
                self._view.phase("pause between domains", length_ns=rollout.between_ns)
                self._clock.sleep_until(self._clock.now().raw_ns + rollout.between_ns)
            index = first + wave.number - 1
            try:
                stopped = self._wave(wave, index, subjects, freeze)
            except FreezelabError as error:
                self._end(RolloutEnd.STOPPED, str(error).split("\n")[0], wave)
                raise
            if stopped is not None:
                self._show(wave, "stopped")
                self._view.note(f"the rollout stops after {_called(wave)}: {stopped.why}")
                self._end(RolloutEnd.STOPPED, stopped.why, wave)
                return stopped
        self._end(RolloutEnd.COMPLETE, "", self.waves[-1])
        return None

    def _end(self, ended: RolloutEnd, why: str, wave: Wave) -> None:
        self._journal.append(RolloutEnded(ended, why, wave.number))

    def _wave(
        self, wave: Wave, index: int, subjects: Mapping[str, CycleGuest], freeze: Freeze
    ) -> RolloutStop | None:
        self._journal_wave(wave, index, "begin")
        here = replace(wave, guests=tuple(name for name in wave.guests if name in self._sets))
        why = ""
        if here.guests:
            freeze(
                index, {name: subjects[name] for name in here.guests}, lambda stage: self._show(wave, stage)
            )
            self._rest(here.guests, subjects)
            if self._rollout.gates:
                self._show(wave, "gate")
                self._view.phase("gates", guest=_called(wave), length_ns=self._rollout.gate_within_ns)
                why = self._gates(here, index, subjects)
        self._journal_wave(wave, index, "end")
        if self._meeting is not None:
            self._view.phase("other hosts")
            why = self._meeting.over(index, why)
        if why:
            return RolloutStop(wave.number, why)
        self._show(wave, "done")
        return None

    def _rest(self, names: Iterable[str], subjects: Mapping[str, CycleGuest]) -> None:
        """Let guests' probes rest until their wave: all probes together would load the host."""
        for name in names:
            with suppress(GuestError):  # its cycle or a gate reports the error
                subjects[name].probe.rest()

    def _journal_wave(self, wave: Wave, index: int, when: Literal["begin", "end"]) -> None:
        of = len(self.waves)
        self._journal.append(WaveReached(index, wave.number, wave.domains, wave.guests, when, of))

    def _show(self, wave: Wave, state: str) -> None:
        for name, domain in wave.domains:
            label = f"{name} {self._rollout.by.short} {domain}"
            self._view.domain(label, state, number=wave.number, of=len(self.waves))

    # -- gates -------------------------------------------------------------------------------------

    def _gates(self, wave: Wave, index: int, subjects: Mapping[str, CycleGuest]) -> str:
        """Why the first gate that fails did not hold in time; "" when all hold. All gates are checked and
        journalled."""
        deadline = self._clock.now().raw_ns + self._rollout.gate_within_ns
        reasons = []
        for number, gate in enumerate(self._rollout.gates):
            before = self._rollout.gates[:number]
            for guest in self._asked(wave, gate):
                began = self._clock.now().raw_ns
                health = self._until(guest, _Asking(gate, before, subjects, deadline))
                took = self._clock.now().raw_ns - began
                self._journal.append(GateAsked(guest, index, gate.label, health.ok, health.why, took))
                if not health.ok:
                    reasons.append(f"{guest}: {gate.label}: {health.why}")
        return reasons[0] if reasons else ""

    def _asked(self, wave: Wave, gate: Gate) -> list[str]:
        """The guests of the wave in which a gate is checked. A MEMBERS gate is checked by one guest of each
        set."""
        if gate.kind is GateKind.MEMBERS:
            return list({self._sets[guest]: guest for guest in reversed(wave.guests)}.values())
        return [guest for guest in wave.guests if not gate.on or guest in gate.on]

    def _until(self, guest: str, asking: _Asking) -> Health:
        """Check the gate, at least once, until it holds or its deadline has passed. The reason is that of the
        last try that came to its end: one that the deadline cut off tells less."""
        known: Health | None = None
        while True:
            limit = self._limit(asking)
            health = self._ask(guest, asking, limit)
            now = self._clock.now().raw_ns
            if known is None or health.ok or now < limit:
                known = health
            if health.ok or now >= asking.deadline_raw_ns:
                return known
            self._clock.sleep_until(min(asking.deadline_raw_ns, now + AGAIN_NS))

    def _ask(self, guest: str, asking: _Asking, limit: int) -> Health:
        gate = asking.gate
        if gate.kind is GateKind.CLOCK:
            return self._in_time(asking.subjects[guest])
        if gate.kind is GateKind.MEMBERS:
            return self._members(guest, asking)
        return self._doctor.ask(guest, gate, limit)

    def _limit(self, asking: _Asking) -> int:
        """Until when a try may take that begins now."""
        now = self._clock.now().raw_ns
        return max(now + NS_PER_S, min(asking.deadline_raw_ns, now + ASK_NS))

    def _in_time(self, subject: CycleGuest) -> Health:
        try:
            offset = subject.probe.read().offset(GuestClock.REAL)
        except GuestError as error:
            return Health(False, str(error).split("\n")[0])
        if offset.largest_ns <= self._tolerance_ns:
            return Health(True)
        return Health(False, f"its clock is off by {offset.mid_ns / NS_PER_MS:+.0f} ms")

    def _members(self, guest: str, asking: _Asking) -> Health:
        """Whether each other member of the guest's set answers, and the gates before this one hold there."""
        gate = asking.gate
        for name, subject in asking.subjects.items():
            if name == guest or self._sets[name] != self._sets[guest] or (gate.on and name not in gate.on):
                continue
            try:
                subject.probe.read()
            except GuestError as error:
                return Health(False, str(error).split("\n")[0])
            for other in asking.before:
                if other.kind is GateKind.MEMBERS or (other.on and name not in other.on):
                    continue
                health = self._ask(name, replace(asking, gate=other, before=()), self._limit(asking))
                if not health.ok:
                    return Health(False, f"{name}: {other.label}: {health.why}")
        return Health(True)


def _called(wave: Wave) -> str:
    return ", ".join(f"{name} {domain}" for name, domain in wave.domains)
