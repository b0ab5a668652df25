"""Searches the shortest pause that a workload fails at: one cycle is one try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.core.history import HistoryEvent, ResumeCalled, StopCalled, ToleranceTried, WorkloadSampled
from lab.core.plan import Cell, Plan, ToleranceSpec
from lab.core.timeline import Call
from lab.core.units import format_duration
from lab.core.verdict import Outcome
from lab.core.workload.findings import outcome
from lab.core.workload.judge import WorkloadWindow, measure_workload
from lab.core.workload.tolerance import ToleranceSearch, ToleranceTry
from lab.errors import UsageError
from lab.ports import Clock, Journal, View
from lab.record.model import Run
from lab.record.workload_windows import window_of


@dataclass
class CycleEvents:
    """A journal that passes everything on, and keeps what a try is judged by: the cell's cycles so far, as a
    message may be delivered in the cycle before that in which it is acknowledged."""

    journal: Journal
    windows: list[WorkloadWindow] = field(default_factory=list)
    sampled: WorkloadSampled | None = None
    stops: dict[str, Call] = field(default_factory=dict)
    resumes: dict[str, Call] = field(default_factory=dict)

    def append(self, event: HistoryEvent) -> None:
        """See ports.Journal."""
        self.journal.append(event)
        match event:
            case WorkloadSampled():
                self.sampled = event
                self.windows.append(self._window(event))
                self.stops, self.resumes = {}, {}
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
        (spec,) = cell.workloads
        return outcome(spec, measure_workload(self.windows, spec, cell.expectations.tolerance_ns)[-1])

    def _window(self, sampled: WorkloadSampled) -> WorkloadWindow:
        calls = {
            name: (stop, self.resumes[name]) for name, stop in self.stops.items() if name in self.resumes
        }
        return window_of(sampled, calls)


Try = Callable[[int], None]
"""Runs one cycle with a pause of this length in ns."""


@dataclass(frozen=True)
class EarlierTries:
    """The tries of an earlier run of the same playbook, by cell. run: its id."""

    run: str
    by_cell: Mapping[str, Sequence[ToleranceTried]]

    @classmethod
    def of(cls, run: Run, ran: Plan, plan: Plan) -> EarlierTries:
        """ran: the plan of that run. UsageError when it differs in more than the range of its search, or
        searched nothing."""
        known = {cell.id: replace(cell, tolerance=None) for cell in ran.parts}
        if any(known.get(cell.id) != replace(cell, tolerance=None) for cell in plan.parts):
            what = f"it ran another playbook, or this one before it was changed ({run.playbook.name})"
            raise UsageError(what, where=f"run {run.id}", hint="start the search anew, without --resume")
        if not run.tolerances:
            raise UsageError("it searched nothing", where=f"run {run.id}", hint="run it without --resume")
        by_cell = {
            record.cell: [
                ToleranceTried(
                    one.cycle, record.workload, one.pause_ns, one.outcome, 0, cell=record.cell, of_run=run.id
                )
                for one in record.tries
            ]
            for record in run.tolerances
        }
        return cls(run.id, by_cell)

    def journalled(self, cell: Cell, journal: Journal) -> list[ToleranceTry]:
        """The cell's tries, now part of the history. One that was inconclusive is made again."""
        known = [one for one in self.by_cell.get(cell.id, ()) if one.outcome is not Outcome.INCONCLUSIVE]
        for one in known:
            journal.append(one)
        return [ToleranceTry(one.pause_ns, one.outcome) for one in known]


def is_complete(cell: Cell, tries: Sequence[ToleranceTry]) -> bool:
    """Whether these tries end the cell's search."""
    return cell.tolerance is not None and ToleranceSearch(cell.tolerance).next(tries) is None


def search(
    cell: Cell,
    spec: ToleranceSpec,
    events: CycleEvents,
    first: int,
    run: Try,
    clock: Clock,
    view: View,
    earlier: Sequence[ToleranceTry] = (),
) -> None:
    """Try one pause after another until the search ends. first: the index of its first cycle. earlier: tries
    that it goes on from."""
    searching, tries, began = ToleranceSearch(spec), list(earlier), clock.now().raw_ns
    (workload,) = cell.workloads
    while (pause := searching.next(tries, clock.now().raw_ns - began)) is not None:
        view.note(f"try {len(tries) + 1}: a pause of {format_duration(pause)}; {_known(searching, tries)}")
        events.clear()
        run(pause)
        verdict = events.outcome(cell)
        tries.append(ToleranceTry(pause, verdict))
        spent = clock.now().raw_ns - began
        ended = searching.ended_by(tries, spent)
        index = first + len(tries) - len(earlier) - 1
        events.append(ToleranceTried(index, workload.name, pause, verdict, spent, ended, cell.id))
        view.note(f"  {format_duration(pause)}: {verdict}")


def _known(searching: ToleranceSearch, tries: Sequence[ToleranceTry]) -> str:
    """What the tries so far say."""
    result = searching.result(tries)
    passed, failed = result.longest_passed_ns, result.shortest_failed_ns
    low = f"{format_duration(passed)} passed" if passed is not None else "none has passed"
    return f"{low}, {format_duration(failed)} failed" if failed is not None else f"{low}, none has failed"
