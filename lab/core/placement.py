"""How long a matrix takes on several hosts, from what each batch of its cells took."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

COUNTS = (2, 5, 20)
"""Numbers of hosts that a plan tells of."""


@dataclass(frozen=True)
class HostsForecast:
    """What a run takes on so many alike hosts. one_ns: on one host, one batch after another."""

    hosts: int
    one_ns: int
    all_ns: int

    @property
    def times_as_fast(self) -> float:
        return self.one_ns / self.all_ns if self.all_ns else 1.0


def longest_first(batches: Sequence[int], hosts: int) -> int:
    """How long batches of these lengths take on so many alike hosts, each of which takes the longest that is
    left when it is free: at most 4/3 of the least (Graham 1969, doi:10.1137/0117039)."""
    busy_until = [0] * hosts
    for length in sorted(batches, reverse=True):
        heapq.heappush(busy_until, heapq.heappop(busy_until) + length)
    return max(busy_until)


def forecasts(batches: Sequence[int]) -> list[HostsForecast]:
    """For each of COUNTS, up to the first at which every batch has a host of its own; [] for one batch."""
    enough = next((number for number, hosts in enumerate(COUNTS, 1) if hosts >= len(batches)), len(COUNTS))
    counts = COUNTS[:enough] if len(batches) > 1 else ()
    return [HostsForecast(hosts, sum(batches), longest_first(batches, hosts)) for hosts in counts]
