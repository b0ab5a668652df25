"""Threads that the main thread waits for, which a signal may interrupt."""

from __future__ import annotations

import threading


class Worker(threading.Thread):
    """A thread that ends when its work is done, and not before.

    CPython up to 3.12 takes a thread for ended once a join() of it was interrupted by an exception (a signal
    handler's): is_alive() is False from then on, and join() returns at once, while it works on
    (Lib/threading.py, Thread._wait_for_tstate_lock).
    """

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self._done = threading.Event()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._done.set()

    def join(self, timeout: float | None = None) -> None:
        if self._done.wait(timeout):
            super().join()

    def is_alive(self) -> bool:
        return self.ident is not None and not self._done.is_set()
