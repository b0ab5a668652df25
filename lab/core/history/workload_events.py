"""Events of workloads: their start, what their clients report in each cycle, and the search for the shortest
pause that they fail at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from lab.core.verdict import Outcome
from lab.core.workload.sample import (
    GaugeReading,
    StateLook,
    WorkloadDelivery,
    WorkloadEvent,
    WorkloadRequest,
    WorkloadStamp,
)


@dataclass(frozen=True)
class WorkloadStarted:
    """A workload's client runs. program: its command line. config: by guest, the workload's configuration as
    it lies in the guest; by "host", what the lab's network does with frames for a frozen guest."""

    KIND: ClassVar[str] = "workload"

    workload: str
    program: str
    config: Mapping[str, str] = field(default_factory=dict)
    cell: str = ""


@dataclass(frozen=True)
class WorkloadSampled:
    """What a workload's client reported in a cycle. began_raw_ns, ended_raw_ns: host MONOTONIC_RAW between
    which its lines were read. problems: what was wrong with its lines, or with the client, a line each.
    period_ns: between two requests, as its hello has it. clock_bound_ns: how exactly the times of a client in
    a guest are known on the host's clock; 0: it is on the host.

    In the history a request is a list: seq, due, sent, done, ok, error, by, stamp (or null), the host's
    REALTIME minus MONOTONIC_RAW. A delivery is seq, at, by. A look is sent, done, values, by. An event is
    name, at, by. A gauge reading is at, values, by. A stamp is what, sent, done, stamp, until (or null),
    unit, by, the host's REALTIME minus MONOTONIC_RAW.
    """

    KIND: ClassVar[str] = "workload-cycle"

    cycle: int
    workload: str
    began_raw_ns: int
    ended_raw_ns: int
    requests: Sequence[WorkloadRequest] = ()
    deliveries: Sequence[WorkloadDelivery] = ()
    looks: Sequence[StateLook] = ()
    events: Sequence[WorkloadEvent] = ()
    problems: tuple[str, ...] = ()
    cell: str = ""
    period_ns: int | None = None
    clock_bound_ns: int = 0
    gauges: Sequence[GaugeReading] = ()
    stamps: Sequence[WorkloadStamp] = ()


@dataclass(frozen=True)
class ToleranceTried:
    """One try of a search. pause_ns: as asked for. spent_ns: how long the search has taken so far. ended: the
    reason for which the search ends after this try; "" while it goes on. of_run: the id of the earlier run
    that made the try, and which this one goes on from; its cycle is that run's, and its outcome as judged
    there. "": this run."""

    KIND: ClassVar[str] = "tolerance"

    cycle: int
    workload: str
    pause_ns: int
    outcome: Outcome
    spent_ns: int
    ended: str = ""
    cell: str = ""
    of_run: str = ""


OfWorkload = WorkloadStarted | WorkloadSampled | ToleranceTried
