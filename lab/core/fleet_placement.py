"""Fleets over hosts: the guests of a plan on several hosts, each host's as a cell of its own.

A host's figures are its own, as a cell's are; so nothing is ever pooled over hosts.
"""

from __future__ import annotations

from collections.abc import Collection

from lab.core.clock import Interval
from lab.core.plan import Plan

AXIS = "host"
"""The only axis of such a plan."""


def placed_hosts(plan: Plan) -> tuple[str, ...]:
    """The names of the hosts that the guests are on, one for each cell; () for any other plan."""
    if not plan.cells or any([axis for axis, _ in cell.values] != [AXIS] for cell in plan.cells):
        return ()
    return tuple(cell.values[0][1] for cell in plan.cells)


def skew(stops: Collection[Interval]) -> Interval:
    """How far apart the first and the last of these are, each known to lie in its interval."""
    low = max(stop.low_ns for stop in stops) - min(stop.high_ns for stop in stops)
    high = max(stop.high_ns for stop in stops) - min(stop.low_ns for stop in stops)
    return Interval(max(0, low), high)
