"""Rebuilds the plan and the observations from a history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.core.clock import Stamp
from lab.core.history import (
    BeatsArrived,
    CellReached,
    CpuUsed,
    CpuWaited,
    CycleBegan,
    CycleEnded,
    DeadManActed,
    ExchangeEnded,
    FactsRead,
    FilesWritten,
    GuestsFrozen,
    MemoryProven,
    MigrationWatched,
    OfGuest,
    PartMerged,
    PatchApplied,
    ProblemMet,
    ReadingsTaken,
    ResumeCalled,
    ResyncReported,
    SamplesTaken,
    SetupRead,
    StepsTimed,
    StopCalled,
    VersionsCompared,
    WatcherReported,
    WorkCounted,
)
from lab.core.packed import PackedReadings
from lab.core.plan import Plan
from lab.core.rescue import CUT_OFF
from lab.core.timeline import Call, Observation, Reading, Rescue
from lab.errors import RecordError
from lab.record.events import Entry
from lab.record.journal import History


def plan_of(history: History) -> Plan:
    """The plan of the run."""
    return history.start.plan


def _freezing(obs: Observation, event: OfGuest) -> Observation | None:
    """The observation with an event of the freeze itself; None when the event is not one."""
    match event:
        case StopCalled():
            return replace(obs, stop=event.call)
        case ResumeCalled():
            return replace(obs, resume=event.call)
        case CpuUsed():
            return replace(obs, cpu_ns=event.used_ns)
        case CpuWaited():
            return replace(obs, cpu_waits=event.waits)
        case StepsTimed():
            return replace(obs, steps=event.steps)
        case ExchangeEnded():
            return replace(obs, called_off=event.called_off, cut=event.cut)
        case MigrationWatched():
            return replace(obs, migration=event.report)
        case MemoryProven():
            return replace(obs, proof=event.proof)
        case PatchApplied():
            return replace(obs, patch_ok=event.ok, patch_why=event.why, patch_steps=event.steps)
        case VersionsCompared():
            updated = replace(obs, version_before=event.before, version_after=event.after)
            failed = event.why and obs.patch_ok
            return replace(updated, patch_ok=False, patch_why=event.why) if failed else updated
        case _:
            return None


def _inside(obs: Observation, event: OfGuest) -> Observation:
    """The observation with an event of the guest itself."""
    match event:
        case FactsRead(when="before"):
            return replace(obs, facts_before=event.facts)
        case FactsRead():
            return replace(obs, facts_after=event.facts)
        case SetupRead():
            return replace(obs, setup=event.setup)
        case BeatsArrived():
            return replace(obs, beats=event.beats)
        case SamplesTaken():
            return replace(obs, sampler=event.sampler)
        case ResyncReported():
            return replace(obs, resync_report=event.said, resync_finished_raw_ns=event.finished_raw_ns)
        case WatcherReported():
            return replace(obs, claims=event.claims, effects=event.effects)
        case FilesWritten():
            return replace(obs, writes=event.writes)
        case WorkCounted():
            return replace(obs, work=event.counts)
        case ProblemMet():
            return replace(obs, problems=(*obs.problems, (event.text.splitlines() or [""])[0]))
        case CycleEnded():
            return replace(obs, host_step_ns=event.host_step_ns)
        case _:
            return obs


RUNS = (CycleBegan, FactsRead, SetupRead, ReadingsTaken)
"""Events of a guest's cycle that the controller writes while the guest still runs."""


class _Rebuilding:
    """Observations while the events are read. last_running, frozen: for each, the last time at which it was
    known to run before its freeze, and the time of the event that shows that it is stopped. refused: those of
    cycles that were refused when they had just begun, before anything was tried."""

    def __init__(self, accelerator: str) -> None:
        self._accelerator = accelerator
        self.found: list[Observation] = []
        self.ended: set[int] = set()
        self.refused: set[int] = set()
        self.cells: dict[str, int] = {}
        # A guest's name and number may come again in another cell.
        self._current: dict[tuple[int | None, str], int] = {}
        self._readings: dict[int, list[Sequence[Reading]]] = {}
        self._last_of: dict[str, int] = {}
        self._last_running: dict[int, Stamp] = {}
        self._frozen: dict[int, Stamp] = {}

    def add(self, entry: Entry) -> None:
        """Add an event. KeyError when it belongs to no cycle that has begun."""
        event = entry.event
        if isinstance(event, PartMerged):
            self._accelerator = event.host.accelerator
        elif isinstance(event, CycleBegan):
            self._begin(event)
        elif isinstance(event, DeadManActed):
            self._rescued(event)
        elif isinstance(event, CellReached):
            if event.refused:
                tried = self.ended | self._frozen.keys() | self._readings.keys()
                here = {index for index, obs in enumerate(self.found) if obs.cell == event.id}
                self.refused |= here - tried
        elif isinstance(event, GuestsFrozen):
            for guest in event.guests:
                self._frozen[self._current[event.cycle, guest]] = entry.at
        elif isinstance(event, OfGuest):
            index = self._current[event.cycle, event.guest]
            if isinstance(event, ReadingsTaken):
                bursts = self._readings.setdefault(index, [])
                bursts.append(event.readings)
                if bursts[0] and event.readings and bursts[0][0].t2.keys() != event.readings[0].t2.keys():
                    raise RecordError(f"event {entry.seq}: some readings lack a clock that others have")
            else:
                obs = self.found[index]
                self.found[index] = _freezing(obs, event) or _inside(obs, event)
            if isinstance(event, CycleEnded):
                self.ended.add(index)
        if isinstance(event, RUNS) and (index := self._current[event.cycle, event.guest]) not in self._frozen:
            self._last_running[index] = entry.at

    def _begin(self, event: CycleBegan) -> None:
        self._current[event.cycle, event.guest] = self._last_of[event.guest] = len(self.found)
        self.cells.setdefault(event.cell, len(self.cells))
        self.found.append(
            Observation(
                event.guest,
                event.cycle,
                event.frozen,
                event.method,
                event.patch,
                event.budget_ns,
                cell=event.cell,
                patch_impact=event.impact,
                accelerator=self._accelerator,
            )
        )

    def _rescued(self, event: DeadManActed) -> None:
        """Add an action of the dead-man, which may not know the cycle: it belongs to the guest's last one."""
        index = self._current.get((event.cycle, event.guest), self._last_of.get(event.guest))
        if index is not None:
            obs = self.found[index]
            rescue = Rescue(event.act, event.why, event.call, event.text or "")
            self.found[index] = replace(obs, rescues=(*obs.rescues, rescue))

    def finished(self) -> list[Observation]:
        return [
            self._finished(index, obs) for index, obs in enumerate(self.found) if index not in self.refused
        ]

    def _finished(self, index: int, obs: Observation) -> Observation:
        if index in self._readings:
            obs = replace(obs, readings=PackedReadings.joined(self._readings[index]))
        if index in self.ended:
            return obs
        problems = (*obs.problems, CUT_OFF)
        obs = replace(obs, problems=problems, unfinished=True)
        calls = [rescue.call for rescue in obs.rescues if rescue.call is not None]
        if obs.stop is not None or not calls or not obs.method.needs_resume:
            return obs
        # The controller was ended while the guest stood still, so it told neither stop nor resume.
        running = self._last_running[index]
        stopped = min(filter(None, (self._frozen.get(index), calls[0].called)), key=lambda at: at.raw_ns)
        if stopped.raw_ns < running.raw_ns:
            return obs
        return replace(obs, stop=Call(running, stopped), stop_inferred=True)


def observations_of(history: History) -> list[Observation]:
    """One Observation for each guest and cycle, in order of cells, cycles and guests. RecordError for an
    event of a cycle that has not begun."""
    rebuilding = _Rebuilding(history.start.host.accelerator)
    rebuilding.cells.update((cell.id, number) for number, cell in enumerate(history.start.plan.parts))
    for entry in history.entries:
        try:
            rebuilding.add(entry)
        except KeyError as error:
            raise RecordError(
                f"event {entry.seq} ({entry.kind}) is damaged: cycle {error} was not begun",
                where=str(history.folder),
            ) from None
    cells = rebuilding.cells
    return sorted(rebuilding.finished(), key=lambda obs: (cells[obs.cell], obs.cycle, obs.guest))
