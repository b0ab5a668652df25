"""What goes on in a state folder now: the run in progress, or the last one, and metadata services."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import MachineError, RecordError, UsageError
from lab.events.client import SOCKET, Control
from lab.record import EVENTS
from lab.record.follow import FollowedRun
from lab.record.journal import is_written, read_history
from lab.record.model import Run
from lab.record.run import judge

MOST_LOOKED_AT = 5
"""So many of the latest runs are tried, until one can be read."""


@dataclass(frozen=True)
class RunState:
    """in_progress: it has not ended, so `run` has no outcome yet. frozen: guests that stand still now."""

    run: Run
    in_progress: bool
    frozen: int


class LiveState:
    """The state of `home`, the state folder. Safe from any thread."""

    def __init__(self, home: Path) -> None:
        self._home, self._lock = home, threading.Lock()
        self._followed: FollowedRun | None = None
        self._judged: tuple[tuple[Path, int, int], Run] | None = None

    def run(self) -> RunState | None:
        """The run in progress, or the last one that can be read; None without any. A cycle is judged once,
        when it is looked at first, and so is a run that has ended."""
        with self._lock:
            for folder in self._folders()[:MOST_LOOKED_AT]:
                try:
                    if (state := self._look(folder)) is not None:
                        return state
                except RecordError:
                    continue
        return None

    def services(self) -> Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]:
        """Each metadata service that answers, and its events."""
        found = []
        for path in sorted((self._home / "events").glob(f"*/{SOCKET}")):
            try:
                control = Control(self._home, path.parent.name)
                found.append((control.service(), control.events()))
            except (MachineError, UsageError):
                continue  # it has ended, or was killed
        return found

    def _folders(self) -> list[Path]:
        """Folders of runs, the latest first: their names begin with the time."""
        found = (path for path in (self._home / "runs").glob("*/") if not path.name.startswith("."))
        return sorted(found, key=lambda path: path.name, reverse=True)

    def _look(self, folder: Path) -> RunState | None:
        if is_written(folder):
            if self._followed is None or self._followed.folder != folder:
                self._followed = FollowedRun(folder)
            self._followed.update()
            run = self._followed.run()
            return None if run is None else RunState(run, True, len(self._followed.frozen))
        try:
            state = (folder / EVENTS).stat()
        except OSError:
            return None
        key = (folder, state.st_size, state.st_mtime_ns)
        if self._judged is None or self._judged[0] != key:
            self._judged = key, judge(read_history(folder))[0]
        return RunState(self._judged[1], False, 0)
