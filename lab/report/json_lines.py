"""The view of `run --json-lines`: progress as lines on standard output, and nothing else there.

Like every view it must not delay the run: lines are put into a queue, and a thread writes each as soon as
it can, past Python's buffers. A reader that stands still holds nothing up but the end of the command. Once
the reader has gone, nothing more is written and the run goes on.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from lab import __version__
from lab.core.clock import Stamp
from lab.core.history import (
    CellReached,
    EventHappened,
    EventsAnnounced,
    GateAsked,
    GuestBooted,
    HistoryEvent,
    RunStarted,
    ToleranceTried,
)
from lab.core.verdict import Outcome
from lab.ports import Clock, NullView
from lab.record.follow import EndedCycle
from lab.record.model import Run
from lab.report.live import DOING
from lab.report.progress_lines import (
    SCHEMA,
    ProgressAnnounced,
    ProgressCell,
    ProgressCycle,
    ProgressCycleEnded,
    ProgressDomain,
    ProgressFailed,
    ProgressFrozen,
    ProgressGate,
    ProgressGuest,
    ProgressHappening,
    ProgressImage,
    ProgressLine,
    ProgressNote,
    ProgressPhase,
    ProgressResumed,
    ProgressRunBegan,
    ProgressRunEnded,
    ProgressStarted,
    ProgressTried,
    text_of,
)
from lab.threads import Worker

STDOUT = 1


class JsonLinesView(NullView):
    """Writes a line for each call. fd: the descriptor to write to. Leaving the context waits until all has
    been written; OSError when the descriptor took no more, unless its reader has left."""

    def __init__(self, clock: Clock, fd: int = STDOUT) -> None:
        self._clock, self._fd = clock, fd
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._failed: OSError | None = None
        self._thread = Worker(target=self._work, name="json-lines", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.put(None)
        self._thread.join()
        if self._failed is not None and not isinstance(self._failed, BrokenPipeError):
            raise self._failed

    # -- ports.View ------------------------------------------------------------------------------------

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        self._put(ProgressPhase(name, guest, length_ns, DOING.get(name, "")))

    def note(self, text: str) -> None:
        for line in text.splitlines():
            self._put(ProgressNote(line))

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None:  # noqa: ARG002 - ports.View's
        self._put(ProgressFrozen(budget_ns))

    def resumed(self) -> None:
        self._put(ProgressResumed())

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        self._put(ProgressDomain(label, state, number, of))

    def cycle(self, number: int, of: int) -> None:
        self._put(ProgressCycle(number, of))

    def progress(self, stage: str, fraction: float | None) -> None:
        self._put(ProgressImage(stage, fraction))

    # -- what is no view's -----------------------------------------------------------------------------

    def started(self, playbook: str, guests: Sequence[str], cells: Sequence[str]) -> None:
        """The first line."""
        self._put(ProgressStarted(SCHEMA, __version__, playbook, tuple(guests), tuple(cells)))

    def happened(self, event: HistoryEvent, path: str) -> None:
        """An event was appended to the history of the run in `path`; most have no line."""
        match event:
            case RunStarted():
                self._put(ProgressRunBegan(event.id, path, event.host.accelerator))
            case CellReached():
                state = "refused" if event.refused else "skipped" if event.skipped else "started"
                self._put(ProgressCell(event.id, state, event.skipped))
            case GuestBooted():
                how = event.timings.get("started", "")
                self._put(ProgressGuest(event.guest, event.cell or "", str(how)))
            case EventsAnnounced():
                for one in event.events:
                    notice, at = one.notice, _iso(one.not_before)
                    self._put(ProgressAnnounced(event.cycle, one.id, notice.type, notice.resources, at))
            case EventHappened(happening=one):
                self._put(ProgressHappening(one.kind, one.event, one.group, one.guest, one.text))
            case GateAsked():
                self._put(ProgressGate(event.guest, event.gate, event.ok, event.why))
            case ToleranceTried():
                self._put(ProgressTried(event.workload, event.cell, event.pause_ns, event.outcome))
            case _:
                pass

    def cycle_ended(self, one: EndedCycle) -> None:
        """A guest's cycle was judged."""
        cycle, resync = one.cycle, one.cycle.resync
        self._put(
            ProgressCycleEnded(
                guest=one.guest,
                cell=one.cell,
                cycle=cycle.index,
                control=cycle.control,
                method=cycle.method,
                outcome=cycle.outcome,
                pause=cycle.pause,
                offset=cycle.offset,
                resync=resync.outcome if resync is not None else "",
                in_time_ns=resync.time_ns if resync is not None else None,
            )
        )

    def run_ended(self, run: Run, path: str, exit_code: int, failure: str) -> None:
        """The last line of a run that was judged."""
        counts = {outcome.value: sum(f.outcome is outcome for f in run.findings) for outcome in Outcome}
        self._put(
            ProgressRunEnded(
                run=run.id,
                path=path,
                playbook=run.playbook.name,
                outcome=run.outcome,
                exit_code=exit_code,
                complete=run.complete,
                interrupted=run.interrupted,
                findings=counts,
                failure=failure,
            )
        )

    def failed(self, failure: str, exit_code: int) -> None:
        """The last line when there is no run to judge."""
        self._put(ProgressFailed(failure, exit_code))

    def _put(self, line: ProgressLine) -> None:
        self._lines.put(text_of(line, _iso(self._clock.now())).encode() + b"\n")

    def _work(self) -> None:
        """The thread."""
        while (line := self._lines.get()) is not None:
            if self._failed is not None:
                continue
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError as error:
                self._failed = error


def _iso(stamp: Stamp) -> str:
    """The stamp's CLOCK_REALTIME, UTC, in milliseconds."""
    at = datetime.fromtimestamp(stamp.real_ns / 1e9, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
