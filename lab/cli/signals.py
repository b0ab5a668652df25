"""SIGINT, SIGTERM and SIGHUP: the first one ends the work through the normal ways out, so that guests
are resumed and removed; further ones only say that this is under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lab.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = b"\nfreezelab: resuming guests and cleaning up; a moment\n"


class Signals:
    """Turns the first signal into Interrupted, raised in the main thread. A context manager."""

    def __init__(self) -> None:
        self._shields = 0
        self._pending: int | None = None
        self._raised = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._raised:
            # Not print(): the signal may have come in the middle of one.
            os.write(2, _PATIENCE)
        elif self._shields:
            self._pending = number
        else:
            self._raise(number)

    def _raise(self, number: int) -> None:
        self._raised, self._pending = True, None
        raise Interrupted(f"interrupted by {signal.Signals(number).name}")

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold signals back until the block is left."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._pending is not None and not self._shields and not self._raised:
                self._raise(self._pending)
