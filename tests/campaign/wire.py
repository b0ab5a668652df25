"""A bridge for a guest, and a cable between it and the host that can lose packets, delay them, or be cut.

The kernels of the development machines have no netem, so the cable is this process: two taps, `host0` with
the host's address and `up0` on the bridge, and a thread for each direction that passes frames from one to the
other.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from tests.campaign.place import BRIDGE, HOST, run

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP_NO_PI = 0x1002


@dataclass(frozen=True)
class Trouble:
    """What happens to a frame on the cable. loss: its chance to be lost. delay_s: how long it takes at least;
    spread_s: and how much more at most, so that frames pass each other."""

    loss: float = 0.0
    delay_s: float = 0.0
    spread_s: float = 0.0


TROUBLES = {"lost": Trouble(loss=0.2), "late": Trouble(delay_s=0.06, spread_s=0.06), "cut": Trouble(loss=1.0)}


def _tap(name: str) -> int:
    handle = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(handle, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))
    run("ip", "link", "set", name, "up")
    return handle


class Cable:
    """A context manager. trouble: may be set at any time."""

    def __init__(self, seed: int) -> None:
        self.trouble = Trouble()
        self._chance = random.Random(seed)
        self._stop = threading.Event()

    def __enter__(self) -> Cable:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "link", "set", BRIDGE, "up")
        self._ends = _tap("host0"), _tap("up0")
        run("ip", "link", "set", "up0", "master", BRIDGE)
        run("ip", "addr", "add", HOST, "dev", "host0")
        one, other = self._ends
        self._threads = [
            threading.Thread(target=self._pass, args=pair, daemon=True)
            for pair in ((one, other), (other, one))
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            os.close(end)
        run("ip", "link", "delete", BRIDGE)

    def _pass(self, source: int, sink: int) -> None:
        waiting: list[tuple[float, int, bytes]] = []
        number = 0
        while not self._stop.is_set():
            left = waiting[0][0] - time.monotonic() if waiting else 0.2
            if select.select([source], [], [], max(0.0, min(left, 0.2)))[0]:
                frame, trouble = os.read(source, 65536), self.trouble
                if self._chance.random() >= trouble.loss:
                    late = trouble.delay_s + self._chance.random() * trouble.spread_s
                    heapq.heappush(waiting, (time.monotonic() + late, number, frame))
                    number += 1
            while waiting and waiting[0][0] <= time.monotonic():
                with suppress(OSError):
                    os.write(sink, heapq.heappop(waiting)[2])
