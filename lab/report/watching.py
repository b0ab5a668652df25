"""A run that another process executes, shown by its history: its events become the calls of a view."""

from __future__ import annotations

from lab.core.history import (
    CycleBegan,
    EventsAnnounced,
    GuestBooted,
    GuestsFrozen,
    ResumeCalled,
    RunEnded,
    RunStarted,
    WaveReached,
)
from lab.core.plan import Plan
from lab.record.events import Entry
from lab.report.live import ThreadedView


class WatchedRun:
    """Feeds a view. ended: the run's last event; None until then."""

    def __init__(self, view: ThreadedView) -> None:
        self._view = view
        self._plan: Plan | None = None
        self._budget_ns = 0
        self._frozen: set[str] = set()
        self._cycle = -1
        self.ended: RunEnded | None = None

    def add(self, entry: Entry) -> None:
        """Show an event."""
        self._view.happened(entry)
        event, at, view = entry.event, entry.at.raw_ns, self._view
        match event:
            case RunStarted():
                self._plan = event.plan
                view.phase("boot", since_raw_ns=at)
            case GuestBooted():
                view.phase("boot", guest=event.guest, since_raw_ns=at)
            case CycleBegan():
                self._budget_ns = event.budget_ns
                if event.cycle != self._cycle:
                    self._cycle = event.cycle
                    self._begin(event.cycle, at)
            case EventsAnnounced():
                view.phase("announce", since_raw_ns=at)
            case GuestsFrozen():
                self._frozen |= set(event.guests)
                view.phase("freeze", since_raw_ns=at)
                view.frozen(at, self._budget_ns)
            case ResumeCalled():
                self._frozen.discard(event.guest)
                if not self._frozen:
                    view.resumed()
                    watch = self._plan.cycle.watch_ns if self._plan is not None else None
                    view.phase("watch", length_ns=watch, since_raw_ns=at)
            case WaveReached():
                for name, number in event.domains:
                    state = "started" if event.when == "begin" else "done"
                    view.domain(f"{name} {number}", state, number=event.number, of=event.of)
            case RunEnded():
                self.ended = event
            case _:
                pass

    def _begin(self, cycle: int, at: int) -> None:
        if self._plan is None:
            return
        self._view.cycle(cycle + 1, max(cycle + 1, _total(self._plan)))
        self._view.phase("measure", length_ns=self._plan.cycle.before_ns, since_raw_ns=at)


def _total(plan: Plan) -> int:
    """The number of cycles of a whole run of the plan, as far as it is known before."""
    if plan.rollout is not None or plan.tolerance is not None or plan.side_by_side > 1:
        return 0
    return sum(part.repeat + part.control for part in plan.parts)
