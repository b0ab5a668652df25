"""Latencies in HdrHistograms, of which several can be merged.

A request's latency counts from when it was due, not from when it was sent: a client that waits for an answer
sends the next requests late, and would otherwise hide what its users wait (coordinated omission; Gil Tene,
"How NOT to Measure Latency"). A client that leaves out the requests that it could not send hides them all
the more. Where its period is known, they are filled in: a request that is missing between two others would
have waited as long as the one before it, less the time by which it was due later. That is what HdrHistogram's
recordValueWithExpectedInterval does; here it ends at the next request that was sent, so that nothing is
counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lab.core.units import NS_PER_S, NS_PER_US
from lab.core.workload.sample import WorkloadRequest

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

HIGHEST_NS = 3600 * NS_PER_S
LOWEST_NS = NS_PER_US
DIGITS = 3
MOST_FILLED = 10_000
"""Of the requests that one other has held up; more of them are counted in steps. A client that gives a period
of 1 ns is to make nobody wait."""


@dataclass(frozen=True)
class Latencies:
    """Latencies of answered requests, from when they were due. p50_ns to max_ns: quantiles; histogram: an
    HdrHistogram (V2, base64), in nanoseconds. late_p50_ns, late_p99_ns: the client's own lateness, from due
    to sent, of the requests before the pause; with one that cannot keep its schedule nothing is measured.
    None: it has no schedule, all is due when it is sent. filled: values in the histogram for requests that
    the client has left out; count is without them."""

    count: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    histogram: str
    late_p50_ns: int | None = None
    late_p99_ns: int | None = None
    filled: int = 0


def latencies_of(
    requests: Sequence[WorkloadRequest], until_ns: int, period_ns: int | None = None
) -> Latencies | None:
    """The latencies of a cycle's requests; None when none was answered. until_ns: host MONOTONIC_RAW up to
    which the client's lateness counts. period_ns: between two requests; None: unknown, nothing is filled
    in."""
    if not any(request.ok for request in requests):
        return None
    histogram = _histogram()
    filled, count, longest = 0, 0, 0
    ordered = sorted(requests, key=lambda request: (request.due_ns, request.seq))
    for request, after in pairwise([*ordered, None]):
        if request is None or not request.ok:
            continue
        latency = request.done_ns - request.due_ns
        count, longest = count + 1, max(longest, latency)
        histogram.record_value(_within(latency))
        if period_ns is not None:
            until = request.done_ns
            if after is not None:
                until = min(until, after.due_ns - period_ns // 2)
            filled += _fill(histogram, request, period_ns, until)
    median, high = _quantiles(histogram)
    late = _lateness(requests, until_ns)
    return Latencies(
        count, median, high, longest, _encoded(histogram), _nearest(late, 0.5), _nearest(late, 0.99), filled
    )


def _fill(histogram: HdrHistogram, request: WorkloadRequest, period: int, until: int) -> int:
    """Record what was due after the request, each period, before `until`. Returns its number."""
    number = -(-(until - request.due_ns) // period) - 1
    step = max(1, math.ceil(number / MOST_FILLED))
    for place in range(1, number + 1, step):
        times = min(step, number + 1 - place)
        middle = place + (times - 1) // 2
        histogram.record_value(_within(request.done_ns - request.due_ns - middle * period), times)
    return max(0, number)


def _lateness(requests: Sequence[WorkloadRequest], until_ns: int) -> list[int]:
    """From due to sent, in order of size; none where the client has no schedule."""
    if all(request.sent_ns == request.due_ns for request in requests):
        return []
    return sorted(request.sent_ns - request.due_ns for request in requests if request.done_ns < until_ns)


def merged(several: Iterable[Latencies | None]) -> Latencies | None:
    """The latencies of several cycles, or cells, as if they were one; None without any. The client's lateness
    is that of the latest of them. ValueError for what is no histogram."""
    given = [one for one in several if one is not None]
    if not given:
        return None
    histogram = _histogram()
    for one in given:
        try:
            histogram.decode_and_add(one.histogram)
        except Exception as error:  # hdrh has a dozen of them, and zlib, struct and base64 have theirs
            raise ValueError(f"no HdrHistogram: {one.histogram[:20]}…: {error}") from error
    median, high = _quantiles(histogram)
    half = [one.late_p50_ns for one in given if one.late_p50_ns is not None]
    most = [one.late_p99_ns for one in given if one.late_p99_ns is not None]
    return Latencies(
        sum(one.count for one in given),
        median,
        high,
        max(one.max_ns for one in given),
        _encoded(histogram),
        max(half, default=None),
        max(most, default=None),
        sum(one.filled for one in given),
    )


def _histogram() -> HdrHistogram:
    from hdrh.histogram import HdrHistogram  # most commands need none

    return HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)


def _within(latency: int) -> int:
    return min(HIGHEST_NS, max(LOWEST_NS, latency))


def _quantiles(histogram: HdrHistogram) -> tuple[int, int]:
    found = histogram.get_percentile_to_value_dict([50, 99])
    return int(found[50]), int(found[99])


def quantiles_of(given: Latencies, shares: Sequence[float]) -> list[int]:
    """The latencies below which these shares of all values lie, in nanoseconds, to three digits. ValueError
    for what is no histogram."""
    from hdrh.histogram import HdrHistogram

    try:
        histogram = HdrHistogram.decode(given.histogram)
    except Exception as error:  # as in `merged`
        raise ValueError(f"no HdrHistogram: {given.histogram[:20]}…: {error}") from error
    found = histogram.get_percentile_to_value_dict([100 * share for share in shares])
    return [int(found[100 * share]) for share in shares]


def _encoded(histogram: HdrHistogram) -> str:
    encoded = histogram.encode()
    return encoded.decode("ascii") if isinstance(encoded, bytes) else str(encoded)


def _nearest(ordered: Sequence[int], share: float) -> int | None:
    """The value at this share of the ordered values (nearest rank); None without any."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else None
