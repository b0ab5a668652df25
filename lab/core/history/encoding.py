"""An event as its line of events.jsonl: a JSON object with seq, kind, the guest and the cycle where they
apply, raw_ns and real_ns (the host's MONOTONIC_RAW and REALTIME at writing), and the event's other members.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from lab.core.clock import GuestClock, Stamp
from lab.core.history import HistoryEvent
from lab.core.history.fields import is_left_out
from lab.core.packed import Packed
from lab.core.timeline import CHANNEL, Heartbeat, Reading
from lab.core.workload.sample import (
    GaugeReading,
    StateLook,
    WorkloadDelivery,
    WorkloadEvent,
    WorkloadRequest,
    WorkloadStamp,
)

CLOCKS = (GuestClock.REAL, GuestClock.MONO, GuestClock.BOOT, GuestClock.RAW)
"""The order of a guest's clocks in the list of a reading."""

SAMPLES = (WorkloadRequest, WorkloadDelivery, StateLook, WorkloadEvent, GaugeReading, WorkloadStamp)
"""What is a list of its members."""


def line_of(event: HistoryEvent, seq: int | None, at: Stamp) -> str:
    """The event's line, without the line break. seq: its number among the controller's events; None for the
    dead-man's."""
    head: dict[str, Any] = {"seq": seq, "kind": event.KIND}
    body: dict[str, Any] = {"raw_ns": at.raw_ns, "real_ns": at.real_ns}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if not is_left_out(field, value):
            (head if field.name in ("guest", "cycle") else body)[field.name] = value
    return json.dumps(head | body, default=_plain, separators=(",", ":"), ensure_ascii=False)


def _rest(value: Reading) -> tuple[object, ...]:
    """The members of a reading that only some have."""
    packets = () if value.packet_stamps is None else dataclasses.astuple(value.packet_stamps)
    if value.cross is not None:
        return (value.channel, *(packets or (None,) * 4), *dataclasses.astuple(value.cross))
    return (value.channel, *packets) if packets or value.channel != CHANNEL else ()


def _plain(value: object) -> object:
    """The JSON form of a value that JSON has no type for."""
    if isinstance(value, Reading):
        return [
            value.t1.raw_ns, value.t1.real_ns,
            *(value.t2.get(clock) for clock in CLOCKS), *(value.t3.get(clock) for clock in CLOCKS),
            value.t4.raw_ns, value.t4.real_ns, value.resolution_ns,
            *_rest(value),
        ]  # fmt: skip
    if isinstance(value, Heartbeat):
        return [value.sequence, value.sent_raw_ns, value.arrived.raw_ns, value.arrived.real_ns]
    if isinstance(value, SAMPLES):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, Packed):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot be written to a history: {type(value).__name__}")
