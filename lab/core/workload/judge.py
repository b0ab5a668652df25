"""Measures a workload's cycles from its samples. Pure, so an old run can be judged again.

Who judges is the client, which is not frozen: all times are the host's MONOTONIC_RAW.

- The outage is the longest time between two successes, or from the last one to the end of the cycle. A client
  cannot miss what it does not ask for, so up to one of its periods belongs to it; cycles without a freeze
  show how long it is otherwise.
- The latency of a request counts from when it was due, not from when it was sent: a client that waits for an
  answer sends the next requests late, and would otherwise hide what its users wait (coordinated omission; Gil
  Tene, "How NOT to Measure Latency"). The histogram is HdrHistogram's, with 3 significant digits.
- A stamp is wrong by what cannot be explained by the request's own time: an answer that was asked for at
  `sent` and was there at `done` has been stamped in between.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.core.clock import Interval
from lab.core.units import NS_PER_S, NS_PER_US
from lab.core.workload.ledger import Ledger, ledgers
from lab.core.workload.sample import StateLook, WorkloadDelivery, WorkloadEvent, WorkloadRequest
from lab.core.workload.spec import WorkloadSpec
from lab.core.workload.states import Overlap, StateChange, agreed_change, changes, overlaps

GRACE_NS = 2 * NS_PER_S
"""What was acknowledged within this time before the end may still be on its way to its consumer."""

HIGHEST_NS = 3600 * NS_PER_S
LOWEST_NS = NS_PER_US
DIGITS = 3


@dataclass(frozen=True)
class WorkloadWindow:
    """What a workload's client reported in one cycle.

    began_ns, ended_ns: host MONOTONIC_RAW between which its samples were taken. paused: from the first stop
    to the last resume of the cycle's guests, their bounds; None: nobody was frozen. pause: of the longest
    pause. in_time_ns: host MONOTONIC_RAW from which all frozen guests' clocks were in time again; None:
    unknown, or they were not.
    """

    cycle: int
    began_ns: int
    ended_ns: int
    requests: Sequence[WorkloadRequest] = ()
    deliveries: Sequence[WorkloadDelivery] = ()
    looks: Sequence[StateLook] = ()
    events: Sequence[WorkloadEvent] = ()
    frozen: bool = False
    paused: Interval | None = None
    pause: Interval | None = None
    in_time_ns: int | None = None


@dataclass(frozen=True)
class StaleStamps:
    """Answers that were stamped after the resume. wrong: those off by more than the tolerance, certainly.
    worst_ns: the largest error that is certain, with its sign: negative: behind. last_ns: from the resume to
    the last wrong one; None: there was none."""

    stamped: int = 0
    wrong: int = 0
    worst_ns: int = 0
    last_ns: int | None = None


@dataclass(frozen=True)
class Latencies:
    """Latencies of answered requests, from when they were due. p50_ns to max_ns: quantiles; histogram: an
    HdrHistogram (V2, base64), in nanoseconds. late_p50_ns, late_p99_ns: the client's own lateness, from due
    to sent, of the requests before the pause; with one that cannot keep its schedule nothing is measured."""

    count: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    histogram: str
    late_p50_ns: int | None = None
    late_p99_ns: int | None = None


@dataclass(frozen=True)
class WorkloadResult:
    """One workload's cycle.

    outage: None without two successes. recovery_ns: from the resume to the first success that was asked for
    after it; None when there was no freeze, or no success. changed: by name, of all guests together, or of
    one guest's own view where they disagree. violated: what it has not shown, by its names in expect.
    """

    window: WorkloadWindow
    requests: int
    ok: int
    failed: int
    errors: tuple[tuple[str, int], ...]
    outage: Interval | None
    outage_from_ns: int | None
    recovery_ns: int | None
    latencies: Latencies | None
    ledger: Ledger | None
    changed: tuple[StateChange, ...]
    own_changes: tuple[StateChange, ...]
    overlaps: tuple[Overlap, ...]
    events: tuple[tuple[str, int], ...]
    stale: StaleStamps | None
    names: tuple[str, ...] = ()

    @property
    def beyond_pause(self) -> Interval | None:
        """The part of the outage that is longer than the pause."""
        if self.outage is None:
            return None
        pause = self.window.pause or Interval(0, 0)
        return self.outage - pause


def measure_workload(
    windows: Sequence[WorkloadWindow], spec: WorkloadSpec, tolerance_ns: int
) -> list[WorkloadResult]:
    """The results of a workload's cycles, in order. tolerance_ns: the offset from which a stamp is wrong."""
    books: list[Ledger | None] = [None] * len(windows)
    if spec.delivers and windows:
        books = list(
            ledgers([(one.requests, one.deliveries) for one in windows], windows[-1].ended_ns, GRACE_NS)
        )
    return [_measure(window, book, spec, tolerance_ns) for window, book in zip(windows, books, strict=True)]


def _measure(
    window: WorkloadWindow, book: Ledger | None, spec: WorkloadSpec, tolerance_ns: int
) -> WorkloadResult:
    good = [request for request in window.requests if request.ok]
    outage, since = _outage(window, good)
    names = tuple(dict.fromkeys(name for look in window.looks for name in look.values))
    roles = spec.expect.one_holder
    shared = [name for name in names if name not in roles]
    return WorkloadResult(
        window=window,
        requests=len(window.requests),
        ok=len(good),
        failed=len(window.requests) - len(good),
        errors=_counted(request.error or "failed" for request in window.requests if not request.ok),
        outage=outage,
        outage_from_ns=since,
        recovery_ns=_recovery(window, good),
        latencies=_latencies(window, good),
        ledger=book,
        changed=tuple(change for name in shared for change in agreed_change(window.looks, name)),
        own_changes=tuple(change for name in names for change in changes(window.looks, name)),
        overlaps=tuple(overlap for name in roles for overlap in overlaps(window.looks, name)),
        events=_counted(event.name for event in window.events),
        stale=_stale(window, good, tolerance_ns),
        names=names,
    )


def _counted(words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(words).items(), key=lambda item: (-item[1], item[0])))


def _outage(window: WorkloadWindow, good: Sequence[WorkloadRequest]) -> tuple[Interval | None, int | None]:
    """The longest time without a success, and when it began. At least: between two answers. At most: from
    when the last success before it was asked for: it may have been served at once."""
    if not good:
        return None, None
    done = sorted(good, key=lambda request: request.done_ns)
    longest: tuple[int, int, int] = (0, 0, done[0].done_ns)
    for before, after in pairwise(done):
        low = after.done_ns - before.done_ns
        longest = max(longest, (low, after.done_ns - before.sent_ns, before.done_ns))
    last = done[-1]
    asked = [request for request in window.requests if not request.ok and request.due_ns > last.done_ns]
    if asked:
        longest = max(longest, (window.ended_ns - last.done_ns, window.ended_ns - last.sent_ns, last.done_ns))
    low, high, since = longest
    return Interval(low, max(low, high)), since


def _recovery(window: WorkloadWindow, good: Sequence[WorkloadRequest]) -> int | None:
    if window.paused is None:
        return None
    resumed = window.paused.high_ns
    after = [request.done_ns for request in good if request.done_ns >= resumed]
    return min(after) - resumed if after else None


def _latencies(window: WorkloadWindow, good: Sequence[WorkloadRequest]) -> Latencies | None:
    if not good:
        return None
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for request in good:
        histogram.record_value(min(HIGHEST_NS, max(LOWEST_NS, request.done_ns - request.due_ns)))
    until = window.paused.low_ns if window.paused is not None else window.ended_ns
    late = sorted(request.sent_ns - request.due_ns for request in window.requests if request.done_ns < until)
    worst = max(request.done_ns - request.due_ns for request in good)
    encoded = histogram.encode()
    return Latencies(
        len(good),
        histogram.get_value_at_percentile(50),
        histogram.get_value_at_percentile(99),
        worst,
        encoded.decode("ascii") if isinstance(encoded, bytes) else encoded,
        _nearest(late, 0.5),
        _nearest(late, 0.99),
    )


def _nearest(ordered: Sequence[int], share: float) -> int | None:
    """The value at this share of the ordered values (nearest rank); None without any."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _stale(window: WorkloadWindow, good: Sequence[WorkloadRequest], tolerance_ns: int) -> StaleStamps | None:
    """Of answers that were asked for after the resume; in a cycle without a freeze of all."""
    stamped = [request for request in good if request.stamp_ns is not None]
    if not stamped:
        return None
    resumed = window.paused.high_ns if window.paused is not None else window.began_ns
    count, wrong, worst, last = 0, 0, 0, None
    for request in stamped:
        if request.sent_ns < resumed or request.stamp_ns is None:
            continue
        count += 1
        at = request.stamp_ns - request.real_minus_raw_ns
        error = Interval(at - request.done_ns, at - request.sent_ns)
        if error.smallest_ns > tolerance_ns:
            wrong += 1
            certain = error.low_ns if error.low_ns > 0 else error.high_ns
            worst = max(worst, certain, key=abs)
            last = request.done_ns - resumed
    return StaleStamps(count, wrong, worst, last)
