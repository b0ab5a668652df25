"""The index of old runs: a line about each, in SQLite, so that every run is judged once by each build.

The histories are the record, and the index is only derived from them: a run is judged again when its history
has changed or this program has, and the whole index is made anew when it is lost or damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lab.core.verdict import Outcome
from lab.errors import FreezelabError
from lab.record import EVENTS
from lab.record.model import Measure

if TYPE_CHECKING:
    from lab.record.run import Run

INDEX = "history.sqlite"
LAB = Path(__file__).parents[1]
_WAIT_S = 1.0
"""How long another process may take to write to the index. After that the runs are judged without it."""
_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Errors of an index that is in use by another process, and is not damaged."""

_LAYOUT = """
    CREATE TABLE IF NOT EXISTS runs (
        folder TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, build TEXT NOT NULL,
        id TEXT NOT NULL, playbook TEXT NOT NULL, started TEXT NOT NULL, outcome TEXT NOT NULL,
        complete INTEGER NOT NULL, interrupted INTEGER NOT NULL, guests INTEGER NOT NULL,
        cycles INTEGER NOT NULL, pause_low_ns INTEGER, pause_value_ns INTEGER, pause_high_ns INTEGER
    ) STRICT
"""

_INSERT = "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_Row = tuple[str, str, str, str, int, int, int, int, int | None, int | None, int | None]
"""From `id` on."""


@dataclass(frozen=True)
class RunSummary:
    """A run in a line. started: ISO 8601, UTC. guests: their number. cycles: with a freeze, of the guest that
    has most of them; of a matrix in all cells together. longest_pause: None when no pause was measured.
    running: it has not ended, so its outcome is not known yet."""

    id: str
    playbook: str
    started: str
    outcome: Outcome
    complete: bool
    interrupted: bool
    guests: int
    cycles: int
    longest_pause: Measure | None
    running: bool = False


def summary_of(run: Run) -> RunSummary:
    """The run's line."""
    each = [sum(not cycle.control for cycle in guest.cycles) for guest in run.guests]
    pauses = [c.pause for guest in run.guests for c in guest.cycles if c.frozen and c.pause is not None]
    return RunSummary(
        id=run.id,
        playbook=run.playbook.name,
        started=run.started,
        outcome=run.outcome,
        complete=run.complete,
        interrupted=run.interrupted,
        guests=len({guest.name for guest in run.guests}),
        cycles=sum(each) if run.cells else max(each, default=0),
        longest_pause=max(pauses, key=lambda pause: pause.value_ns, default=None),
    )


def index_of(home: Path) -> Path:
    """The index of a state folder."""
    return home / INDEX


def summaries(folders: Sequence[Path], most: int, index: Path) -> list[RunSummary]:
    """Of the first `most` of these runs that can be read, in this order. index: the file."""
    with closing(_Index(index)) as known:
        found: list[RunSummary] = []
        for folder in folders:
            if len(found) == most:
                break
            if (summary := known.get(folder)) is not None:
                found.append(summary)
        return found


def judged(folder: Path, index: Path) -> Run:
    """Judge a run from its history, and put it into the index. RecordError when it cannot be read."""
    with closing(_Index(index)) as known:
        return known.judged(folder)[0]


@cache
def build() -> str:
    """What this program is, as far as it judges: the sizes and times of its files."""
    digest = hashlib.sha256()
    for path in sorted((*LAB.glob("core/**/*.py"), *LAB.glob("record/*.py"))):
        state = path.stat()
        digest.update(f"{path.relative_to(LAB)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class _Index:
    """The index, as it was when it was first asked; what is judged anew is written to it by close()."""

    def __init__(self, path: Path) -> None:
        self._path, self._new = path, dict[str, tuple[int, int, _Row]]()

    @cached_property
    def _known(self) -> dict[str, tuple[int, int, _Row | None]]:
        try:
            return self._read()
        except sqlite3.DatabaseError as error:
            # Of extended codes the last byte is the kind (sqlite.org/rescode.html).
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _IN_USE:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
            return {}

    def get(self, folder: Path) -> RunSummary | None:
        """None when it is no run, or cannot be read."""
        try:
            state = (folder / EVENTS).stat()
        except OSError:
            return None
        size, mtime_ns, row = self._known.get(folder.name, (-1, -1, None))
        if row is not None and (size, mtime_ns) == (state.st_size, state.st_mtime_ns):
            with contextlib.suppress(ValueError):
                return _summary(row)
        try:
            run, running = self.judged(folder)
        except FreezelabError:
            return None
        return replace(summary_of(run), running=running)

    def judged(self, folder: Path) -> tuple[Run, bool]:
        """Judge a run. Returns it, and whether it is still being written: then it is not kept."""
        # What it takes to judge a run is not loaded for those that are known.
        from lab.record import journal
        from lab.record.run import judge

        running, state = journal.is_written(folder), None
        with contextlib.suppress(OSError):
            state = (folder / EVENTS).stat()  # before it is read: what comes meanwhile is judged later
        run, _ = judge(journal.read_history(folder))
        if state is not None and not running:
            self._new[folder.name] = state.st_size, state.st_mtime_ns, _row(summary_of(run))
        return run, running

    def close(self) -> None:
        """Nothing is lost when it cannot be written: the runs are judged again the next time."""
        if not self._new:
            return
        rows = [(name, size, at, build(), *row) for name, (size, at, row) in self._new.items()]
        with contextlib.suppress(sqlite3.Error), closing(self._open()) as database, database:
            database.execute(_LAYOUT)
            database.execute("DELETE FROM runs WHERE build != ?", (build(),))
            database.executemany(_INSERT, rows)

    def _read(self) -> dict[str, tuple[int, int, _Row | None]]:
        if not self._path.exists():
            return {}
        with closing(self._open()) as database:
            rows = database.execute("SELECT * FROM runs WHERE build = ?", (build(),))
            return {name: (size, at, row) for name, size, at, _build, *row in rows}

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_WAIT_S)


def _row(run: RunSummary) -> _Row:
    pause = run.longest_pause
    bounds = (None, None, None) if pause is None else (pause.low_ns, pause.value_ns, pause.high_ns)
    return (
        *(run.id, run.playbook, run.started, run.outcome.value),
        *(int(run.complete), int(run.interrupted), run.guests, run.cycles, *bounds),
    )


def _summary(row: _Row) -> RunSummary:
    """ValueError when the row is damaged."""
    run, playbook, started, outcome, complete, interrupted, guests, cycles, low, value, high = row
    pause = None
    if low is not None and value is not None and high is not None:
        pause = Measure(low_ns=low, value_ns=value, high_ns=high)
    ended = bool(complete), bool(interrupted)
    return RunSummary(run, playbook, started, Outcome(outcome), *ended, guests, cycles, pause)
