"""events.jsonl: what happened, one JSON object a line, appended and never changed.

Every line has seq, kind, raw_ns and real_ns (the host's MONOTONIC_RAW and REALTIME at writing), and
guest and cycle where they apply. The kinds, in the order in which they come:

    run-start   schema, id, plan, host                 once
    cell        id, began | id, skipped, refused         a cell of the matrix begins, or is not run and why
    boot        timings of a guest's start
    cycle       frozen, method, patch, impact, budget_ns, cell    opens a guest's cycle
    facts       when (before, after), facts
    setup       setup                                   the time-sync set-up before the freeze
    readings    readings: t1 raw, real; t2 real, mono, boot, raw; t3 the same; t4 raw, real; resolution;
                then what there is of: channel ("ssh" if not said); passing: arrived, least, left, most
    freeze      guests, method                          all of them stand still now
    stop        call                                    called, returned, event
    resume      call
    steps       steps of freeze and resume: name, began_raw_ns, ended_raw_ns
    exchange    called_off, cut                         in-place and the like, when there is something to tell
    proof       proof                                   with prove_memory
    cpu         used_ns
    patch       ok, why, facts, steps
    verified    before, after, why                      versions of what was patched
    samples     sampler
    beats       beats: sequence, sent raw, arrived raw, real
    resync      said
    watched     claims, effects                         what programs in the guest said and saw
    problem     text
    cycle-end   host_step_ns
    rollout     seed, by, waves: guests of each wave         before its first wave
    wave        number, of, domains: [set, domain], guests, when (begin, end)
    announced   events, time_factor                     of a cycle; each as core.scheduled.model.Event
    notice      happening                               core.scheduled.model.Happening, as it is learnt of
    handler     end, cell                               core.handlers.HandlerEnd: it runs no more
    service     trouble, cell                           what was wrong with the metadata service, in the end
    gate        gate, ok, why, took_ns                  of one guest, after its domain's cycle
    rollout-end ended (complete, stopped), why, wave
    run-end     interrupted, failure, host              once; missing when the run was cut off
    deadman     act (resumed, failed, …), why, call (as in resume) | null, text

A deadman event is the dead-man's, a process of its own that writes to the same file while the controller
writes, or when it is gone: seq is null, so it is not counted in the sequence, and it may come anywhere, also
on the rest of a line that the controller did not finish.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.core.clock import GuestClock
from lab.core.timeline import Heartbeat, Reading
from lab.errors import MachineError, RecordError
from lab.ports import Clock
from lab.record.shapes import wrong

EVENTS = "events.jsonl"
SCHEMA = "freezelab.events/1"
DEADMAN = "deadman"
ORDER = (GuestClock.REAL, GuestClock.MONO, GuestClock.BOOT, GuestClock.RAW)


def _plain(value: object) -> object:
    if isinstance(value, Reading):
        return [
            value.t1.raw_ns, value.t1.real_ns,
            *(value.t2[c] for c in ORDER), *(value.t3[c] for c in ORDER),
            value.t4.raw_ns, value.t4.real_ns, value.resolution_ns,
            *((value.channel,) if value.passing is not None or value.channel != "ssh" else ()),
            *(dataclasses.astuple(value.passing) if value.passing is not None else ()),
        ]  # fmt: skip
    if isinstance(value, Heartbeat):
        return [value.sequence, value.sent_raw_ns, value.arrived.raw_ns, value.arrived.real_ns]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"cannot be journalled: {type(value).__name__}")


class FileJournal:
    """ports.Journal on a file. A line is handed to the kernel when it is appended; it outlives this
    process, and a crash of the host may cost the last seconds. A context manager."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.path = folder / EVENTS
        self._clock, self._sequence = clock, 0
        self._file = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as the run lives: is_written

    def append(self, kind: str, guest: str = "", cycle: int = -1, **data: Any) -> None:
        now = self._clock.now()
        event: dict[str, Any] = {"seq": self._sequence, "kind": kind}
        if guest:
            event["guest"] = guest
        if cycle >= 0:
            event["cycle"] = cycle
        event |= {"raw_ns": now.raw_ns, "real_ns": now.real_ns} | data
        line = json.dumps(event, default=_plain, separators=(",", ":"), ensure_ascii=False) + "\n"
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

    def _take_back(self, written: int) -> None:
        """The piece of a line that was written when the disk was full: what comes later, when there is room
        again, would be on the same line. Not when somebody else has written behind it."""
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
        """MachineError when what was written cannot be kept, unless something else has failed already."""
        try:
            os.fsync(self._file)
        except OSError as failed:
            if error is None:
                raise MachineError(
                    f"the history cannot be written: {failed.strerror}", where=str(self.path)
                ) from failed
        finally:
            os.close(self._file)


def is_written(folder: Path) -> bool:
    """Whether the run in `folder` is alive: a process has its history open for writing."""
    try:
        with (folder / EVENTS).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Nowhere:
    """ports.Journal of a guest that belongs to no run."""

    def append(self, kind: str, guest: str = "", cycle: int = -1, **data: Any) -> None:
        """Forget it."""


@dataclasses.dataclass(frozen=True)
class History:
    """A journal read back, events in the order of the file. complete: the controller's last event is run-end.
    damage: what is wrong with its end."""

    folder: Path
    events: tuple[dict[str, Any], ...]
    complete: bool
    damage: str = ""

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        return (event for event in self.events if event["kind"] == kind)


_OTHERS = re.compile(r'\{\s*"seq"\s*:\s*null\s*,\s*"kind"\s*:\s*"deadman"')
"""How a line begins that another process wrote."""


def _event(line: str, sequence: int) -> dict[str, Any] | None:
    """None when it is no event, or not in sequence."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str) or "seq" not in event:
        return None
    wanted = None if event["kind"] == DEADMAN else sequence
    # A bool is an int to Python, and True is 1.
    return event if event["seq"] == wanted and not isinstance(event["seq"], bool) else None


def _parts(line: str) -> list[str]:
    """A line, or the piece of one that was cut off and what the dead-man wrote behind it. None of a blank
    line."""
    edges = [0, *(found.start() for found in _OTHERS.finditer(line, 1)), len(line)]
    return [line[begin:end] for begin, end in pairwise(edges) if begin < end]


def read_history(folder: Path) -> History:
    """The journal of the run in `folder`.

    A last line that was cut off is left out and told in `damage`; what the dead-man wrote may come after it.
    RecordError: no journal there, a damaged line before the end, an event with a wrong value, or a schema
    that this program does not know.
    """
    path = folder / EVENTS
    try:
        # Not splitlines(): it also splits at U+2028 and the like, which JSON leaves as they are.
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        raise RecordError(f"no run here: {EVENTS} is missing", where=str(folder)) from None
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
    events: list[dict[str, Any]] = []
    texts: list[tuple[int, str]] = []  # of each event, with its line
    sequence, cut = 0, 0  # cut: the number of a damaged line
    for number, line in enumerate(lines, 1):
        if not line and number < len(lines):
            # The dead-man may begin a line of its own, whether the one before was cut off or not.
            cut = cut if cut or _OTHERS.match(lines[number]) else number
        for part in _parts(line):
            event = _event(part, sequence)
            if event is None and _OTHERS.match(part):
                continue  # the dead-man itself was cut short
            if event is not None and event["kind"] == DEADMAN:
                events.append(event)
                texts.append((number, part))
                continue
            if cut:
                raise RecordError("damaged: this line is no event in sequence", where=f"{path}:{cut}")
            if event is None:
                cut = number
            else:
                events.append(event)
                texts.append((number, part))
                sequence += 1
    own = [event for event in events if event["kind"] != DEADMAN]
    if not own or events[0]["kind"] != "run-start":
        raise RecordError("the history does not begin with a run-start", where=str(path))
    if own[0].get("schema") != SCHEMA:
        raise RecordError(
            f"unknown schema {own[0].get('schema')!r}, this program reads {SCHEMA}", where=str(path)
        )
    for event, (number, text) in zip(events, texts, strict=True):
        if trouble := wrong(event, text):
            raise RecordError(f"damaged: {event['kind']}: {trouble}", where=f"{path}:{number}")
    complete = own[-1]["kind"] == "run-end"
    damage = f"line {cut} is cut off" if cut else ""
    if not complete and not damage:
        damage = "the run was cut off before its end"
    return History(folder, tuple(events), complete, damage)
