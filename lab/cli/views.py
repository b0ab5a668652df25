"""Which view a person gets: live on a terminal, lines elsewhere, none when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab.image.build import Progress
from lab.ports import NullView, View
from lab.process.clock import HostClock
from lab.process.signals import Signals, whole
from lab.record.events import Entry
from lab.report.live import ThreadedView, view
from lab.report.several_views import SeveralViews

if TYPE_CHECKING:
    from lab.core.plan import Plan
    from lab.record.milestones import EarlierRun

Appended = Callable[[Path, Entry], None]


def _earlier(plan: Plan) -> list[EarlierRun]:
    """The finished runs of the plan in the state folder."""
    from lab.record.milestones import earlier_runs
    from lab.session.run_folders import run_folders

    return earlier_runs(run_folders(), plan)


class view_for:
    """The view of a run, and the progress of the image build that may come before it. No signal keeps it from
    giving the terminal back."""

    def __init__(self, guests: Sequence[str], *, quiet: bool, beside: NullView | None = None) -> None:
        """beside: another view, which somebody else opens and closes."""
        self._view = view(HostClock(), guests, quiet=quiet, earlier=_earlier)
        self._beside = beside

    @property
    def threaded(self) -> ThreadedView:
        """The view, which is told of events as well. TypeError when it is quiet."""
        if not isinstance(self._view, ThreadedView):
            raise TypeError("a quiet view is not told of events")
        return self._view

    def appended(self, also: Appended) -> Appended:
        """What is to be called with each event of the run's history. also: is called as well."""
        if not isinstance(self._view, ThreadedView):
            return also
        happened = self._view.happened

        def both(folder: Path, entry: Entry) -> None:
            happened(entry)
            also(folder, entry)

        return both

    @whole
    def __enter__(self) -> tuple[View, Progress]:
        shown = self._view.__enter__()
        Signals.notes_to(shown.note)
        if self._beside is not None:
            shown = SeveralViews(shown, self._beside)
        return shown, shown.progress

    @whole
    def __exit__(self, *raised: object) -> None:
        Signals.notes_to(None)
        self._view.__exit__(*raised)


@contextmanager
def build_progress() -> Iterator[Progress]:
    """The progress of an image build by itself."""
    with view_for((), quiet=False) as (_, progress):
        yield progress
