"""A run in another process, watched from this terminal until it ends."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cli.views import view_for
from lab.errors import FreezelabError, Interrupted, MachineError
from lab.record.events import entry_of, envelope
from lab.record.journal import is_written
from lab.record.tail import Tail
from lab.report.watching import WatchedRun

if TYPE_CHECKING:
    from lab.core.history import RunEnded

PERIOD_S = 0.2
NICE = 10
"""A watcher must not take the time of what is measured."""


def watch(folder: Path) -> RunEnded | None:
    """Show the run in `folder` until it ends. Its last event; None when its process has died before."""
    if not is_written(folder):
        return _ended(folder)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    shown = view_for((), quiet=False)
    with shown:
        run, tail = WatchedRun(shown.threaded), Tail(folder)
        while True:
            alive = is_written(folder)  # before the reading: what is written last is not missed
            _feed(run, tail)
            if run.ended is not None or not alive:
                return run.ended
            time.sleep(PERIOD_S)


def _feed(run: WatchedRun, tail: Tail) -> None:
    for line in tail.lines():
        given = envelope(line)
        if given is not None:
            with contextlib.suppress(ValueError):
                run.add(entry_of(line, given))


def _ended(folder: Path) -> RunEnded | None:
    from lab.core.history import RunEnded
    from lab.record.journal import read_history

    return next(iter(read_history(folder).of(RunEnded)), None)


def failure_of(ended: RunEnded | None) -> FreezelabError | None:
    """Why the run ended early; None when it did not. Its exit code is that of the run."""
    if ended is None:
        return MachineError(
            "the run's process has died: its history has no end",
            hint="freezelab recover tidies up after it",
        )
    if ended.interrupted:
        return Interrupted(ended.failure or "the run was interrupted")
    return MachineError(ended.failure) if ended.failure else None
