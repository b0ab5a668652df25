"""From a history back to the values that it was made of: the plan and the observations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lab.core.claims import Claim
from lab.core.clock import GuestClock, Stamp
from lab.core.effects import Effects
from lab.core.mechanism import ResyncMechanism
from lab.core.plan import FreezeMethod, Plan
from lab.core.rescue import CUT_OFF
from lab.core.timeline import (
    Call,
    ClockStep,
    Heartbeat,
    Hole,
    MemoryProof,
    Observation,
    Passing,
    ProbeFacts,
    Reading,
    Rescue,
    SamplerReport,
    Step,
)
from lab.core.timesync.setup import Setup
from lab.errors import RecordError
from lab.record.journal import DEADMAN, ORDER, History


def plan_of(history: History) -> Plan:
    """The plan that the run followed. RecordError when it cannot be understood."""
    try:
        return TypeAdapter(Plan).validate_python(history.events[0].get("plan"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RecordError(
            f"the plan in run-start is damaged: {where}: {first['msg']}", where=str(history.folder)
        ) from None


def _clocks(numbers: list[int]) -> dict[GuestClock, int]:
    return dict(zip(ORDER, numbers, strict=True))


def _reading(n: list[Any]) -> Reading:
    return Reading(
        Stamp(n[0], n[1]),
        _clocks(n[2:6]),
        _clocks(n[6:10]),
        Stamp(n[10], n[11]),
        n[12],
        Passing(*n[14:]) if len(n) > 14 else None,
        n[13] if len(n) > 13 else "ssh",
    )


def _beat(n: list[int]) -> Heartbeat:
    return Heartbeat(n[0], n[1], Stamp(n[2], n[3]))


def _call(data: dict[str, Any]) -> Call:
    return Call(
        Stamp(**data["called"]), Stamp(**data["returned"]), data["event_real_ns"], data.get("ran_ns", 0)
    )


def _rescue(event: dict[str, Any]) -> Rescue:
    call = event.get("call")
    return Rescue(
        event["act"], event["why"], None if call is None else _call(call), str(event.get("text") or "")
    )


def _facts(data: dict[str, Any]) -> ProbeFacts:
    lines = data["kernel_lines"]
    return ProbeFacts(**{**data, "kernel_lines": None if lines is None else tuple(lines)})


def _sampler(data: dict[str, Any]) -> SamplerReport:
    known = {f.name for f in fields(SamplerReport)}
    return SamplerReport(
        **{k: v for k, v in data.items() if k in known and k not in ("holes", "steps")},
        holes=tuple(Hole(**h) for h in data["holes"]),
        steps=tuple(ClockStep(**s) for s in data["steps"]),
    )


def _steps(given: list[dict[str, Any]]) -> tuple[Step, ...]:
    return tuple(Step(**step) for step in given)


def _proof(data: dict[str, Any]) -> MemoryProof:
    return MemoryProof(**{**data, "differing": tuple(data["differing"])})


def _setup(data: dict[str, Any]) -> Setup:
    return Setup(**{**data, "mechanism": ResyncMechanism(data["mechanism"])})


def _effects(data: dict[str, Any] | None) -> Effects | None:
    return None if data is None else TypeAdapter(Effects).validate_python(data)


def _verified(obs: Observation, event: dict[str, Any]) -> Observation:
    seen = replace(obs, version_before=event["before"], version_after=event["after"])
    if not event["why"] or not obs.patch_ok:
        return seen
    return replace(seen, patch_ok=False, patch_why=event["why"])


def _facts_update(obs: Observation, event: dict[str, Any]) -> Observation:
    facts = _facts(event["facts"])
    return replace(obs, facts_before=facts) if event["when"] == "before" else replace(obs, facts_after=facts)


_UPDATES: dict[str, Callable[[Observation, dict[str, Any]], Observation]] = {
    "facts": _facts_update,
    "readings": lambda o, e: replace(o, readings=o.readings + tuple(_reading(n) for n in e["readings"])),
    "beats": lambda o, e: replace(o, beats=tuple(_beat(n) for n in e["beats"])),
    "samples": lambda o, e: replace(o, sampler=_sampler(e["sampler"])),
    "stop": lambda o, e: replace(o, stop=_call(e["call"])),
    "resume": lambda o, e: replace(o, resume=_call(e["call"])),
    "cpu": lambda o, e: replace(o, cpu_ns=e["used_ns"]),
    "steps": lambda o, e: replace(o, steps=_steps(e["steps"])),
    "exchange": lambda o, e: replace(o, called_off=e["called_off"], cut=e["cut"]),
    "proof": lambda o, e: replace(o, proof=_proof(e["proof"])),
    "patch": lambda o, e: replace(
        o, patch_ok=e["ok"], patch_why=e["why"], patch_steps=_steps(e.get("steps", []))
    ),
    "verified": _verified,
    "setup": lambda o, e: replace(o, setup=_setup(e["setup"])),
    "watched": lambda o, e: replace(
        o, claims=tuple(Claim(**claim) for claim in e["claims"]), effects=_effects(e["effects"])
    ),
    "resync": lambda o, e: replace(o, resync_said=e["said"], resync_finished_raw_ns=e.get("finished_raw_ns")),
    "problem": lambda o, e: replace(o, problems=(*o.problems, (e["text"].splitlines() or [""])[0])),
    "cycle-end": lambda o, e: replace(o, host_step_ns=e["host_step_ns"]),
}


RUNS = ("cycle", "facts", "setup", "readings")
"""What the controller writes of a guest's cycle while the guest still runs."""


class _Rebuilding:
    """Observations as the events come. last_running, frozen: of each, when it was last known to run before
    its freeze, and when it was written down that it stands still."""

    def __init__(self) -> None:
        self.found: list[Observation] = []
        self.ended: set[int] = set()
        self.cells: dict[str, int] = {}
        # A guest's name and number may come again in another cell.
        self._current: dict[tuple[int, str], int] = {}
        self._last_of: dict[str, int] = {}
        self._last_running: dict[int, Stamp] = {}
        self._frozen: dict[int, Stamp] = {}

    def add(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "cycle":
            self._begin(event)
        if kind == DEADMAN:
            self._rescued(event)
        elif kind == "freeze":
            for guest in event["guests"]:
                self._frozen[self._current[event["cycle"], guest]] = _written(event)
        elif kind in _UPDATES:
            index = self._current[event["cycle"], event["guest"]]
            self.found[index] = _UPDATES[kind](self.found[index], event)
            if kind == "cycle-end":
                self.ended.add(index)
        if kind in RUNS and (index := self._current[event["cycle"], event["guest"]]) not in self._frozen:
            self._last_running[index] = _written(event)

    def _begin(self, event: dict[str, Any]) -> None:
        guest, cell = event["guest"], event.get("cell", "")
        self._current[event["cycle"], guest] = self._last_of[guest] = len(self.found)
        self.cells.setdefault(cell, len(self.cells))
        self.found.append(
            Observation(
                guest,
                event["cycle"],
                event["frozen"],
                FreezeMethod(event["method"]),
                event["patch"],
                event["budget_ns"],
                cell=cell,
                patch_impact=event.get("impact", "freeze"),
            )
        )

    def _rescued(self, event: dict[str, Any]) -> None:
        """The dead-man may know no cycle; it guards the guest's last one."""
        guest = event.get("guest") or ""
        index = self._current.get((event.get("cycle"), guest), self._last_of.get(guest))  # type: ignore[arg-type]
        if index is not None:
            obs = self.found[index]
            self.found[index] = replace(obs, rescues=(*obs.rescues, _rescue(event)))

    def finished(self) -> list[Observation]:
        return [self._finished(index, obs) for index, obs in enumerate(self.found)]

    def _finished(self, index: int, obs: Observation) -> Observation:
        if index in self.ended:
            return obs
        problems = (*obs.problems, CUT_OFF)
        obs = replace(obs, problems=problems, unfinished=True)
        calls = [rescue.call for rescue in obs.rescues if rescue.call is not None]
        if obs.stop is not None or not calls or not obs.frozen:
            return obs
        # The controller was ended while the guest stood still, so it told neither stop nor resume.
        running = self._last_running[index]
        stopped = min(filter(None, (self._frozen.get(index), calls[0].called)), key=lambda at: at.raw_ns)
        if stopped.raw_ns < running.raw_ns:
            return obs
        return replace(obs, stop=Call(running, stopped), stop_inferred=True)


def _written(event: dict[str, Any]) -> Stamp:
    return Stamp(event["raw_ns"], event["real_ns"])


def observations_of(history: History) -> list[Observation]:
    """One Observation for each guest and cycle, in order of cells, cycles and guests. RecordError on an
    event that lacks a part."""
    rebuilding = _Rebuilding()
    for event in history.events:
        try:
            rebuilding.add(event)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            which = "one of the dead-man's" if event["seq"] is None else event["seq"]
            raise RecordError(
                f"event {which} ({event['kind']}) is damaged: {type(error).__name__} {error}",
                where=str(history.folder),
            ) from None
    cells = rebuilding.cells
    return sorted(rebuilding.finished(), key=lambda obs: (cells[obs.cell], obs.cycle, obs.guest))
