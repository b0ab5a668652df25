"""Which view a person gets: live on a terminal, lines elsewhere, none when asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.image.build import Progress
from lab.ports import NullView, View
from lab.process.clock import HostClock
from lab.report.live import view
from lab.report.several_views import SeveralViews
from lab.session.signals import whole


class view_for:
    """The view of a run, and the progress of the image build that may come before it. No signal keeps it from
    giving the terminal back."""

    def __init__(self, guests: Sequence[str], *, quiet: bool, beside: NullView | None = None) -> None:
        """beside: another view, which somebody else opens and closes."""
        self._view = view(HostClock(), guests, quiet=quiet)
        self._beside = beside

    @whole
    def __enter__(self) -> tuple[View, Progress]:
        shown = self._view.__enter__()
        if self._beside is not None:
            shown = SeveralViews(shown, self._beside)
        return shown, shown.progress

    @whole
    def __exit__(self, *raised: object) -> None:
        self._view.__exit__(*raised)


@contextmanager
def build_progress() -> Iterator[Progress]:
    """The progress of an image build by itself."""
    with view_for((), quiet=False) as (_, progress):
        yield progress
