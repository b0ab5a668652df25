"""Resumes guests when the budget is over, from a thread of the controller and from a process beside it.

The thread resumes the guests when the controller is held up, by a stopped terminal, a hanging disk, or a
patch that does not return. The dead-man, a separate process, does the same when the controller is stopped or
killed (hypervisor.deadman). Each watches the other: guests are frozen only with a dead-man, and resumed at
once when it is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from lab.core.units import NS_PER_S
from lab.errors import FreezelabError
from lab.hypervisor.deadman.client import Charge, DeadMan
from lab.ports import Clock, Resumed
from lab.threads import Worker


class BudgetGuard:
    """ports.Guard. Use it in a `with` block; leaving the block disarms it.

    resume: resumes one guest by name. at_raw_ns: when the thread acts; until_raw_ns: when the dead-man acts;
    both host MONOTONIC_RAW. charges: the dead-man's data for each guest; without any, nothing is guarded.
    settled: whether a guest can no longer be stopped by its freeze; the dead-man keeps guarding the others.
    """

    def __init__(
        self,
        clock: Clock,
        resume: Callable[[str], Resumed],
        guests: Sequence[str],
        at_raw_ns: int,
        dead_man: DeadMan,
        charges: Callable[[], Sequence[Charge]],
        settled: Callable[[str], bool],
        cycle: int,
        until_raw_ns: int,
    ) -> None:
        self._clock, self._resume, self._guests, self._at = clock, resume, guests, at_raw_ns
        self._dead_man, self._charges, self._settled = dead_man, charges, settled
        self._cycle, self._until = cycle, until_raw_ns
        self._disarmed = False
        self._changed = threading.Condition()
        self._lock = threading.Lock()
        self._calls: dict[str, Resumed] = {}
        self._taken: set[str] = set()
        self._thread = Worker(target=self._watch, name="budget-guard", daemon=True)

    def __enter__(self) -> BudgetGuard:
        if charges := self._charges():
            self._dead_man.guard(charges, self._cycle, self._until, self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._disarmed = True
            self._changed.notify_all()
        self._thread.join()
        self._dead_man.release([guest for guest in self._guests if self._settled(guest)])

    def resumed(self, guest: str) -> Resumed | None:
        """See ports.Guard."""
        with self._lock:
            self._taken.add(guest)
            return self._calls.get(guest)

    def bring_forward(self, by_ns: int) -> None:
        """See ports.Guard."""
        with self._changed:
            self._at -= by_ns
            self._changed.notify_all()

    @property
    def why(self) -> str:
        """Why the guests were resumed early (the dead-man was lost); "" when they were not."""
        return self._dead_man.lost

    def _look(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _watch(self) -> None:
        with self._changed:
            while not self._disarmed and not self._dead_man.lost:
                left_s = (self._at - self._clock.now().raw_ns) / NS_PER_S
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            if self._disarmed:
                return
        for guest in self._guests:
            with self._lock:
                if guest in self._taken:
                    continue
                try:
                    self._calls[guest] = self._resume(guest)
                except FreezelabError:
                    continue  # the controller resumes it as well, and reports the error
