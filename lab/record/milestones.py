"""When earlier runs of a playbook reached what, for the time that the present one still takes.

Of most lines only the beginnings are looked at, so that a run of megabytes takes some milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.history import (
    CellReached,
    CycleBegan,
    GuestBooted,
    GuestsFrozen,
    ResumeCalled,
    RunEnded,
    RunStarted,
)
from lab.core.plan import Plan
from lab.record import EVENTS
from lab.record.events import Entry, entry_of, envelope

KINDS = frozenset(
    kind.KIND for kind in (RunStarted, CellReached, GuestBooted, CycleBegan, GuestsFrozen, ResumeCalled)
)
MOST_RUNS = 10
LARGEST = 64 << 20
"""Longer histories are left out, in bytes."""

Mark = tuple[str, int]
"""A kind of event, and the number of events of this kind until then."""

_HEAD = re.compile(rb'\{"seq":\d+,"kind":"([a-z-]+)"')
_RAW = re.compile(rb'"raw_ns":(\d+)')


@dataclass(frozen=True)
class EarlierRun:
    """A run that came to its end. left_ns: from each mark to the end."""

    left_ns: Mapping[Mark, int]


class Marks:
    """Counts the marks of a run in progress."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, kind: str) -> Mark | None:
        """The mark that an event of this kind is; None when it is none."""
        if kind not in KINDS:
            return None
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return kind, self._counts[kind]


def earlier_runs(folders: Sequence[Path], plan: Plan) -> list[EarlierRun]:
    """Finished runs of the plan, with as many cycles. folders: of runs, the latest first."""
    found: list[EarlierRun] = []
    for folder in folders:
        if len(found) == MOST_RUNS:
            break
        if f"-{plan.name[:40]}-" in folder.name and (run := _read(folder / EVENTS, plan)) is not None:
            found.append(run)
    return found


def _read(path: Path, plan: Plan) -> EarlierRun | None:
    """None when it is not of this plan, has not come to its end, or cannot be read."""
    marks, at = Marks(), dict[Mark, int]()
    last = b""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        with path.open("rb") as file:
            for line in file:
                if not at and not is_of(line, plan):
                    return None
                head = _HEAD.match(line)
                if head is None:
                    continue
                last = line
                raw = _RAW.search(line)
                mark = marks.count(head[1].decode()) if raw is not None else None
                if mark is not None and raw is not None:
                    at[mark] = int(raw[1])
        end = _entry(last)
    except (OSError, ValueError):
        return None
    if end is None or not isinstance(end.event, RunEnded) or end.event.interrupted or end.event.failure:
        return None
    return EarlierRun({mark: end.at.raw_ns - raw_ns for mark, raw_ns in at.items()})


def _entry(line: bytes) -> Entry | None:
    text = line.decode("utf-8", "replace")
    given = envelope(text)
    return None if given is None else entry_of(text, given)


def is_of(line: bytes, plan: Plan) -> bool:
    """True when a history's first line is a start of this plan."""
    start = _entry(line)
    if start is None or not isinstance(start.event, RunStarted):
        return False
    given = start.event.plan
    counts = given.digest, given.repeat, given.control, len(given.cells)
    return counts == (plan.digest, plan.repeat, plan.control, len(plan.cells))
