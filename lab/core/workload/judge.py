"""Measures a workload's cycles from its samples. Pure, so an old run can be judged again.

Who judges is the client, which is not frozen: all times are the host's MONOTONIC_RAW.

- The outage is the longest time that somebody who asks all the time would have waited (outage.py).
- The latency of a request counts from when it was due, not from when it was sent (latency.py).
- A stamp is wrong by what cannot be explained by the time at which it was made (stamps.py).
- A cycle's numbers are those of what was over after it began; what was over between two cycles counts in the
  ledger only, where what came twice is counted apart.
- A client whose request numbers come twice, or go backward, is not believed (numbers.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.core.clock import Interval
from lab.core.workload.gauges import GaugeSummary, summaries
from lab.core.workload.latency import Latencies as Latencies
from lab.core.workload.latency import latencies_of
from lab.core.workload.ledger import Ledger, ledgers
from lab.core.workload.numbers import number_problems
from lab.core.workload.outage import Outage, longest_outage
from lab.core.workload.sample import (
    GaugeReading,
    StateLook,
    WorkloadDelivery,
    WorkloadEvent,
    WorkloadRequest,
    WorkloadStamp,
)
from lab.core.workload.spec import WorkloadSpec
from lab.core.workload.stamps import StaleStamps, StampContext, answers_of, stale_stamps
from lab.core.workload.states import Overlap, StateChange, agreed_change, changes, possible_overlaps


@dataclass(frozen=True)
class WorkloadWindow:
    """What a workload's client reported in one cycle.

    began_ns, ended_ns: host MONOTONIC_RAW between which its samples were taken. There may be samples from
    before it, of the time between two cycles. frozen: whether anybody was. paused: from before the first stop
    to after the last resume of the cycle's guests; None: nobody was frozen, or it is not known when. pause:
    of the longest pause; None: the same. in_time_ns: host MONOTONIC_RAW from which all frozen guests' clocks
    were in time again; None: unknown, or they were not. period_ns: between two requests, as the client's
    hello has it; None: as the plan has it. stepped_ns: host MONOTONIC_RAW of the steps of a frozen guest's
    clock after its resume, in order. stood: by guest, from after its stop to before its resume. bound_ns: how
    exactly the client's times are known. peers: guests that are never frozen.
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
    period_ns: int | None = None
    stepped_ns: tuple[int, ...] = ()
    gauges: Sequence[GaugeReading] = ()
    stamps: Sequence[WorkloadStamp] = ()
    stood: Mapping[str, Interval] = field(default_factory=dict)
    bound_ns: int = 0
    peers: frozenset[str] = frozenset()

    def phase(self, at: Interval) -> str:
        """When something happened, in words: before the pause, in the pause, after the resume, after the
        clock's step. "" when there was no freeze, or the bounds do not decide."""
        if self.paused is None:
            return ""
        stop, resume = self.paused.low_ns, self.paused.high_ns
        step = self.stepped_ns[0] if self.stepped_ns else None
        if at.high_ns <= stop:
            return "before the pause"
        if stop <= at.low_ns and at.high_ns <= resume:
            return "in the pause"
        if step is not None and at.low_ns >= step:
            return "after the clock's step"
        if at.low_ns >= resume and (step is None or at.high_ns <= step):
            return "after the resume"
        return ""


@dataclass(frozen=True)
class WorkloadResult:
    """One workload's cycle.

    outage: None without a success. unended: the cycle ended in it, or in another one. recovery_ns: from the
    resume to the first answer to what was asked for after the stop; None when there was no freeze, or no
    such answer. changed: by name, of all guests together; own_changes: of each guest's own view. overlaps:
    roles that two guests certainly held at the same time; possible_overlaps: where the looks do not exclude
    it. names: of the state, those with a value. problems: why nothing here can be believed. stale: answers;
    stamps: what else was dated, by kind.
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
    unended: bool = False
    possible_overlaps: tuple[Overlap, ...] = ()
    problems: tuple[str, ...] = ()
    gauges: tuple[GaugeSummary, ...] = ()
    stamps: tuple[StaleStamps, ...] = ()

    @property
    def stamped(self) -> tuple[StaleStamps, ...]:
        """All that was dated: answers and other kinds."""
        return (*((self.stale,) if self.stale is not None else ()), *self.stamps)

    @property
    def beyond_pause(self) -> Interval | None:
        """The part of the outage that is longer than the pause; None: one of the two is not known."""
        pause = self.window.pause if self.window.frozen else Interval(0, 0)
        return None if self.outage is None or pause is None else self.outage - pause

    @property
    def is_empty(self) -> bool:
        """Whether its client reported nothing that can be judged."""
        return not (self.requests or self.names or self.events or self.stamps)

    def is_looked_at(self, name: str) -> bool:
        """Whether the value was asked for twice, and in a freeze before the stop and after the resume."""
        looks = [look for look in self.window.looks if look.values.get(name) is not None]
        paused = self.window.paused
        if paused is None:
            return len(looks) > 1
        before = any(look.done_ns <= paused.low_ns for look in looks)
        return before and any(look.sent_ns >= paused.high_ns for look in looks)


def measure_workload(
    windows: Sequence[WorkloadWindow], spec: WorkloadSpec, tolerance_ns: int
) -> list[WorkloadResult]:
    """The results of a workload's cycles, in order. tolerance_ns: the offset from which a stamp is wrong."""
    books: list[Ledger | None] = [None] * len(windows)
    if spec.delivers and windows:
        cycles = [(one.requests, one.deliveries, one.began_ns) for one in windows]
        books = list(ledgers(cycles, windows[-1].ended_ns, spec.grace_ns))
    problems = number_problems([one.requests for one in windows])
    return [
        replace(_measure(_within(window), book, spec, tolerance_ns), window=window, problems=wrong)
        for window, book, wrong in zip(windows, books, problems, strict=True)
    ]


def _within(window: WorkloadWindow) -> WorkloadWindow:
    """The window without what was over before it began."""
    began = window.began_ns
    return replace(
        window,
        requests=[one for one in window.requests if one.done_ns >= began],
        deliveries=[one for one in window.deliveries if one.at_ns >= began],
        looks=[one for one in window.looks if one.done_ns >= began],
        events=[one for one in window.events if one.at_ns >= began],
        stamps=[one for one in window.stamps if one.done_ns >= began],
    )


def _measure(
    window: WorkloadWindow, book: Ledger | None, spec: WorkloadSpec, tolerance_ns: int
) -> WorkloadResult:
    good = [request for request in window.requests if request.ok]
    period = window.period_ns or spec.period_ns
    outage = _outage(window, period)
    seen = (name for look in window.looks for name, value in look.values.items() if value is not None)
    names = tuple(dict.fromkeys(seen))
    roles = tuple(dict.fromkeys((*spec.roles, *spec.expect.one_holder)))
    shared = [name for name in names if name not in roles]
    held = [
        found
        for name in roles
        for found in possible_overlaps(window.looks, name, window.began_ns, window.ended_ns)
    ]
    until = window.paused.low_ns if window.paused is not None else window.ended_ns
    return WorkloadResult(
        window=window,
        requests=len(window.requests),
        ok=len(good),
        failed=len(window.requests) - len(good),
        errors=_counted(request.error or "failed" for request in window.requests if not request.ok),
        outage=outage.length if outage is not None else None,
        outage_from_ns=outage.from_ns if outage is not None else None,
        recovery_ns=_recovery(window, good),
        latencies=latencies_of(window.requests, until, period),
        ledger=book,
        changed=tuple(change for name in shared for change in agreed_change(window.looks, name)),
        own_changes=tuple(change for name in names for change in changes(window.looks, name)),
        overlaps=tuple(one for one in held if one.length.low_ns > 0),
        events=_counted(event.name for event in window.events),
        stale=next(iter(_stale(window, answers_of(good), tolerance_ns)), None),
        names=names,
        unended=outage is not None and outage.unended,
        possible_overlaps=tuple(one for one in held if one.length.low_ns <= 0),
        gauges=summaries(window.gauges, window.paused),
        stamps=_stale(window, window.stamps, tolerance_ns),
    )


def _counted(words: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(words).items(), key=lambda item: (-item[1], item[0])))


def _outage(window: WorkloadWindow, period_ns: int | None) -> Outage | None:
    return longest_outage(window.requests, window.began_ns, window.ended_ns, period_ns)


def _recovery(window: WorkloadWindow, good: Sequence[WorkloadRequest]) -> int | None:
    """Without answers to what was asked for before the stop: they may have been served before it, and still
    have been on their way."""
    if window.paused is None:
        return None
    stopped, resumed = window.paused.low_ns, window.paused.high_ns
    after = [one.done_ns for one in good if one.done_ns >= resumed and one.sent_ns >= stopped]
    return min(after) - resumed if after else None


def _stale(
    window: WorkloadWindow, stamps: Sequence[WorkloadStamp], tolerance_ns: int
) -> tuple[StaleStamps, ...]:
    """() where the resume is not known. In a cycle without a freeze all of it counts."""
    if window.frozen and window.paused is None:
        return ()
    resumed = window.paused.high_ns if window.paused is not None else window.began_ns
    context = StampContext(
        resumed, tolerance_ns, window.stood, window.in_time_ns, window.bound_ns, window.peers
    )
    return stale_stamps(stamps, context)
