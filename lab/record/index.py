"""The index of old runs: a line about each, in SQLite, so that every run is judged once by each build.

The histories are the record, and the index is only derived from them: a run is judged again when its history
has changed or this program has, and the whole index is made anew when it is lost, damaged or another
version's. What does not depend on the build (playbook, time, tags) counts from the lines of other builds as
well, so that runs which nobody asks for are not judged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.record import EVENTS
from lab.record.model_clock import Measure

if TYPE_CHECKING:
    from lab.core.comparison import RunFigures
    from lab.record.run import Run

Named = TypeVar("Named", "RunSummary", "RunFigures")

INDEX = "history.sqlite"
LAB = Path(__file__).parents[1]
VERSION = 2
"""The layout's; SQLite's user_version."""
BATCH = 50
"""After so many runs that were judged anew the index is written."""
_WAIT_S = 1.0
"""How long another process may take to write to the index. After that the runs are judged without it."""
_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Errors of an index that is in use by another process, and is not damaged."""


class _IndexLine(NamedTuple):
    """A line without the figures, as the table has it. tags: as JSON."""

    folder: str
    size: int
    mtime_ns: int
    build: str
    id: str
    playbook: str
    started: str
    tags: str
    outcome: str
    complete: int
    interrupted: int
    guests: int
    cycles: int
    pause_low_ns: int | None
    pause_value_ns: int | None
    pause_high_ns: int | None


_NUMBERS = {"size", "mtime_ns", "complete", "interrupted", "guests", "cycles"}
_LAYOUT = ", ".join(
    f"{name} {'INTEGER' if name in _NUMBERS or name.endswith('_ns') else 'TEXT'}"
    for name in _IndexLine._fields
)
_LINE = ", ".join(_IndexLine._fields)


@dataclass(frozen=True)
class RunSummary:
    """A run in a line. id: its folder's name once it is listed, by which commands find it; that
    differs from the id in its record when the folder was renamed or copied. started: ISO 8601, UTC. guests:
    their number. cycles: with a freeze, of the guest that has most of them; of a matrix in all cells
    together. longest_pause: None when no pause was measured.
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
    tags: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """Its outcome, or "running" or "interrupted"."""
        return "running" if self.running else "interrupted" if self.interrupted else self.outcome.value


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
        tags=run.tags,
    )


@dataclass(frozen=True)
class RunFilter:
    """Which runs are asked for. playbooks: names, or patterns with * and ?; states: see RunSummary.state; of
    each any, all when empty. since, until: when it was started. tags: it has all of them."""

    playbooks: tuple[str, ...] = ()
    states: frozenset[str] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    tags: frozenset[str] = frozenset()

    def may_be(self, playbook: str, started: str, tags: Iterable[str]) -> bool:
        """Whether a run is asked for, as far as that does not depend on what is judged. A run whose time is
        damaged is not, when a time is asked for."""
        if self.playbooks and not any(fnmatchcase(playbook, one) for one in self.playbooks):
            return False
        if not self.tags <= set(tags):
            return False
        if self.since is None and self.until is None:
            return True
        try:
            at = datetime.fromisoformat(started)
        except ValueError:
            return False
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return (self.since is None or self.since <= at) and (self.until is None or at <= self.until)

    def is_of(self, run: RunSummary) -> bool:
        return (not self.states or run.state in self.states) and self.may_be(
            run.playbook, run.started, run.tags
        )


EVERY_RUN = RunFilter()


def index_of(home: Path) -> Path:
    """The index of a state folder."""
    return home / INDEX


def summaries(
    folders: Sequence[Path],
    most: int,
    index: Path,
    wanted: RunFilter = EVERY_RUN,
    unread: Callable[[Path], object] = lambda _: None,
) -> list[tuple[Path, RunSummary]]:
    """The first `most` of these runs that are wanted and can be read, with their folders, in this order.
    index: the file. unread: called with each folder that cannot be read."""
    with closing(_Index(index)) as known:
        found: list[tuple[Path, RunSummary]] = []
        for folder in folders:
            if len(found) == most:
                break
            try:
                summary = known.get(folder, wanted)
            except RecordError:
                unread(folder)
                continue
            if summary is not None:
                found.append((folder, summary))
        return found


def figures_of_runs(folders: Sequence[Path], index: Path) -> list[RunFigures]:
    """What is compared of these runs, in this order. RecordError when one cannot be read."""
    with closing(_Index(index)) as known:
        return [known.figures(folder) for folder in folders]


def judged(folder: Path, index: Path) -> Run:
    """Judge a run from its history, and put it into the index. RecordError when it cannot be read."""
    with closing(_Index(index)) as known:
        return known.judged(folder)[0]


def forget(folders: Sequence[Path], index: Path) -> None:
    """Remove the lines of runs that are gone."""
    with closing(_Index(index)) as known:
        known.forget([_name(folder) for folder in folders])


@cache
def build() -> str:
    """What this program is, as far as it judges: what is in its files. Another commit of a clone with the
    same code of judging is the same build."""
    digest = hashlib.sha256()
    for path in sorted((*LAB.glob("core/**/*.py"), *LAB.glob("record/*.py"))):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(LAB)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


class _Index:
    """The index, as it was when it was first asked. What is judged anew is written to it every BATCH runs, so
    that an interrupted listing does not start over, and by close()."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new, self._texts = dict[str, _IndexLine](), dict[str, str]()
        self._gone: list[str] = []
        self._next_write = BATCH

    @cached_property
    def _known(self) -> dict[str, _IndexLine]:
        try:
            return {line.folder: line for line in self._read()}
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # Of extended codes the last byte is the kind (sqlite.org/rescode.html).
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _IN_USE:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)
            return {}

    @cached_property
    def _reader(self) -> sqlite3.Connection:
        return self._open()

    def get(self, folder: Path, wanted: RunFilter) -> RunSummary | None:
        """None when it is not wanted. RecordError when it is no run, or cannot be read."""
        line = self._line(folder)
        if line is not None:
            with contextlib.suppress(ValueError):
                if not wanted.may_be(line.playbook, line.started, _tags(line)):
                    return None
                if line.build == build():
                    return self._wanted(folder, _summary(line), wanted)
        run, running = self.judged(folder)
        return self._wanted(folder, replace(summary_of(run), running=running), wanted)

    def figures(self, folder: Path) -> RunFigures:
        """RecordError when it cannot be read."""
        from lab.record.figures import figures_of, from_text

        line = self._line(folder)
        if line is not None and line.build == build():
            with contextlib.suppress(ValueError, sqlite3.Error, UnicodeDecodeError):
                return self._named(folder, from_text(self._figures_text(_name(folder))))
        return self._named(folder, figures_of(self.judged(folder)[0]))

    def judged(self, folder: Path) -> tuple[Run, bool]:
        """Judge a run. Returns it, and whether it is still being written: then it is not kept."""
        # What it takes to judge a run is not loaded for those that are known.
        from lab.record import journal
        from lab.record.figures import figures_of, to_text
        from lab.record.run import judge

        running, state = journal.is_written(folder), None
        with contextlib.suppress(OSError):
            state = (folder / EVENTS).stat()  # before it is read: what comes meanwhile is judged later
        run, _ = judge(journal.read_history(folder))
        if state is not None and not running and self._is_here(folder):
            key = _name(folder), state.st_size, state.st_mtime_ns, build()
            self._new[_name(folder)] = _line(key, summary_of(run))
            with contextlib.suppress(RecordError):  # it is listed all the same
                self._texts[_name(folder)] = to_text(figures_of(run))
            if len(self._new) >= self._next_write:
                self._write()
                self._next_write = len(self._new) + BATCH
        return run, running

    def forget(self, names: Sequence[str]) -> None:
        """Remove these lines."""
        self._gone += names

    def close(self) -> None:
        """Nothing is lost when it cannot be written: the runs are judged again the next time."""
        if "_reader" in self.__dict__:
            self._reader.close()
        if self._new or self._gone:
            self._write()

    def _write(self) -> None:
        rows = [(*line, self._texts.get(name)) for name, line in self._new.items()]
        marks = ", ".join("?" * (len(_IndexLine._fields) + 1))
        with contextlib.suppress(sqlite3.Error), closing(self._open()) as database:
            database.execute("BEGIN IMMEDIATE")
            if _version(database) != VERSION:
                database.execute("DROP TABLE IF EXISTS runs")
                database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute(
                f"CREATE TABLE IF NOT EXISTS runs ({_LAYOUT}, figures TEXT, PRIMARY KEY (folder)) STRICT"
            )
            database.executemany(f"INSERT OR REPLACE INTO runs VALUES ({marks})", rows)  # noqa: S608
            database.executemany("DELETE FROM runs WHERE folder = ?", [(name,) for name in self._gone])
            database.execute("COMMIT")
            self._new, self._texts, self._gone = {}, {}, []

    def _wanted(self, folder: Path, summary: RunSummary, wanted: RunFilter) -> RunSummary | None:
        return self._named(folder, summary) if wanted.is_of(summary) else None

    def _named(self, folder: Path, run: Named) -> Named:
        """A run of this state folder has its folder's name, whatever id its record has."""
        return replace(run, id=_name(folder)) if self._is_here(folder) else run

    def _line(self, folder: Path) -> _IndexLine | None:
        """The line of a history that has not changed."""
        if not self._is_here(folder):
            return None
        try:
            state = (folder / EVENTS).stat()
        except OSError:
            return None
        line = self._known.get(_name(folder))
        if line is None or (line.size, line.mtime_ns) != (state.st_size, state.st_mtime_ns):
            return None
        return line

    def _is_here(self, folder: Path) -> bool:
        """Whether it is a run of this state folder: of others nothing is kept."""
        return folder.parent == self._path.parent / "runs"

    def _read(self) -> Iterator[_IndexLine]:
        if not self._path.exists():
            return
        with closing(self._open()) as database:
            if _version(database) == VERSION:
                yield from map(_IndexLine._make, database.execute(f"SELECT {_LINE} FROM runs"))  # noqa: S608

    def _figures_text(self, name: str) -> str:
        """ValueError when there are none."""
        row = self._reader.execute("SELECT figures FROM runs WHERE folder = ?", (name,)).fetchone()
        if row is None or not isinstance(row[0], str):
            raise ValueError("no figures")
        return row[0]

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)


def _version(database: sqlite3.Connection) -> int:
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    return version


def _name(folder: Path) -> str:
    """The folder's key: its name may be no UTF-8, and then it has escapes."""
    return folder.name.encode("utf-8", "backslashreplace").decode()


def _line(key: tuple[str, int, int, str], run: RunSummary) -> _IndexLine:
    folder, size, mtime_ns, made_by = key
    pause = run.longest_pause
    bounds = (None, None, None) if pause is None else (pause.low_ns, pause.value_ns, pause.high_ns)
    return _IndexLine(
        *(folder, size, mtime_ns, made_by),
        *(run.id, run.playbook, run.started, json.dumps(run.tags), run.outcome.value),
        *(int(run.complete), int(run.interrupted), run.guests, run.cycles),
        *bounds,
    )


def _tags(line: _IndexLine) -> tuple[str, ...]:
    """ValueError when the line is damaged."""
    tags = json.loads(line.tags)
    return tuple(map(str, tags)) if isinstance(tags, list) else ()


def _summary(line: _IndexLine) -> RunSummary:
    """ValueError when the line is damaged."""
    low, value, high = line.pause_low_ns, line.pause_value_ns, line.pause_high_ns
    pause = None
    if low is not None and value is not None and high is not None:
        pause = Measure(low_ns=low, value_ns=value, high_ns=high)
    ended = bool(line.complete), bool(line.interrupted)
    return RunSummary(
        *(line.id, line.playbook, line.started, Outcome(line.outcome), *ended),
        line.guests,
        line.cycles,
        pause,
        tags=_tags(line),
    )
