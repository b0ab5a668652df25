"""Watches over guests that are waited for: what libvirt learns of one ends the waiting at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from lab.errors import GuestGone, HypervisorError
from lab.guest.life import Life
from lab.hypervisor import fate
from lab.hypervisor.adapter import LibvirtHypervisor

_PERIOD_S = 0.25
"""How often it looks without being told: a QEMU process that was killed is seen before libvirt says so."""


class Lookout:
    """A thread that cuts the connections of guests that have gone. lives: of the guests by name; it may grow.
    A context manager."""

    def __init__(self, hypervisor: LibvirtHypervisor, lives: Mapping[str, Life]) -> None:
        self._hypervisor, self._lives = hypervisor, lives
        self._stop = threading.Event()
        self._resets: dict[str, tuple[str, int]] = {}
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def __enter__(self) -> Lookout:
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
            for name, life in tuple(self._lives.items()):
                try:
                    life.check()
                    self._look_for_resets(name)
                except GuestGone as gone:
                    life.cut(gone)
                except HypervisorError:
                    continue  # not started yet, or removed

    def _look_for_resets(self, name: str) -> None:
        uuid, resets = self._hypervisor.resets(name)
        before = self._resets.get(name, (uuid, 0))
        self._resets[name] = uuid, resets
        if before[0] == uuid and resets > before[1]:
            raise fate.rebooted(name)
