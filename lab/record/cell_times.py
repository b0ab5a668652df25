"""What the cells of a matrix took in an earlier run, for their placement on hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.history import CellReached, GuestBooted
from lab.core.parallel_cells import batches
from lab.core.plan import Plan
from lab.errors import FreezelabError
from lab.record import EVENTS
from lab.record.events import Entry
from lab.record.journal import History, read_history
from lab.record.milestones import LARGEST, is_of
from lab.record.parts import parts_of


@dataclass(frozen=True)
class CellTimes:
    """run: the earlier one's folder. batches: for each batch of the plan, in order, what its cells took
    together with a start of their guests, nanoseconds, MONOTONIC_RAW."""

    run: Path
    batches: tuple[int, ...]


def cell_times(folders: Sequence[Path], plan: Plan) -> CellTimes | None:
    """Those of the latest run that reached all cells of the plan, with as many cycles. folders: of runs, the
    latest first."""
    for folder in folders:
        path = folder / EVENTS
        try:
            if f"-{plan.name[:40]}-" not in folder.name or path.stat().st_size > LARGEST:
                continue
            with path.open("rb") as file:
                if not is_of(file.readline(), plan):
                    continue
            history = read_history(folder)
        except (OSError, ValueError, FreezelabError):
            continue
        found = _times(history, [[cell.id for cell in batch] for batch in batches(plan)])
        if history.complete and found is not None:
            return CellTimes(folder, found)
    return None


def _times(history: History, together: Sequence[Sequence[str]]) -> tuple[int, ...] | None:
    """None when a cell was not run."""
    parts = [part.entries for _, part in parts_of(history)] or [history.entries]
    lengths: dict[str, int] = {}
    starts: dict[str, int] = {}
    for entries in parts:
        for cell, own in _by_cell(entries).items():
            if any(isinstance(entry.event, CellReached) and entry.event.skipped for entry in own):
                return None
            began = own[0].at.raw_ns
            lengths[cell] = max(entry.at.raw_ns for entry in own) - began
            if booted := [entry.at.raw_ns for entry in own if isinstance(entry.event, GuestBooted)]:
                starts[cell] = max(booted) - began
    if any(cell not in lengths for batch in together for cell in batch):
        return None
    # On a host of its own each batch starts its guests; here it may have had those of the batch before.
    start = max(starts.values(), default=0)
    return tuple(
        sum(lengths[cell] for cell in batch) + (0 if starts.keys() & set(batch) else start)
        for batch in together
    )


def _by_cell(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries of each cell; the first has those before it."""
    found: dict[str, list[Entry]] = {}
    before: list[Entry] = []
    current = before
    for entry in entries:
        if isinstance(entry.event, CellReached):
            current = found.setdefault(entry.event.id, before if not found else [])
        current.append(entry)
    return found
