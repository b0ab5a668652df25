"""Reads events: each line is checked according to its kind, and becomes the value that was appended.

The checks cover its members, their types, and the ranges of values. Kinds and members that this program does
not know are ignored, and members that were added after the first version may be missing. So it reads old
histories, and newer ones of the same schema.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from lab.core.clock import Stamp
from lab.core.history import (
    KINDS,
    BeatsArrived,
    CpuWaited,
    DeadManActed,
    HistoryEvent,
    PatchApplied,
    ReadingsTaken,
    ResumeCalled,
    SamplesTaken,
    StepsTimed,
    StopCalled,
    WatcherReported,
    WorkloadSampled,
)
from lab.core.packed import PackedHeartbeats, PackedReadings
from lab.core.timeline import CHANNEL, Call, SamplerReport, Step
from lab.core.workload.sample import (
    GaugeReading,
    StateLook,
    WorkloadDelivery,
    WorkloadEvent,
    WorkloadRequest,
    WorkloadStamp,
)

LARGEST = 2**63 - 1
"""The largest time in nanoseconds (the kernel's ktime_t); no other number of a history is larger."""

Int = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
DEADMAN = DeadManActed.KIND


@dataclass(frozen=True)
class UnknownEvent:
    """An event of a kind that this program does not know."""

    kind: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the history. seq: its number among the controller's lines; None for the dead-man's. at: when
    it was written."""

    seq: int | None
    at: Stamp
    event: HistoryEvent | UnknownEvent

    @property
    def kind(self) -> str:
        return self.event.kind if isinstance(self.event, UnknownEvent) else self.event.KIND


class _Line(BaseModel):
    """The members of every line."""

    seq: int | None
    kind: str
    raw_ns: Int
    real_ns: Int


class Envelope(NamedTuple):
    """A line whose members are not checked yet. data: all of them."""

    seq: int | None
    kind: str
    data: dict[str, Any]


def envelope(line: str) -> Envelope | None:
    """The envelope of a line; None when the line is not an event."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str) or "seq" not in data:
        return None
    seq = data["seq"]
    # A bool is an int to Python, and True is 1.
    if seq is not None and (not isinstance(seq, int) or isinstance(seq, bool)):
        return None
    return Envelope(seq, data["kind"], data)


def entry_of(line: str, given: Envelope) -> Entry:
    """The checked event of a line. ValueError with the reason, one line."""
    try:
        if given.kind not in _BOUNDED:
            _check_numbers(given.data)
        head = _Line.model_validate(given.data, strict=True)
        event = _event_of(line, given.kind)
        if not isinstance(event, UnknownEvent):
            _check(event)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return Entry(head.seq, Stamp(head.raw_ns, head.real_ns), event)


def prepare() -> None:
    """Compute what entry_of() needs, once and for all: some 10 ms for each kind of event."""
    for kind in KINDS:
        _adapter(kind)


@cache
def _adapter(kind: str) -> TypeAdapter[HistoryEvent]:
    return TypeAdapter(KINDS[kind])


def _event_of(line: str, kind: str) -> HistoryEvent | UnknownEvent:
    if kind in _AS_LISTS:
        return _AS_LISTS[kind](line)
    return _adapter(kind).validate_json(line, strict=True) if kind in KINDS else UnknownEvent(kind)


# -- kinds whose values are lists of numbers on a line: there are many -----------------------------------

_Some = Int | None
_Clocks = tuple[Int, Int, Int, _Some, _Some, _Some, Int, _Some, _Some, _Some, Int, Int, Int]
_Channel = tuple[Int, Int, Int, _Some, _Some, _Some, Int, _Some, _Some, _Some, Int, Int, Int, str]
_Packets = tuple[Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, str, _Some, Int, _Some, Int]
_Cross = tuple[
    Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, Int, str,
    _Some, _Some, _Some, _Some, Int, Int, Int,
]  # fmt: skip


class _ReadingsLine(BaseModel):
    guest: str
    cycle: Int
    readings: list[_Clocks | _Channel | _Packets | _Cross]


class _BeatsLine(BaseModel):
    guest: str
    cycle: Int
    beats: list[tuple[Int, Int, Int, Int]]


_UNREAD = ((False, False, False, False), (False, True, True, False), (False, True, True, True))
"""Which of real, mono, boot, raw may be null: none; those that a shell does not read; all but REALTIME, which
is all that an agent reads."""


def _unread(given: Sequence[object]) -> tuple[bool, ...]:
    """Which of a reading's clocks real, mono, boot, raw are null."""
    return tuple(clock is None for clock in given[2:6])


def _row(given: _Clocks | _Channel | _Packets | _Cross) -> tuple[Sequence[int | None], str]:
    """A reading's row of PackedReadings, and its channel. ValueError when it contradicts itself."""
    _forward("a reading", given[0], given[10])
    if (unread := _unread(given)) not in _UNREAD or unread != tuple(c is None for c in given[6:10]):
        raise ValueError("a reading lacks a clock")
    if given[12] < 1:
        raise ValueError("a clock's resolution is at least a nanosecond")
    no_packets, no_cross = PackedReadings.NO_PACKETS, PackedReadings.NO_CROSS
    match given[13:]:
        case (channel,):
            return (*given[:13], *no_packets, *no_cross), channel
        case (channel, a, b, c, d):
            return (*given[:13], a, b, c, d, *no_cross), channel
        case (channel, a, b, c, d, host, least, most):
            _forward("a cross-timestamp", least, most)
            if (b is None) != (d is None):
                raise ValueError("a reading lacks a packet's stamp")
            return (*given[:13], a, b, c, d, host, least, most), channel
        case _:
            return (*given, *no_packets, *no_cross), CHANNEL


def _readings(line: str) -> ReadingsTaken:
    made = _ReadingsLine.model_validate_json(line, strict=True)
    if len(set(map(_unread, made.readings))) > 1:
        raise ValueError("some readings lack a clock that others have")
    return ReadingsTaken(made.guest, made.cycle, PackedReadings.of(map(_row, made.readings)))


def _beats(line: str) -> BeatsArrived:
    made = _BeatsLine.model_validate_json(line, strict=True)
    return BeatsArrived(made.guest, made.cycle, PackedHeartbeats(made.beats))


_Value = str | Int | bool | None


class _WorkloadLine(BaseModel):
    cycle: Int
    workload: str
    began_raw_ns: Int
    ended_raw_ns: Int
    requests: list[tuple[Int, Int, Int, Int, bool, str, str, _Some, Int]]
    deliveries: list[tuple[Int, Int, str]]
    looks: list[tuple[Int, Int, dict[str, _Value], str]]
    events: list[tuple[str, Int, str]]
    problems: tuple[str, ...] = ()
    cell: str = ""
    period_ns: _Some = None
    clock_bound_ns: Int = 0
    gauges: list[tuple[Int, dict[str, Int], str]] = []
    stamps: list[tuple[str, Int, Int, Int, _Some, Int, str, Int]] = []


def _workload(line: str) -> WorkloadSampled:
    made = _WorkloadLine.model_validate_json(line, strict=True)
    _forward("a workload's cycle", made.began_raw_ns, made.ended_raw_ns)
    for _, due, sent, done, *_rest in made.requests:
        _forward("a request", due, sent)
        _forward("a request", sent, done)
    for sent, done, *_rest in made.looks:
        _forward("a look at a state", sent, done)
    for what, sent, done, _stamp, _until, unit, *_rest in made.stamps:
        _forward("a stamp", sent, done)
        if unit < 1:
            raise ValueError(f"the unit of a {what}'s stamp is {unit}")
    return WorkloadSampled(
        made.cycle,
        made.workload,
        made.began_raw_ns,
        made.ended_raw_ns,
        tuple(WorkloadRequest(*row) for row in made.requests),
        tuple(WorkloadDelivery(*row) for row in made.deliveries),
        tuple(StateLook(*row) for row in made.looks),
        tuple(WorkloadEvent(*row) for row in made.events),
        made.problems,
        made.cell,
        made.period_ns,
        made.clock_bound_ns,
        tuple(GaugeReading(*row) for row in made.gauges),
        tuple(WorkloadStamp(*row) for row in made.stamps),
    )


_AS_LISTS: Mapping[str, Callable[[str], HistoryEvent]] = {
    ReadingsTaken.KIND: _readings,
    BeatsArrived.KIND: _beats,
    WorkloadSampled.KIND: _workload,
}
_BOUNDED = _AS_LISTS
"""Types whose numbers are already bounded by the checks above."""


# -- what a value cannot be ------------------------------------------------------------------------------


def _check_numbers(value: object, where: str = "") -> None:
    """ValueError when a number is outside of the range for histories."""
    if isinstance(value, dict):
        for name, member in value.items():
            _check_numbers(member, f"{where}.{name}" if where else str(name))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            _check_numbers(member, f"{where}.{number}")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{where}: the number is too large")
    elif isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST):
        raise ValueError(f"{where}: not a finite number")


def _forward(what: str, earlier: int, later: int) -> None:
    if later < earlier:
        raise ValueError(f"{what} ends before it begins")


def _check(event: HistoryEvent) -> None:
    """ValueError when its values contradict each other."""
    match event:
        case StopCalled() | ResumeCalled():
            _check_call(event.call)
        case DeadManActed(call=Call() as call):
            _check_call(call)
        case SamplesTaken():
            _check_sampler(event.sampler)
        case CpuWaited():
            for earlier, later in pairwise(event.waits):
                _forward("a wait for a CPU", earlier.at_raw_ns, later.at_raw_ns)
            if min((wait.waited_ns for wait in event.waits), default=0) < 0:
                raise ValueError("a wait for a CPU is negative")
        case StepsTimed() | PatchApplied():
            _check_steps(event.steps)
        case WatcherReported():
            _check_watched(event)
        case _:
            pass


def _check_call(call: Call) -> None:
    _forward("the call", call.called.raw_ns, call.returned.raw_ns)
    if call.ran_ns < 0:
        raise ValueError("call.ran_ns is negative")


def _check_sampler(sampler: SamplerReport) -> None:
    _forward("the sampler's record", sampler.first_raw_ns, sampler.last_raw_ns)
    lengths = sampler.period_ns, sampler.floor_ns, sampler.usual_ns, sampler.step_floor_ns
    if min(*lengths, sampler.count, sampler.most_kept) < 0:
        raise ValueError("sampler: a length or a number is negative")
    if sampler.period_ns == 0:
        raise ValueError("sampler.period_ns is zero")
    if sampler.step_share < 1:
        raise ValueError("sampler.step_share is less than one")
    for hole in sampler.holes:
        _forward("a hole", hole.from_raw_ns, hole.to_raw_ns)


def _check_steps(steps: Iterable[Step]) -> None:
    for step in steps:
        _forward(f"step {step.name!r}", step.began_raw_ns, step.ended_raw_ns)


def _check_watched(event: WatcherReported) -> None:
    for claim in event.claims:
        _forward("a claim", claim.from_raw_ns, claim.to_raw_ns)
        if claim.bound_ns is not None and claim.bound_ns < 0:
            raise ValueError("a claim's bound is negative")
        if claim.apart_ns is not None:
            _forward("the distance of a claim's clocks", *claim.apart_ns)
    for look in event.effects.rtc if event.effects is not None else ():
        if look.bound_ns < 0:
            raise ValueError("a reading of the RTC has a negative bound")
