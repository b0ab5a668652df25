"""What `run` writes for other programs while it runs: the metrics file, and progress as lines of JSON."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cli import streams
from lab.core.history import CycleEnded
from lab.errors import FreezelabError, Interrupted, MachineError
from lab.record.events import Entry
from lab.record.follow import FollowedRun
from lab.record.state_files import draft_of

if TYPE_CHECKING:
    from lab.core.plan import Plan
    from lab.record.run import Run
    from lab.report.json_lines import JsonLinesView


@dataclass
class LiveOutputs:
    """For one run. metrics: a file for node_exporter's textfile collector. lines: the view of --json-lines.
    note: told, once, when something cannot be written; the run goes on."""

    metrics: Path | None = None
    lines: JsonLinesView | None = None
    note: Callable[[str], None] = lambda _: None
    _followed: dict[Path, FollowedRun] = field(default_factory=dict)
    _judged: tuple[Run, Path] | None = None
    _noted: bool = False
    _over: bool = False

    def check(self) -> None:
        """MachineError when the metrics file could not be written: better known before the run than after
        it."""
        if self.metrics is None:
            return
        path = self.metrics.resolve()
        if path.exists() and not path.is_file() and not path.is_dir():
            return  # a device, such as /dev/stdout
        draft = draft_of(path)
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            draft.touch()
        except OSError as error:
            raise MachineError(
                f"cannot be written: {error.strerror}",
                where=str(self.metrics),
                hint="--metrics needs a file in a folder that may be written to",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def appended(self, folder: Path, entry: Entry) -> None:
        """An event was written to the history of the run in `folder`. At the end of a cycle, its guests run
        and nothing is being measured: it is judged here."""
        try:
            self._appended(folder, entry)
        except Interrupted:
            raise  # a signal: of the run, not of this
        except FreezelabError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - no output is worth a run
            self._fail(f"{type(error).__name__}: {error}")

    @contextmanager
    def opened(self, plan: Plan) -> Iterator[None]:
        """The lines' first and last one. Leaving it waits until all have been written, and raises Undelivered
        when standard output takes no more."""
        if self.lines is None:
            yield
            return
        self.lines.__enter__()
        try:
            cells = [cell.id for cell in plan.cells]
            guests = dict.fromkeys(guest.name for cell in plan.parts for guest in cell.guests)
            self.lines.started(plan.name, list(guests), cells)
            yield
        except FreezelabError as error:
            self._last_line(error.exit_code, str(error))
            raise
        finally:
            try:
                self.lines.__exit__()
            except OSError as error:
                raise streams.Undelivered(error.errno, error.strerror) from error

    def judged(self, run: Run, folder: Path) -> None:
        """The run was judged: what fails from now on does not change that."""
        self._judged = run, folder

    def ended(self, exit_code: int, failure: str = "") -> None:
        """All that the run was asked to show has been shown. MachineError when the metrics file cannot be
        written."""
        if self.metrics is not None and self._judged is not None:
            from lab.report.metrics import write_metrics

            write_metrics(self._judged[0], self.metrics)
        self._last_line(exit_code, failure)

    def _last_line(self, exit_code: int, failure: str) -> None:
        if self.lines is None or self._over:
            return
        self._over = True
        if self._judged is not None:
            self.lines.run_ended(self._judged[0], str(self._judged[1]), exit_code, failure)
        else:
            self.lines.failed(failure, exit_code)

    def _appended(self, folder: Path, entry: Entry) -> None:
        event = entry.event
        if self.lines is not None:
            self.lines.happened(event, str(folder))  # type: ignore[arg-type]
        if not isinstance(event, CycleEnded) or (self.lines is None and self.metrics is None):
            return
        followed = self._followed.setdefault(folder, FollowedRun(folder))
        new = followed.update()
        if not new:
            return
        if self.lines is not None:
            for one in new:
                self.lines.cycle_ended(one)
        if self.metrics is not None and (run := followed.run()) is not None:
            from lab.report.metrics import write_metrics

            write_metrics(run, self.metrics, in_progress=True)

    def _fail(self, why: str) -> None:
        if not self._noted:
            self._noted = True
            self.note(why)
