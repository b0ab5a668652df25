"""Searches the shortest pause that a workload fails at: one cycle is one try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lab.core.history import HistoryEvent, ResumeCalled, StopCalled, ToleranceTried, WorkloadSampled
from lab.core.plan import Cell, ToleranceSpec
from lab.core.timeline import Call
from lab.core.units import format_duration
from lab.core.verdict import Outcome
from lab.core.workload.findings import outcome
from lab.core.workload.judge import measure_workload
from lab.core.workload.tolerance import ToleranceSearch, ToleranceTry
from lab.ports import Clock, Journal, View
from lab.record.workload_windows import window_of


@dataclass
class CycleEvents:
    """A journal that passes everything on, and keeps what a try is judged by."""

    journal: Journal
    sampled: WorkloadSampled | None = None
    stops: dict[str, Call] = field(default_factory=dict)
    resumes: dict[str, Call] = field(default_factory=dict)

    def append(self, event: HistoryEvent) -> None:
        """See ports.Journal."""
        self.journal.append(event)
        match event:
            case WorkloadSampled():
                self.sampled = event
            case StopCalled():
                self.stops[event.guest] = event.call
            case ResumeCalled():
                self.resumes[event.guest] = event.call

    def clear(self) -> None:
        """A new try begins."""
        self.sampled, self.stops, self.resumes = None, {}, {}

    def outcome(self, cell: Cell) -> Outcome:
        """Whether the workload has endured the try. The judge of the history has the last word: it knows the
        pause by all its witnesses, here it is known by the calls."""
        if self.sampled is None or self.sampled.problems:
            return Outcome.INCONCLUSIVE
        calls = [(stop, self.resumes[name]) for name, stop in self.stops.items() if name in self.resumes]
        (spec,) = cell.workloads
        (result,) = measure_workload([window_of(self.sampled, calls)], spec, cell.expectations.tolerance_ns)
        return outcome(spec, result)


Try = Callable[[int], None]
"""Runs one cycle with a pause of this length in ns."""


def search(
    cell: Cell, spec: ToleranceSpec, events: CycleEvents, first: int, run: Try, clock: Clock, view: View
) -> int:
    """Try one pause after another until the search ends. first: the index of its first cycle. Returns the
    number of cycles."""
    searching, tries, began = ToleranceSearch(spec), list[ToleranceTry](), clock.now().raw_ns
    (workload,) = cell.workloads
    while (pause := searching.next(tries, clock.now().raw_ns - began)) is not None:
        view.note(f"try {len(tries) + 1}: a pause of {format_duration(pause)}; {_known(searching, tries)}")
        events.clear()
        run(pause)
        verdict = events.outcome(cell)
        tries.append(ToleranceTry(pause, verdict))
        spent = clock.now().raw_ns - began
        ended = searching.ended_by(tries, spent)
        index = first + len(tries) - 1
        events.append(ToleranceTried(index, workload.name, pause, verdict, spent, ended, cell.id))
        view.note(f"  {format_duration(pause)}: {verdict}")
    return len(tries)


def _known(searching: ToleranceSearch, tries: Sequence[ToleranceTry]) -> str:
    """What the tries so far say."""
    result = searching.result(tries)
    passed, failed = result.longest_passed_ns, result.shortest_failed_ns
    low = f"{format_duration(passed)} passed" if passed is not None else "none has passed"
    return f"{low}, {format_duration(failed)} failed" if failed is not None else f"{low}, none has failed"
