"""events.jsonl: the events of a run, one JSON object per line, appended and never changed.

lab.core.history has the kinds of events and their members. The controller numbers its lines. The dead-man, a
separate process, writes to the same file; its lines have no number (DeadManActed).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lab.core.clock import Stamp
from lab.core.history import SCHEMA, HistoryEvent, RunEnded, RunStarted
from lab.core.history.encoding import line_of
from lab.errors import MachineError, RecordError
from lab.ports import Clock
from lab.record import EVENTS as EVENTS
from lab.record.events import DEADMAN, Entry, Envelope, entry_of, envelope

E = TypeVar("E", bound=HistoryEvent)


class FileJournal:
    """ports.Journal on a file. Each line is written to the kernel when it is appended, so it outlives this
    process; a crash of the host may lose the last seconds. A context manager.

    appended: called with each event that has been written, in the thread that appends it. It must not raise,
    and wait only at the end of a cycle or of the run: at other times guests may be frozen."""

    def __init__(self, folder: Path, clock: Clock, appended: Callable[[Entry], None] | None = None) -> None:
        self.path = folder / EVENTS
        self._appended = appended
        self._clock, self._sequence = clock, 0
        self._file = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as the run lives: is_written

    def append(self, event: HistoryEvent) -> None:
        now = self._clock.now()
        line = line_of(event, self._sequence, now) + "\n"
        whole = rest = line.encode("utf-8", "replace")
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            self._take_back(len(whole) - len(rest))
            raise MachineError(
                f"the history cannot be written: {error.strerror}", where=str(self.path)
            ) from error
        self._sequence += 1
        if self._appended is not None:
            self._appended(Entry(self._sequence - 1, now, event))

    def _take_back(self, written: int) -> None:
        """Remove the part of a line that was written before the disk was full, so that later events do not
        end up on the same line. Not if another process has written behind it."""
        if not written:
            return
        with contextlib.suppress(OSError):
            end = os.lseek(self._file, 0, os.SEEK_CUR)  # O_APPEND: where the last write of ours ended
            if os.fstat(self._file).st_size == end:
                os.ftruncate(self._file, end - written)

    def __enter__(self) -> FileJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """MachineError when the file cannot be synced, unless another error is being raised."""
        try:
            os.fsync(self._file)
        except OSError as failed:
            if error is None:
                raise MachineError(
                    f"the history cannot be written: {failed.strerror}", where=str(self.path)
                ) from failed
        finally:
            os.close(self._file)


def _opened(path: Path) -> io.BufferedReader:
    """A history, to be read. OSError when it is none; a named pipe is not waited for."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no file")
    return file


def is_written(folder: Path) -> bool:
    """True when the run in `folder` is alive: a process has its history open for writing."""
    try:
        with _opened(folder / EVENTS) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def has_id(folder: Path, run_id: str) -> bool:
    """True when the history in `folder` has this id, whatever the folder's name is."""
    try:
        with _opened(folder / EVENTS) as file:
            first = file.readline()
    except OSError:
        return False
    if run_id.encode("utf-8", "replace") not in first:
        return False
    given = envelope(first.decode("utf-8", "replace"))
    return given is not None and given.kind == RunStarted.KIND and given.data.get("id") == run_id


class NullJournal:
    """ports.Journal for a guest that belongs to no run."""

    def append(self, event: HistoryEvent) -> None:
        """Discard the event."""


@dataclasses.dataclass(frozen=True)
class History:
    """The events of a journal, in the order of the file. complete: the controller's last event is run-end.
    damage: the damage at its end, "" for none."""

    folder: Path
    entries: tuple[Entry, ...]
    complete: bool
    damage: str = ""

    def of(self, kind: type[E]) -> Iterator[E]:
        """All events of one kind."""
        return (entry.event for entry in self.entries if isinstance(entry.event, kind))

    @property
    def start(self) -> RunStarted:
        return next(self.of(RunStarted))

    @property
    def began(self) -> Stamp:
        """When its first event was written."""
        return self.entries[0].at

    @property
    def ended(self) -> Stamp:
        """When its last event was written."""
        return self.entries[-1].at


_OTHERS = re.compile(r'\{\s*"seq"\s*:\s*null\s*,\s*"kind"\s*:\s*"deadman"')
"""The beginning of a line of another process."""


def _in_sequence(line: str, sequence: int) -> Envelope | None:
    """The envelope of a line; None when it is not an event, or out of sequence."""
    given = envelope(line)
    if given is None or given.seq != (None if given.kind == DEADMAN else sequence):
        return None
    return given


def _parts(line: str) -> list[str]:
    """A line, or a truncated one and the dead-man's line behind it. None for a blank line."""
    edges = [0, *(found.start() for found in _OTHERS.finditer(line, 1)), len(line)]
    return [line[begin:end] for begin, end in pairwise(edges) if begin < end]


def read_history(folder: Path) -> History:
    """The journal of the run in `folder`.

    A truncated last line is omitted and reported in `damage`; lines of the dead-man may follow it.
    RecordError: no journal there, a damaged line before the end, an event with a wrong value, or a schema
    that this program does not know.
    """
    path = folder / EVENTS
    try:
        # newline: str.splitlines() would split at U+2028 and the like, which JSON leaves as they are.
        with io.TextIOWrapper(_opened(path), "utf-8", "replace", newline="\n") as file:
            entries, cut = _read(path, file)
    except FileNotFoundError:
        raise RecordError(f"there is no run here: {EVENTS} is missing", where=str(folder)) from None
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
    last = next(entry for entry in reversed(entries) if entry.seq is not None)
    complete = isinstance(last.event, RunEnded)
    damage = f"line {cut} is cut off" if cut else ""
    if not complete and not damage:
        damage = "the run was cut off before its end"
    return History(folder, tuple(entries), complete, damage)


def _read(path: Path, file: Iterable[str]) -> tuple[list[Entry], int]:
    """The events, and the number of a line that is cut off; 0 when none is. A line is read into its event as
    it comes, so that the text of a history is never in memory as a whole."""
    entries: list[Entry] = []
    sequence, cut = 0, 0
    lines = chain((line.removesuffix("\n") for line in file), ("",))
    for number, (line, following) in enumerate(pairwise(lines), 1):
        if not line:
            # The dead-man may begin a line of its own, whether the one before was cut off or not.
            cut = cut if cut or _OTHERS.match(following) else number
        for part in _parts(line):
            given = _in_sequence(part, sequence)
            if given is None and _OTHERS.match(part):
                continue  # the dead-man itself was cut short
            if given is None or given.kind != DEADMAN:
                if cut:
                    raise RecordError("damaged: this line is not an event in sequence", where=f"{path}:{cut}")
                if given is None:
                    cut = number
                    continue
                sequence += 1
            if not entries:
                _check_start(path, given)
            entries.append(_entry(path, number, part, given))
    if not entries:
        _check_start(path, None)
    return entries, cut


def _check_start(path: Path, first: Envelope | None) -> None:
    """RecordError unless the history begins with a run-start of a schema that is known here."""
    if first is None or first.kind != RunStarted.KIND:
        raise RecordError("the history does not begin with a run-start", where=str(path))
    if (schema := first.data.get("schema")) != SCHEMA:
        raise RecordError(
            f"its schema is {schema!r}, and this freezelab reads {SCHEMA}: use the one that made it",
            where=str(path),
        )


def _entry(path: Path, number: int, text: str, given: Envelope) -> Entry:
    try:
        return entry_of(text, given)
    except ValueError as error:
        raise RecordError(f"damaged: {given.kind}: {error}", where=f"{path}:{number}") from None
