"""A rollout's progress from the history, and whether it ended as expected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from lab.core.plan import DomainKind, GuestSpec, Rollout, RolloutEnd
from lab.core.rollout import Domain, set_of
from lab.core.verdict import Finding, Outcome

ROLLOUT, GATES = "rollout", "gates"
"""Metrics of the findings."""

SILENT = "controller:"
"""The beginning of a reason that a host gives by itself, because it heard nothing from the controller."""

MOST_NAMED = 6
"""The most domains that a reason names individually."""


@dataclass(frozen=True)
class GateHistory:
    """The result of a gate in one guest. took_ns: the time until it held, or was given up."""

    guest: str
    gate: str
    ok: bool
    why: str
    took_ns: int


@dataclass(frozen=True)
class WaveHistory:
    """A wave that has begun. began_real_ns: REALTIME of the host, of a fleet over hosts the
    controller's. over: its end is in the history."""

    number: int
    cycle: int
    domains: tuple[Domain, ...]
    guests: tuple[str, ...]
    began_real_ns: int
    over: bool = False
    gates: tuple[GateHistory, ...] = ()

    @property
    def refused(self) -> GateHistory | None:
        """The first gate that did not hold."""
        return next((gate for gate in self.gates if not gate.ok), None)


@dataclass(frozen=True)
class RolloutHistory:
    """A rollout in the history. planned: the guests of each wave. ended: None when its end is not in the
    history. stopped_in: the number of the wave in which it stopped."""

    seed: int | None
    by: DomainKind
    planned: tuple[tuple[str, ...], ...]
    waves: tuple[WaveHistory, ...] = ()
    ended: RolloutEnd | None = None
    why: str = ""
    stopped_in: int | None = None

    def done(self, wave: WaveHistory) -> bool:
        """True when the wave is complete, with its gates."""
        here = self.ended is RolloutEnd.STOPPED and wave.number == self.stopped_in
        return wave.over and wave.refused is None and not here

    def waiting(self, guests: Sequence[GuestSpec]) -> list[tuple[Domain, ...]]:
        """The domains of waves that have not begun."""
        domains = {guest.name: (set_of(guest), self.by.of(guest)) for guest in guests}
        left = self.planned[len(self.waves) :]
        return [tuple(dict.fromkeys(domains[name] for name in wave if name in domains)) for wave in left]


def wanted(history: Sequence[RolloutHistory], guests: Collection[str], repeat: int, control: int) -> int:
    """The expected number of cycles of these guests: for a stopped rollout, those of the waves that began."""
    if any(one.ended is RolloutEnd.STOPPED for one in history):
        begun = [name for one in history for wave in one.waves for name in wave.guests]
        return len(guests) * control + sum(name in guests for name in begun)
    return len(guests) * (repeat + control)


def over_hosts(given: Sequence[RolloutHistory], hosts: int) -> RolloutHistory:
    """One rollout of a fleet over hosts, from what each host has on record of it. hosts: how many there are:
    nothing is done or complete while the record of one is missing."""
    first = given[0]
    waves = []
    for number in range(1, len(first.planned) + 1):
        here = [wave for one in given for wave in one.waves if wave.number == number]
        if not here:
            break
        began = min(wave.began_real_ns for wave in here)
        over = len(here) == hosts and all(wave.over for wave in here)
        gates = tuple(gate for wave in here for gate in wave.gates)
        waves.append(replace(here[0], began_real_ns=began, over=over, gates=gates))
    found = replace(first, waves=tuple(waves), ended=None, why="", stopped_in=None)
    stopped = [one for one in given if one.ended is RolloutEnd.STOPPED]
    if stopped:
        # A host whose gate did not hold has the best reason, and one that heard nothing the worst.
        of = min(stopped, key=lambda one: (not any(w.refused for w in one.waves), one.why.startswith(SILENT)))
        return replace(found, ended=RolloutEnd.STOPPED, why=of.why, stopped_in=of.stopped_in)
    if len(given) == hosts and all(one.ended is RolloutEnd.COMPLETE for one in given):
        return replace(found, ended=RolloutEnd.COMPLETE, stopped_in=first.stopped_in)
    return found


def _listed(domains: Iterable[Domain], by: DomainKind) -> str:
    """ "web UD 0, 1; db UD 0"; bounded."""
    sets: dict[str, list[str]] = {}
    given = list(domains)
    for name, number in given[:MOST_NAMED]:
        sets.setdefault(name, []).append(str(number))
    text = "; ".join(f"{name} {by.short} {', '.join(numbers)}" for name, numbers in sets.items())
    rest = len(given) - MOST_NAMED
    return f"{text} and {rest} more" if rest > 0 else text or "none"


def stands(history: RolloutHistory, guests: Sequence[GuestSpec]) -> str:
    """ "Done: web UD 0, 1. Stopped in: web UD 2. Not begun: web UD 3"."""
    done = [domain for wave in history.waves if history.done(wave) for domain in wave.domains]
    halted = [domain for wave in history.waves if not history.done(wave) for domain in wave.domains]
    left = [domain for wave in history.waiting(guests) for domain in wave]
    parts = [f"Done: {_listed(done, history.by)}"]
    if halted:
        parts.append(f"Stopped in: {_listed(halted, history.by)}")
    if left:
        parts.append(f"Not begun: {_listed(left, history.by)}")
    return ". ".join(parts)


def _ended(history: RolloutHistory, guests: Sequence[GuestSpec], expected: RolloutEnd, cell: str) -> Finding:
    of = len(history.planned)
    done = sum(history.done(wave) for wave in history.waves)
    where, expectation = stands(history, guests), expected.value
    if history.ended is None:
        why = f"the rollout's end is not on record. {where}"
        text = f"{done} of {of} waves done"
        return Finding("", -1, ROLLOUT, expectation, text, Outcome.INCONCLUSIVE, why, cell)
    if history.ended is RolloutEnd.STOPPED:
        text = f"stopped in wave {history.stopped_in} of {of}"
        reason = f": {history.why}" if history.why else ""
        wave = next((wave for wave in history.waves if wave.number == history.stopped_in), None)
        by_gate = wave is not None and wave.refused is not None  # else by an error, or by who interrupted it
        if expected is RolloutEnd.STOPPED:
            if by_gate:
                return Finding("", -1, ROLLOUT, expectation, f"{text}{reason}", Outcome.PASSED, "", cell)
            why = f"the rollout {text}, but not by a gate{reason}. {where}"
            return Finding("", -1, ROLLOUT, expectation, text, Outcome.INCONCLUSIVE, why, cell)
        why = f"the rollout {text}{reason}. {where}"
        outcome = Outcome.FAILED if by_gate else Outcome.INCONCLUSIVE
        return Finding("", -1, ROLLOUT, expectation, text, outcome, why, cell)
    text = f"complete, {done} of {of} waves"
    if expected is RolloutEnd.STOPPED:
        why = "a gate had to stop the rollout, but it is complete"
        return Finding("", -1, ROLLOUT, expectation, text, Outcome.FAILED, why, cell)
    if done < of:
        why = f"the rollout is recorded as complete, but is not. {where}"
        return Finding("", -1, ROLLOUT, expectation, text, Outcome.FAILED, why, cell)
    return Finding("", -1, ROLLOUT, expectation, text, Outcome.PASSED, "", cell)


def _gates(history: RolloutHistory, wave: WaveHistory, plan: Rollout, last: bool, cell: str) -> Finding:
    """Checks a wave's gates: a wave that was followed by another one must have had all of its gates, and all
    of them must have held."""
    refused = wave.refused
    expectation = "hold before the next domain"
    asked = {gate.gate for gate in wave.gates}
    here = history.ended is RolloutEnd.STOPPED and wave.number == history.stopped_in
    asks = [gate for gate in plan.gates if not gate.on or any(guest in gate.on for guest in wave.guests)]
    missing = [gate.label for gate in asks if gate.label not in asked]
    passed = sum(gate.ok for gate in wave.gates)
    text = f"{passed} of {len(wave.gates)} hold"
    if refused is not None and not here and not last:
        why = f"the rollout continued after wave {wave.number} although {refused.guest} failed {refused.gate}"
        return Finding("", wave.cycle, GATES, expectation, text, Outcome.FAILED, why, cell)
    if missing:
        why = f"wave {wave.number}: {missing[0]} was not checked"
        return Finding("", wave.cycle, GATES, expectation, text, Outcome.INCONCLUSIVE, why, cell)
    shown = f"{text}: {refused.guest}: {refused.gate}: {refused.why}" if refused is not None else text
    return Finding("", wave.cycle, GATES, expectation, shown, Outcome.PASSED, "", cell)


def rollout_findings(
    given: Sequence[RolloutHistory],
    plan: Rollout,
    guests: Sequence[GuestSpec],
    expected: RolloutEnd,
    cell: str = "",
) -> list[Finding]:
    """Checks how each rollout ended, and that it obeyed its gates. Inconclusive when none was begun."""
    if not given:
        why = "the rollout did not begin"
        return [Finding("", -1, ROLLOUT, expected.value, "not begun", Outcome.INCONCLUSIVE, why, cell)]
    found = []
    for history in given:
        found.append(_ended(history, guests, expected, cell))
        over = [wave for wave in history.waves if wave.over] if plan.gates else []
        for wave in over:
            last = wave.number == len(history.planned)
            found.append(_gates(history, wave, plan, last, cell))
    return found
