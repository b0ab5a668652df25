"""libvirt's event loop in a thread of its own.

libvirt has one default event loop implementation a process, registered once and before the first
connection is opened; without a running loop, keepalives, events and the embedded driver stand still.
The thread runs while at least one connection holds the loop.
"""

from __future__ import annotations

import threading

from lab.errors import HypervisorError
from lab.hypervisor.binding import libvirt, mapped
from lab.threads import Worker

_STOP_S = 5.0


class _Loop:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registered = False
        self._holders = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        """Have the loop running until the matching release()."""
        with self._lock:
            if not self._registered:
                with mapped("libvirt's event loop cannot be set up"):
                    libvirt.virEventRegisterDefaultImpl()
                self._registered = True
            if self._holders == 0:
                self._stopping = False
                self._thread = Worker(target=self._run, name="libvirt-events", daemon=True)
                self._thread.start()
            self._holders += 1

    def release(self) -> None:
        """Give one hold() back; the last one stops the thread. HypervisorError when it does not stop."""
        with self._lock:
            self._holders -= 1
            if self._holders or self._thread is None:
                return
            self._stopping = True
            # The loop sleeps in poll(); a timer due at once is what wakes it.
            timer = libvirt.virEventAddTimeout(0, lambda _timer, _opaque: None, None)
            self._thread.join(_STOP_S)
            alive, self._thread = self._thread.is_alive(), None
            libvirt.virEventRemoveTimeout(timer)
            if alive:
                raise HypervisorError(f"libvirt's event thread did not stop within {_STOP_S:g} s")

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
        while not self._stopping:
            libvirt.virEventRunDefaultImpl()


LOOP = _Loop()
