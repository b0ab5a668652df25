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
    SamplerReport,
    Step,
)
from lab.core.timesync.setup import Setup
from lab.errors import RecordError
from lab.record.journal import ORDER, History


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
    "resync": lambda o, e: replace(o, resync_said=e["said"]),
    "problem": lambda o, e: replace(o, problems=(*o.problems, (e["text"].splitlines() or [""])[0])),
    "cycle-end": lambda o, e: replace(o, host_step_ns=e["host_step_ns"]),
}


def observations_of(history: History) -> list[Observation]:
    """One Observation for each guest and cycle, in order of cells, cycles and guests. RecordError on an
    event that lacks a part."""
    found: list[Observation] = []
    ended: set[int] = set()
    current: dict[tuple[int, str], int] = {}  # a guest's name and number may come again in another cell
    cells: dict[str, int] = {}
    for event in history.events:
        kind = event["kind"]
        try:
            if kind == "cycle":
                current[event["cycle"], event["guest"]] = len(found)
                cell = event.get("cell", "")
                cells.setdefault(cell, len(cells))
                found.append(
                    Observation(
                        event["guest"],
                        event["cycle"],
                        event["frozen"],
                        FreezeMethod(event["method"]),
                        event["patch"],
                        event["budget_ns"],
                        cell=cell,
                        patch_impact=event.get("impact", "freeze"),
                    )
                )
            elif kind in _UPDATES:
                index = current[event["cycle"], event["guest"]]
                found[index] = _UPDATES[kind](found[index], event)
                if kind == "cycle-end":
                    ended.add(index)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise RecordError(
                f"event {event['seq']} ({kind}) is damaged: {type(error).__name__} {error}",
                where=str(history.folder),
            ) from None
    told = [
        obs if index in ended else replace(obs, problems=(*obs.problems, "the cycle was cut off"))
        for index, obs in enumerate(found)
    ]
    return sorted(told, key=lambda obs: (cells[obs.cell], obs.cycle, obs.guest))
