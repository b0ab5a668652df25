"""Stamps, calls and readings for cases that are written out by hand."""

from __future__ import annotations

from lab.core.clock import GuestClock, Stamp
from lab.core.timeline import Call, Reading
from tests.unit.simulation import S

T0 = 100 * S


def stamp(raw: int, apart_ns: int = 0) -> Stamp:
    return Stamp(raw, raw + apart_ns)


def call(called: int, returned: int, event: int | None = None) -> Call:
    return Call(stamp(called), stamp(returned), event)


def reading(t1: int, t2: int, t3: int, t4: int, *, step: int = 0) -> Reading:
    """Guest clocks equal to the host's; `step`: REALTIME is stepped by it between t2 and t3."""
    first, last = dict.fromkeys(GuestClock, t2), dict.fromkeys(GuestClock, t3)
    last[GuestClock.REAL] += step
    return Reading(stamp(t1), first, last, stamp(t4))
