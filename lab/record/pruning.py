"""Old runs, removed by number and age."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import MachineError
from lab.record import EVENTS
from lab.record.baselines import baseline_runs
from lab.record.index import forget, index_of
from lab.record.journal import is_written

REST_NS = 600 * 10**9
"""A run whose history was written less than this ago stays: the dead-man of a killed run may still write."""
GOING = ".removed-"
"""The beginning of a folder's name while it is removed."""


@dataclass(frozen=True)
class PrunedRuns:
    """What is to be removed. folders: of runs, the latest first. size: of their files, in bytes. stays: of
    the runs that number and age would remove, those that stay, and why. remaining: the number of runs left.
    """

    folders: tuple[Path, ...]
    size: int
    stays: tuple[tuple[str, str], ...]
    remaining: int


def prunable(home: Path, folders: Sequence[Path], keep: int, older_than_ns: int = 0) -> PrunedRuns:
    """The runs but the latest `keep`, if their history was last written more than `older_than_ns` ago. home:
    the state folder. folders: those of its runs, the latest first; what is no run stays.

    RecordError when the baselines cannot be read: nothing may be removed then."""
    kept, now = baseline_runs(home), time.time_ns()
    runs = [(folder, _written_ns(folder)) for folder in folders]
    known = [(folder, at) for folder, at in runs if at is not None]
    going, stays = list[Path](), list[tuple[str, str]]()
    for folder, at in known[keep:]:
        if now - at <= older_than_ns:
            continue
        why = _why_it_stays(folder, now - at, kept)
        if why:
            stays.append((folder.name, why))
        else:
            going.append(folder)
    return PrunedRuns(tuple(going), sum(map(_size, going)), tuple(stays), len(known) - len(going))


def remove(home: Path, going: PrunedRuns) -> int:
    """Remove the runs, but none that is running by now. Returns their number. MachineError for those that
    cannot be removed, after all others."""
    failures, done = list[tuple[Path, OSError]](), list[Path]()
    runs = home / "runs"
    for folder in going.folders:
        if is_written(folder):
            continue
        away = runs / f"{GOING}{folder.name}"
        try:
            folder.rename(away)  # at once: nobody finds half a run
            done.append(folder)
            shutil.rmtree(away)
        except OSError as error:
            failures.append((folder, error))
    forget(done, index_of(home))
    for left in runs.glob(f"{GOING}*"):
        shutil.rmtree(left, ignore_errors=True)
    if failures:
        folder, first = failures[0]
        more = f", and {len(failures) - 1} more" if len(failures) > 1 else ""
        raise MachineError(f"cannot be removed{more}: {first.strerror}", where=str(folder))
    return len(done)


def _why_it_stays(folder: Path, age_ns: int, baselines: frozenset[str]) -> str:
    if folder.name in baselines:
        return "a baseline names it"
    if folder.is_symlink():
        return "it is a link"
    if is_written(folder):
        return "it is running"
    return "it has just ended" if age_ns < REST_NS else ""


def _written_ns(folder: Path) -> int | None:
    try:
        return (folder / EVENTS).stat().st_mtime_ns
    except OSError:
        return None


def _size(folder: Path) -> int:
    total = 0
    for base, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(base) / name).lstat().st_size
            except OSError:
                continue
    return total
