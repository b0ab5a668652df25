"""libvirt's event loop in a thread of its own.

libvirt has one default event loop implementation a process, registered once and before the first
connection is opened; without a running loop, keepalives, events and the embedded driver stand still.
The thread runs while at least one connection holds the loop.

Stopping it needs no more than time. A timer that is due fires at every turn of the loop, and one that is
added wakes a loop that sleeps (g_source_attach). But the thread first hands out what is queued, and needs the
interpreter's lock for each callback: with four threads that compute, on two busy cores, it stopped 0.6 s
later; with forty, many seconds later. So a thread that is late is waited for a while, and then left: it stops
by itself, holds nothing of a guest's, and is taken over by whoever holds the loop next. There are never two.
"""

from __future__ import annotations

import threading

from lab.hypervisor.binding import libvirt, mapped
from lab.threads import Worker

_STOP_S = 5.0
"""How long a thread that has to stop is waited for."""


class _Loop:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registered = False
        self._holders = 0
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()  # over the two below, between turns of the loop
        self._stopping = False
        self._runs = False

    def acquire(self) -> None:
        """Have the loop running until the matching release()."""
        with self._lock:
            if not self._registered:
                with mapped("libvirt's event loop cannot be set up"):
                    libvirt.virEventRegisterDefaultImpl()
                self._registered = True
            with self._turn:
                self._stopping, there = False, self._runs
                self._runs = True
            if not there:
                self._thread = Worker(target=self._run, name="libvirt-events", daemon=True)
                self._thread.start()
            self._holders += 1

    def release(self, patience_s: float = _STOP_S) -> bool:
        """Give one acquire() back; the last one stops the thread. Whether it has stopped, or need not."""
        with self._lock:
            self._holders -= 1
            if self._holders or self._thread is None:
                return True
            with self._turn:
                self._stopping = True
            timer = libvirt.virEventAddTimeout(0, lambda _timer, _opaque: None, None)
            try:
                self._thread.join(patience_s)
            finally:
                libvirt.virEventRemoveTimeout(timer)
            return not self._thread.is_alive()

    def flush(self) -> None:
        """Return when the events that libvirt has queued by now were handed out: it does so from a timer that
        is due at once, so that two more such timers, one after the other, come after it."""
        for _ in range(2):
            passed = threading.Event()
            timer = libvirt.virEventAddTimeout(0, lambda _timer, done: done.set(), passed)
            try:
                passed.wait(_STOP_S)
            finally:
                libvirt.virEventRemoveTimeout(timer)

    def _run(self) -> None:
        try:
            while True:
                with self._turn:
                    if self._stopping:
                        self._runs = False
                        return
                libvirt.virEventRunDefaultImpl()
        except BaseException:
            with self._turn:
                self._runs = False
            raise


LOOP = _Loop()
