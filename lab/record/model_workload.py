"""run.json's members about workloads, and about the shortest pause that they fail at. Times are integer
nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.core.verdict import Outcome
from lab.core.workload.gauges import GaugeSummary as GaugeSummary
from lab.core.workload.judge import Latencies as Latencies
from lab.core.workload.ledger import Ledger as Ledger
from lab.core.workload.sample import StateValue
from lab.core.workload.stamps import StaleStamps as StaleStamps
from lab.record.model_clock import Measure


@dataclass(frozen=True)
class StateChangeRecord:
    """A value of the workload's state has changed. at: since the stop; since the cycle's first sample in a
    cycle without a freeze. phase: in the pause, after the resume, after the clock's step, and so on; "" where
    the bounds do not decide."""

    name: str
    before: StateValue
    after: StateValue
    at: Measure
    phase: str = ""


@dataclass(frozen=True)
class OverlapRecord:
    """Two guests have claimed the same role at the same time, for `length`, from at_ns after the stop on."""

    name: str
    holders: tuple[str, str]
    length: Measure
    at_ns: int


@dataclass(frozen=True)
class WorkloadPredicted:
    """A prediction from the workload's own configuration beside what happened. happens: null: the pause is
    too close to the threshold. agrees: null where the two cannot be compared."""

    what: str
    text: str
    happens: bool | None
    happened: bool | None
    agrees: bool | None


@dataclass(frozen=True)
class WorkloadCycleRecord:
    """One workload's cycle. control: without a freeze. errors: failed requests by their error. outage: the
    longest time without a successful request; beyond_pause: its part that is not the pause. recovery_ns: from
    the resume to the first answer to what was asked for after the stop. unended: the cycle ended in an
    outage. stale: answers stamped after the resume; stamps: what else was dated then, by kind.
    stale_window_ns: from the resume until the guests' clocks were in time again. possible_overlaps: where the
    looks do not exclude that two guests held a role. steps_ns: steps of a frozen guest's clock after the
    resume, since the stop. event_phases: events by name and phase (as in changes). clock_bound_ns: how
    exactly the times of a client in a guest are known on the host's clock; 0: it is on the host. problems: of
    the client and its lines."""

    cycle: int
    control: bool
    outcome: Outcome
    requests: int
    ok: int
    failed: int
    errors: dict[str, int]
    outage: Measure | None
    beyond_pause: Measure | None
    recovery_ns: int | None
    latencies: Latencies | None
    ledger: Ledger | None
    changes: tuple[StateChangeRecord, ...]
    overlaps: tuple[OverlapRecord, ...]
    events: dict[str, int]
    stale: StaleStamps | None
    stale_window_ns: int | None
    predictions: tuple[WorkloadPredicted, ...]
    problems: tuple[str, ...]
    unended: bool = False
    possible_overlaps: tuple[OverlapRecord, ...] = ()
    steps_ns: tuple[int, ...] = ()
    event_phases: dict[str, dict[str, int]] = field(default_factory=dict)
    clock_bound_ns: int = 0
    gauges: tuple[GaugeSummary, ...] = ()
    stamps: tuple[StaleStamps, ...] = ()


@dataclass(frozen=True)
class WorkloadRecord:
    """A workload of a cell. shipped: "" for a program of the user's. program: the client's command line.
    config: by guest, its configuration as it lies in the guest; by "host", what the lab's network does with
    frames for a frozen guest. noise_ns: the longest outage of the cycles without a freeze; null without
    any."""

    name: str
    shipped: str
    cell: str
    program: str
    config: dict[str, str]
    outcome: Outcome
    noise_ns: int | None
    cycles: tuple[WorkloadCycleRecord, ...]


@dataclass(frozen=True)
class TryRecord:
    """One try of a search: the pause as it was asked for. of_run: the earlier run that made it, with that
    run's cycle; "" for this one."""

    cycle: int
    pause_ns: int
    outcome: Outcome
    of_run: str = ""


@dataclass(frozen=True)
class ToleranceRecord:
    """The search for the shortest pause that a workload fails at. longest_passed_ns: the longest pause that
    passed in all of its tries; null: none did. shortest_failed_ns: the shortest that failed in any; null:
    none did. complete: the search has ended by itself; why: what ended it otherwise. regime: "" when it is
    not known."""

    workload: str
    cell: str
    method: str
    regime: str
    longest_passed_ns: int | None
    shortest_failed_ns: int | None
    tries: tuple[TryRecord, ...]
    complete: bool
    why: str
    spent_ns: int
