"""The record of the program in a guest that dirties memory and counts how fast the guest works."""

from __future__ import annotations

from dataclasses import dataclass

QUIET_NS = 2_000_000_000
"""How long nothing is asked of a guest before its freeze when it counts: readings slow it down as well, and
there are none during a migration."""


@dataclass(frozen=True)
class DirtySpec:
    """rate: bytes to dirty in a second. memory: the size of the area that they are in, bytes."""

    rate: int
    memory: int = 64 << 20


@dataclass(frozen=True)
class WorkCounts:
    """Windows of some 20 ms, in order (lab/guest/inside/work_counter.py). ended: the guest's MONOTONIC_RAW.
    units: loops, all alike. cpu: the CPU time that they were given, in ns. pages: written to."""

    ended: tuple[int, ...]
    units: tuple[int, ...]
    cpu: tuple[int, ...]
    pages: tuple[int, ...]
