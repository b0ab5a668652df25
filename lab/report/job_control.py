"""Ctrl-Z and its way back, for a display that a thread draws.

SIGTSTP takes the display away before the process stops, so that the shell's prompt stands on a clean line.
SIGCONT has it drawn anew where the cursor is then, also after a SIGSTOP that nobody could see coming.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from lab.report.screen import Screen

PATIENCE_S = 0.3
"""How long a stop waits for the thread. It may hang in a write, to a terminal that takes nothing."""


class JobControl:
    """A context manager of the main thread; in other threads it does nothing."""

    def __init__(self) -> None:
        self._stopping, self._gone, self._anew = threading.Event(), threading.Event(), threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._erased = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> JobControl:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ((signal.SIGTSTP, self._stop), (signal.SIGCONT, self._continued)):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def give_way(self, screen: Screen) -> None:
        """In the thread that draws, before each picture: erase it while the process is to stop, and forget
        it when it has gone on."""
        if self._anew.is_set():
            self._anew.clear()
            screen.forget()
        if self._stopping.is_set():
            screen.erase()
            self._gone.set()
            self._running.wait()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._gone.clear()
        self._running.clear()
        self._stopping.set()
        self._erased = self._gone.wait(PATIENCE_S)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._stopping.clear()
        self._running.set()

    def _continued(self, _number: int, _frame: FrameType | None) -> None:
        if not self._erased:  # else the first picture of after it may stand there already
            self._anew.set()
        self._erased = False
