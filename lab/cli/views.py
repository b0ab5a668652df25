"""Which view a person gets: live on a terminal, lines elsewhere, none when asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.host.clocks import HostClock
from lab.image.build import Progress
from lab.ports import View
from lab.report.live import view


@contextmanager
def view_for(guests: Sequence[str], *, quiet: bool) -> Iterator[tuple[View, Progress]]:
    """The view of a run, and the progress of the image build that may come before it."""
    with view(HostClock(), guests, quiet=quiet) as shown:
        yield shown, shown.progress


@contextmanager
def build_progress() -> Iterator[Progress]:
    """The progress of an image build by itself."""
    with view_for((), quiet=False) as (_, progress):
        yield progress
