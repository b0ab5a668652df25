"""A run in progress, read from its history as it grows.

Each cycle is judged when it has ended, from its own events alone: a cycle costs some ten milliseconds
however long the run already is. So the bounds of a cycle may be a little wider than in the record of the
whole run, which knows the rates of the guest's clocks from all cycles, and what an event's guests do after
its cycle is not in it. Findings, statistics and workloads are judged at the end of a run and not here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lab.core.clock import Stamp
from lab.core.history import (
    CellReached,
    CycleBegan,
    CycleEnded,
    GuestBooted,
    GuestsFrozen,
    OfWorkload,
    ResumeCalled,
    RolloutEnded,
    RolloutPlanned,
    RunEnded,
    RunStarted,
    WaveReached,
)
from lab.core.verdict import worst
from lab.errors import RecordError
from lab.record.events import Entry, entry_of, envelope
from lab.record.journal import History
from lab.record.model import CycleRecord, EventRecord, Run
from lab.record.run import judge
from lab.record.tail import Tail

_KEPT = (RunStarted, CellReached, GuestBooted, RolloutPlanned, WaveReached, RolloutEnded)
"""Events that later cycles need."""


@dataclass(frozen=True)
class EndedCycle:
    """A guest's cycle that has ended. cell: "" without a matrix."""

    guest: str
    cell: str
    cycle: CycleRecord


class FollowedRun:
    """The run in `folder`. Not thread-safe.

    cycles, events: so far, in their order. frozen: guests that stand still now. ended: its last event has
    been read. problem: why a cycle could not be judged, "" when all could.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cycles: list[EndedCycle] = []
        self.events: dict[str, EventRecord] = {}
        self.frozen: set[str] = set()
        self.ended = False
        self.problem = ""
        self._tail = Tail(folder)
        self._kept: list[Entry] = []
        self._pending: list[Entry] = []
        self._open: set[tuple[str, int]] = set()
        self._latest: Stamp | None = None

    def update(self) -> list[EndedCycle]:
        """Read what has been written since the last call. Returns the cycles that have ended in it.
        RecordError when the history cannot be read."""
        known = len(self.cycles)
        for line in self._tail.lines():
            given = envelope(line)
            if given is None:
                continue  # the judge of the whole history says what is wrong with it
            with contextlib.suppress(ValueError):
                self._add(entry_of(line, given))
        return self.cycles[known:]

    def run(self) -> Run | None:
        """The record so far; None when nothing has been written yet. ended: when its last event was written.
        outcome: the worst of its cycles. complete: never."""
        if self._latest is None:
            return None
        base, _ = judge(History(self.folder, tuple(self._kept), complete=True))
        cycles: dict[tuple[str, str], list[CycleRecord]] = {}
        for one in self.cycles:
            cycles.setdefault((one.cell, one.guest), []).append(one.cycle)
        return replace(
            base,
            ended=datetime.fromtimestamp(self._latest.real_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
            outcome=worst(one.cycle.outcome for one in self.cycles),
            complete=False,
            guests=tuple(
                replace(guest, cycles=tuple(cycles.get((guest.cell, guest.name), ())))
                for guest in base.guests
            ),
            findings=(),
            cells=(),
            comparisons=(),
            events=tuple(self.events.values()),
            workloads=(),
            tolerances=(),
        )

    def _add(self, entry: Entry) -> None:
        event = entry.event
        if not self._kept and not isinstance(event, RunStarted):
            return
        if isinstance(event, OfWorkload):
            return
        self._latest = entry.at
        (self._kept if isinstance(event, _KEPT) else self._pending).append(entry)
        match event:
            case RunEnded():
                self.ended = True
            case CycleBegan():
                self._open.add((event.guest, event.cycle))
            case GuestsFrozen():
                self.frozen |= set(event.guests)
            case ResumeCalled():
                self.frozen.discard(event.guest)
            case CycleEnded():
                self.frozen.discard(event.guest)
                self._open.discard((event.guest, event.cycle))
                if not self._open:
                    self._judge()
            case _:
                pass

    def _judge(self) -> None:
        """Judge the cycles that have just ended."""
        entries = sorted((*self._kept, *self._pending), key=lambda entry: entry.at.raw_ns)
        self._pending = []
        try:
            made, _ = judge(History(self.folder, tuple(entries), complete=True))
        except RecordError as error:
            self.problem = str(error)
            return
        for guest in made.guests:
            self.cycles += [EndedCycle(guest.name, guest.cell, cycle) for cycle in guest.cycles]
        self.events |= {event.id: event for event in made.events}
