"""Monitors guests that are being waited for: an end of the guest that libvirt reports ends the waiting at
once."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from lab.core.units import NS_PER_MS
from lab.errors import GuestGone, HypervisorError
from lab.guest.connections import GuestConnections
from lab.guest.session_probe import SessionProbe
from lab.hypervisor import unreachable
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.process.pace import paced
from lab.threads import Worker

_PERIOD_S = 0.25
"""The polling interval: it detects a killed QEMU process before libvirt reports it."""

_LATE_S = 1.0
"""A look that comes so long after the last one may have missed a freeze of the lab's own."""

STILL_S = 2.0
NOTHING_NS = 6 * NS_PER_MS
"""The most CPU time that the vCPUs of a sleeping guest use in STILL_S: 2 to 3 ms were measured under TCG, for
packets that still arrive, and 11 ms on emulated KVM, where limits are at least doubled (lab.process.pace). A
guest whose probe is awake uses 560 ms in that time, under TCG."""


class GuestMonitor:
    """A thread that closes the connections of guests that have ended. A context manager.

    connections: those of the guests, by name. probes: those of guests that have been reached. Both may
    grow."""

    def __init__(
        self,
        hypervisor: LibvirtHypervisor,
        connections: Mapping[str, GuestConnections],
        probes: Mapping[str, SessionProbe],
    ) -> None:
        self._hypervisor, self._connections, self._probes = hypervisor, connections, probes
        self._used: dict[str, tuple[int, float, float]] = {}  # CPU time, since when, and the last look
        self._stop = threading.Event()
        self._resets: dict[str, tuple[str, int]] = {}
        self._thread = Worker(target=self._run, name="guest-monitor", daemon=True)

    def __enter__(self) -> GuestMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._hypervisor.events.wake()
        self._thread.join()

    def _run(self) -> None:
        news = 0
        while not self._stop.is_set():
            news = self._hypervisor.events.wait_news(news, _PERIOD_S)
            for name, connections in tuple(self._connections.items()):
                try:
                    connections.check()
                    self._look_for_resets(name)
                    self._look_for_work(name)
                except GuestGone as gone:
                    connections.cut(gone)
                except HypervisorError:
                    continue  # not started yet, or removed

    def _look_for_resets(self, name: str) -> None:
        uuid, resets = self._hypervisor.resets(name)
        before = self._resets.get(name, (uuid, 0))
        self._resets[name] = uuid, resets
        if before[0] == uuid and resets > before[1] and not self._hypervisor.is_ours(name):
            raise unreachable.rebooted(name)

    def _look_for_work(self, name: str) -> None:
        """Check that the guest uses CPU time: a suspend to idle is known only inside the guest, but a
        sleeping guest uses none."""
        probe = self._probes.get(name)
        if probe is None or probe.resting or self._hypervisor.is_ours(name):
            self._used.pop(name, None)
            return
        used, now = self._hypervisor.cpu_time_ns(name), time.monotonic()
        before, since, last = self._used.get(name, (used, now, now))
        if now - last > _LATE_S:
            before, since = used, now
        self._used[name] = before, since, now
        if now - since < STILL_S:
            return
        self._used[name] = used, now, now
        if 0 <= used - before < paced(NOTHING_NS):
            raise unreachable.still(name)
