"""The events of a run's history: each kind is a frozen dataclass, whose fields are the members of its line in
events.jsonl. KIND is the word that the line has for it.

    run_events     run-start, part, cell, boot, undo, handler, service, network, network-end, run-end
    cycle_events   cycle, facts, setup, readings, freeze, stop, resume, steps, exchange, migration, proof,
                   cpu, waited, patch, verified, samples, beats, resync, watched, writes, work, problem,
                   cycle-end; and the dead-man's: deadman
    fleet_events   announced, notice; rollout, wave, gate, rollout-end
    workload_events  workload, workload-cycle, tolerance
    line           an event as its line

They are here, not in lab.record, because the controller appends them and may not import packages above it.
lab.record.events reads them.

The format stays compatible: new kinds and members may be added, members with a default; none is removed or
changes its meaning. A reader ignores what it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from lab.core.history.cycle_events import BeatsArrived as BeatsArrived
from lab.core.history.cycle_events import CpuUsed as CpuUsed
from lab.core.history.cycle_events import CpuWaited as CpuWaited
from lab.core.history.cycle_events import CycleBegan as CycleBegan
from lab.core.history.cycle_events import CycleEnded as CycleEnded
from lab.core.history.cycle_events import DeadManActed as DeadManActed
from lab.core.history.cycle_events import ExchangeEnded as ExchangeEnded
from lab.core.history.cycle_events import FactsRead as FactsRead
from lab.core.history.cycle_events import FilesWritten as FilesWritten
from lab.core.history.cycle_events import GuestsFrozen as GuestsFrozen
from lab.core.history.cycle_events import MemoryProven as MemoryProven
from lab.core.history.cycle_events import MigrationWatched as MigrationWatched
from lab.core.history.cycle_events import OfGuest as OfGuest
from lab.core.history.cycle_events import PatchApplied as PatchApplied
from lab.core.history.cycle_events import ProblemMet as ProblemMet
from lab.core.history.cycle_events import ReadingsTaken as ReadingsTaken
from lab.core.history.cycle_events import ResumeCalled as ResumeCalled
from lab.core.history.cycle_events import ResyncReported as ResyncReported
from lab.core.history.cycle_events import SamplesTaken as SamplesTaken
from lab.core.history.cycle_events import SetupRead as SetupRead
from lab.core.history.cycle_events import StepsTimed as StepsTimed
from lab.core.history.cycle_events import StopCalled as StopCalled
from lab.core.history.cycle_events import VersionsCompared as VersionsCompared
from lab.core.history.cycle_events import WatcherReported as WatcherReported
from lab.core.history.cycle_events import WorkCounted as WorkCounted
from lab.core.history.fleet_events import EventHappened as EventHappened
from lab.core.history.fleet_events import EventsAnnounced as EventsAnnounced
from lab.core.history.fleet_events import GateAsked as GateAsked
from lab.core.history.fleet_events import RolloutEnded as RolloutEnded
from lab.core.history.fleet_events import RolloutPlanned as RolloutPlanned
from lab.core.history.fleet_events import WaveReached as WaveReached
from lab.core.history.run_events import SCHEMA as SCHEMA
from lab.core.history.run_events import CellReached as CellReached
from lab.core.history.run_events import GuestBooted as GuestBooted
from lab.core.history.run_events import HandlerEnded as HandlerEnded
from lab.core.history.run_events import Host as Host
from lab.core.history.run_events import NetworkEnded as NetworkEnded
from lab.core.history.run_events import NetworkStarted as NetworkStarted
from lab.core.history.run_events import PartMerged as PartMerged
from lab.core.history.run_events import PatchUndone as PatchUndone
from lab.core.history.run_events import RunEnded as RunEnded
from lab.core.history.run_events import RunStarted as RunStarted
from lab.core.history.run_events import ServiceFailed as ServiceFailed
from lab.core.history.workload_events import OfWorkload as OfWorkload
from lab.core.history.workload_events import ToleranceTried as ToleranceTried
from lab.core.history.workload_events import WorkloadSampled as WorkloadSampled
from lab.core.history.workload_events import WorkloadStarted as WorkloadStarted

OfRun = (
    RunStarted | PartMerged | CellReached | GuestBooted | PatchUndone | HandlerEnded | ServiceFailed
    | NetworkStarted | NetworkEnded | RunEnded
)  # fmt: skip
OfCycle = (
    CycleBegan | FactsRead | SetupRead | ReadingsTaken | GuestsFrozen | StopCalled | ResumeCalled | StepsTimed
    | ExchangeEnded | MigrationWatched | MemoryProven | CpuUsed | CpuWaited | PatchApplied | VersionsCompared
    | SamplesTaken | BeatsArrived | ResyncReported | WatcherReported | FilesWritten | WorkCounted | ProblemMet
    | CycleEnded
    | DeadManActed
)  # fmt: skip
OfFleet = EventsAnnounced | EventHappened | RolloutPlanned | WaveReached | GateAsked | RolloutEnded
HistoryEvent = OfRun | OfCycle | OfFleet | OfWorkload

KINDS: Mapping[str, type[HistoryEvent]] = {event.KIND: event for event in get_args(HistoryEvent)}
