"""Several views of one run."""

from __future__ import annotations

from collections.abc import Callable

from lab.ports import NullView


class SeveralViews(NullView):
    """Views that show the same run."""

    def __init__(self, *views: NullView) -> None:
        self._views = views

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        self._each(lambda view: view.phase(name, guest=guest, length_ns=length_ns))

    def note(self, text: str) -> None:
        self._each(lambda view: view.note(text))

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None:
        self._each(lambda view: view.frozen(since_raw_ns, budget_ns))

    def resumed(self) -> None:
        self._each(lambda view: view.resumed())

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        self._each(lambda view: view.domain(label, state, number=number, of=of))

    def cycle(self, number: int, of: int) -> None:
        self._each(lambda view: view.cycle(number, of))

    def progress(self, stage: str, fraction: float | None) -> None:
        self._each(lambda view: view.progress(stage, fraction))

    def _each(self, call: Callable[[NullView], None]) -> None:
        for view in self._views:
            call(view)
