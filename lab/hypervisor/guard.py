"""The second pair of hands on the budget: a thread that resumes the guests should the controller be
held up, by a terminal that is stopped, a disk that hangs, or a patch that does not give back control."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from lab.core.units import NS_PER_S
from lab.errors import FreezelabError
from lab.ports import Clock, Resumed


class BudgetGuard:
    """ports.Guard. Use it in a `with` block; leaving it disarms it.

    resume: resumes one guest by name. at_raw_ns: when to act, host MONOTONIC_RAW.
    """

    def __init__(
        self, clock: Clock, resume: Callable[[str], Resumed], guests: Sequence[str], at_raw_ns: int
    ) -> None:
        self._clock, self._resume, self._guests, self._at = clock, resume, guests, at_raw_ns
        self._disarmed = threading.Event()
        self._lock = threading.Lock()
        self._calls: dict[str, Resumed] = {}
        self._taken: set[str] = set()
        self._thread = threading.Thread(target=self._watch, name="budget-guard", daemon=True)

    def __enter__(self) -> BudgetGuard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._disarmed.set()
        self._thread.join()

    def resumed(self, guest: str) -> Resumed | None:
        """How the guard resumed the guest; None when it did not, and now will not."""
        with self._lock:
            self._taken.add(guest)
            return self._calls.get(guest)

    def _watch(self) -> None:
        left = (self._at - self._clock.now().raw_ns) / NS_PER_S
        if self._disarmed.wait(max(0.0, left)):
            return
        for guest in self._guests:
            with self._lock:
                if guest in self._taken:
                    continue
                try:
                    self._calls[guest] = self._resume(guest)
                except FreezelabError:
                    continue  # the controller comes to it as well, and tells
