"""What an event of a history has to look like, kind by kind: its members, their types, and what a value
cannot be.

Of what has come since the first version everything may be missing, and members that this program does not
know are left alone; so are kinds. So old histories and newer ones are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from lab.core.claims import Claim
from lab.core.effects import Effects
from lab.core.handlers import HandlerEnd
from lab.core.method import FreezeMethod
from lab.core.plan import DomainKind, RolloutEnd
from lab.core.timeline import Call, MemoryProof, ProbeFacts, SamplerReport, Step
from lab.core.timesync.setup import Setup
from lab.record.model import Host

LARGEST = 2**63 - 1
"""No time in nanoseconds is larger (the kernel's ktime_t), and no other number of a history is."""

Int = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
_Reading = tuple[Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int]
_Channel = tuple[Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, str]
_Passing = tuple[
    Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, str, Int | None, Int, Int | None, Int
]


class Stamped(BaseModel):
    """Every event."""

    raw_ns: Int
    real_ns: Int


class Written(Stamped):
    guest: str = ""
    cycle: Int | None = None


class OfCycle(Stamped):
    guest: str = ""
    cycle: Int


class OfGuest(Stamped):
    """Of a guest's cycle."""

    guest: str
    cycle: Int


class RunStart(Written):
    id: str
    plan: dict[str, Any]
    host: Host
    calibration: dict[str, Any] | None = None


class Cell(Written):
    id: str
    skipped: str = ""
    refused: bool = False


class Boot(Written):
    timings: dict[str, int | float | str | bool | None] = {}
    cell: str = ""


class Cycle(OfGuest):
    frozen: bool
    method: FreezeMethod
    patch: str
    budget_ns: int
    impact: str = "freeze"
    cell: str = ""


class Facts(OfGuest):
    when: Literal["before", "after"]
    facts: ProbeFacts


class SetUp(OfGuest):
    setup: Setup


class Readings(OfGuest):
    readings: list[_Reading | _Channel | _Passing]


class Freeze(OfCycle):
    guests: list[str]


class OneCall(OfGuest):
    call: Call


class Steps(OfGuest):
    steps: list[Step]


class Exchange(OfGuest):
    called_off: str
    cut: bool


class Proof(OfGuest):
    proof: MemoryProof


class Cpu(OfGuest):
    used_ns: int | None


class Patch(OfGuest):
    ok: bool | None
    why: str
    steps: list[Step] = []


class Verified(OfGuest):
    before: str
    after: str
    why: str


class Samples(OfGuest):
    sampler: SamplerReport


class Beats(OfGuest):
    beats: list[tuple[Int, Int, Int, Int]]


class Resync(OfGuest):
    said: str
    finished_raw_ns: int | None = None


class Watched(OfGuest):
    claims: list[Claim]
    effects: Effects | None


class Problem(OfGuest):
    text: str


class CycleEnd(OfGuest):
    host_step_ns: int


class Rollout(Written):
    seed: int | None
    by: DomainKind
    waves: list[list[str]]


class Wave(OfCycle):
    number: int
    domains: list[tuple[str, int]]
    guests: list[str]
    when: Literal["begin", "end"]


class Announced(OfCycle):
    events: list[dict[str, Any]]
    time_factor: float = 1.0


class Notice(Written):
    happening: dict[str, Any]


class Handler(Written):
    end: HandlerEnd
    cell: str = ""


class Service(Written):
    trouble: str
    cell: str = ""


class Gate(OfGuest):
    gate: str
    ok: bool
    why: str
    took_ns: int


class Ended(Written):
    ended: RolloutEnd
    why: str
    wave: int | None


class RunEnd(Written):
    interrupted: bool
    failure: str
    host: dict[str, Any] = {}


class DeadMan(Written):
    act: str
    why: str
    call: Call | None = None
    text: str | None = None


_SHAPES: Mapping[str, type[BaseModel]] = {
    "run-start": RunStart, "cell": Cell, "boot": Boot, "cycle": Cycle, "facts": Facts, "setup": SetUp,
        "readings": Readings, "freeze": Freeze, "stop": OneCall, "resume": OneCall, "steps": Steps,
        "exchange": Exchange, "proof": Proof, "cpu": Cpu, "patch": Patch, "verified": Verified,
        "samples": Samples, "beats": Beats, "resync": Resync, "watched": Watched, "problem": Problem,
        "cycle-end": CycleEnd, "rollout": Rollout, "wave": Wave, "announced": Announced, "notice": Notice,
        "handler": Handler, "service": Service, "gate": Gate, "rollout-end": Ended, "run-end": RunEnd,
        "deadman": DeadMan,
}  # fmt: skip


BOUNDED = ("readings", "beats")
"""Of these the shapes bound every number; there are many."""


def _numbers(value: object, where: str = "") -> None:
    """ValueError when a number is none that a history may have."""
    if isinstance(value, dict):
        for name, member in value.items():
            _numbers(member, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            _numbers(member, f"{where}.{number}")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{where}: a number that large is none of ours")
    elif isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST):
        raise ValueError(f"{where}: not a finite number")


def _forward(what: str, earlier: int, later: int) -> None:
    if later < earlier:
        raise ValueError(f"{what} ends before it begins")


def _readings(event: dict[str, Any]) -> None:
    for n in event["readings"]:
        _forward("a reading", n[0], n[10])
        if n[12] < 1:
            raise ValueError("a clock's resolution is at least a nanosecond")


def _called(event: dict[str, Any]) -> None:
    if (call := event.get("call")) is not None:
        _forward("the call", call["called"]["raw_ns"], call["returned"]["raw_ns"])
        if call.get("ran_ns", 0) < 0:
            raise ValueError("call.ran_ns is negative")


def _sampled(event: dict[str, Any]) -> None:
    sampler = event["sampler"]
    _forward("the sampler's record", sampler["first_raw_ns"], sampler["last_raw_ns"])
    if min(sampler["period_ns"], sampler["floor_ns"], sampler["count"], sampler["usual_ns"]) < 0:
        raise ValueError("sampler: a length or a number is negative")
    if sampler["period_ns"] == 0:
        raise ValueError("sampler.period_ns is zero")
    for hole in sampler["holes"]:
        _forward("a hole", hole["from_raw_ns"], hole["to_raw_ns"])


def _stepped(event: dict[str, Any]) -> None:
    for step in event.get("steps", ()):
        _forward(f"step {step['name']!r}", step["began_raw_ns"], step["ended_raw_ns"])


def _claimed(event: dict[str, Any]) -> None:
    for claim in event["claims"]:
        _forward("a claim", claim["from_raw_ns"], claim["to_raw_ns"])
        if claim["bound_ns"] is not None and claim["bound_ns"] < 0:
            raise ValueError("a claim's bound is negative")
        if claim.get("apart_ns"):
            _forward("what a claim's clocks are apart", *claim["apart_ns"])
    for look in (event["effects"] or {}).get("rtc", ()):
        if look["bound_ns"] < 0:
            raise ValueError("a look at the RTC has a negative bound")


_SENSE: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "readings": _readings, "stop": _called, "resume": _called, "deadman": _called, "samples": _sampled,
    "steps": _stepped, "patch": _stepped, "watched": _claimed,
}  # fmt: skip


def wrong(event: dict[str, Any], text: str) -> str:
    """What is wrong with an event, one line; "" when nothing is. text: it as JSON."""
    kind = event["kind"]
    try:
        if kind not in BOUNDED:
            _numbers(event)
        _SHAPES.get(kind, Written).model_validate_json(text, strict=True)
        if kind in _SENSE:
            _SENSE[kind](event)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""
