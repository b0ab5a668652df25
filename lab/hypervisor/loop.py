"""libvirt's event loop in a thread of its own.

libvirt has one default event loop implementation per process, which is registered once, before the first
connection is opened. Without a running loop, keepalives, events and the embedded driver do not work. The
thread runs while at least one connection holds the loop.

The thread always stops, but it may take time. A due timer fires at every iteration of the loop, and a new
timer wakes a sleeping loop (g_source_attach). But the thread first delivers queued events, and needs the GIL
for each callback: with four computing threads on two busy cores it stopped after 0.6 s, with forty after many
seconds. So release() waits a while for a late thread and then leaves it. It stops by itself, holds no guest's
resources, and is reused by the next holder of the loop, so that there are never two threads.
"""

from __future__ import annotations

import threading

from lab.hypervisor.binding import libvirt, mapped
from lab.threads import Worker

_STOP_S = 5.0
"""How long release() waits for the thread to stop, in seconds."""


class _Loop:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registered = False
        self._holders = 0
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()  # guards the two below, between iterations of the loop
        self._stopping = False
        self._runs = False

    def acquire(self) -> None:
        """Keep the loop running until the matching release()."""
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
        """Undo one acquire(); the last one stops the thread. Returns False when the thread should have
        stopped but has not within `patience_s` seconds."""
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
        """Wait until the events that libvirt has queued by now were delivered. libvirt delivers them from a
        timer that is due at once, so two more such timers, one after the other, fire after it."""
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
