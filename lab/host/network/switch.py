"""The switch: learns where a MAC address is, and forwards frames with the places' limits.

It does no I/O and reads no clock, so that its rules can be checked by themselves. Times are host
CLOCK_MONOTONIC, in nanoseconds.

A frame from A to B: it leaves A at A's bandwidth, travels for the longer delay of both, and reaches B at B's
bandwidth. It is lost with the larger of both probabilities. Then it waits until B takes it.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

from lab.core.network import FrameCounts, NetworkLimits

BURST = 1000
"""How many frames wait for a guest that is not known to be frozen, at least: one of a busy host is slow."""

_STILL_NS = 20_000_000
"""How long after the freeze a frame may be read that the guest has sent before it."""

_NS = 10**9
_ADDRESS = 6
_GROUP = 1  # the first byte's lowest bit: a group address, as broadcast


class Taken(Enum):
    """What became of a frame that was sent to a place."""

    YES = auto()
    LATER = auto()  # nothing is taken now
    ABSENT = auto()  # nobody is there


class SwitchPort:
    """One place. send: has it take a frame.

    While a guest is frozen, its frames wait here, and not with its QEMU: a successor would not get those.
    So do those of a guest whose QEMU is not there, because it is saved. Beyond the place's queue they are
    dropped. absent: nobody was there to take the last frame.
    """

    def __init__(self, name: str, limits: NetworkLimits, send: Callable[[bytes], Taken]) -> None:
        self.name, self.limits, self._send = name, limits, send
        self.counts = FrameCounts()
        self.waiting: deque[bytes] = deque()
        self.absent = self._was_there = False
        self.up_free_ns = self.down_free_ns = 0
        self._frozen_ns: int | None = None
        self._thaws = False

    @property
    def frozen(self) -> bool:
        """Whether frames wait for the guest's resume."""
        return self._frozen_ns is not None

    def freeze(self, now_ns: int) -> None:
        """The guest is frozen."""
        self._frozen_ns, self._thaws = now_ns, False

    def thaw(self) -> None:
        """The guest is about to run: it gets what waits, as soon as it is there."""
        if self.frozen:
            self._thaws = True
            self.flush()

    def heard(self, now_ns: int) -> None:
        """The guest has sent a frame. One that was frozen runs again, whoever has resumed it, unless the
        frame was sent before."""
        self._was_there = True
        if self._frozen_ns is not None and now_ns - self._frozen_ns > _STILL_NS:
            self.thaw()

    def arrive(self, frame: bytes) -> None:
        """A frame for this place has come."""
        most = self.limits.queue if self.frozen or self.absent else max(self.limits.queue, BURST)
        if len(self.waiting) >= most:
            self.counts.overflowed += 1
            return
        self.waiting.append(frame)
        if len(self.waiting) == 1:
            self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it is taken."""
        if self.frozen and not self._thaws:
            return
        while self.waiting:
            taken = self._send(self.waiting[0])
            self.absent = taken is Taken.ABSENT
            if self.absent and self._was_there:
                return
            self._frozen_ns = None
            if taken is Taken.LATER:
                return
            frame = self.waiting.popleft()
            if self.absent:
                self.counts.absent += 1
            else:
                self._was_there = True
                self.counts.received += 1
                self.counts.received_bytes += len(frame)
        self._frozen_ns = None


class Switch:
    """Forwards frames between ports. seed: of the losses."""

    def __init__(self, seed: int) -> None:
        self.ports: dict[str, SwitchPort] = {}
        self._random = random.Random(seed)  # noqa: S311 - losses, no secret
        self._where: dict[bytes, SwitchPort] = {}
        self._under_way: list[tuple[int, int, SwitchPort, bytes]] = []
        self._number = 0

    def add(self, port: SwitchPort) -> None:
        self.ports[port.name] = port

    def forward(self, source: SwitchPort, frame: bytes, now_ns: int) -> None:
        """A frame has come from a port."""
        if len(frame) < 2 * _ADDRESS:
            return
        source.heard(now_ns)
        source.counts.sent += 1
        source.counts.sent_bytes += len(frame)
        to, origin = frame[:_ADDRESS], frame[_ADDRESS : 2 * _ADDRESS]
        if not origin[0] & _GROUP:
            self._where[origin] = source
        known = None if to[0] & _GROUP else self._where.get(to)
        if known is source:
            return
        left_ns = now_ns
        if source.limits.bits_per_s:
            source.up_free_ns, left_ns = _through(source, source.up_free_ns, len(frame), now_ns)
            if not left_ns:
                source.counts.overflowed += 1
                return
        for port in [known] if known else [port for port in self.ports.values() if port is not source]:
            self._send(source, port, frame, left_ns, now_ns)

    def _send(self, source: SwitchPort, port: SwitchPort, frame: bytes, left_ns: int, now_ns: int) -> None:
        loss = max(source.limits.loss, port.limits.loss)
        if loss and self._random.random() < loss:
            port.counts.lost += 1
            return
        due_ns = left_ns + max(source.limits.delay_ns, port.limits.delay_ns)
        if port.limits.bits_per_s:
            port.down_free_ns, due_ns = _through(port, port.down_free_ns, len(frame), due_ns)
            if not due_ns:
                port.counts.overflowed += 1
                return
        if due_ns <= now_ns:
            port.arrive(frame)
            return
        self._number += 1
        heapq.heappush(self._under_way, (due_ns, self._number, port, frame))

    @property
    def due_ns(self) -> int | None:
        """When the next frame arrives that is under way; None without one."""
        return self._under_way[0][0] if self._under_way else None

    def deliver(self, now_ns: int) -> None:
        """Have the frames arrive that are due."""
        while self._under_way and self._under_way[0][0] <= now_ns:
            _, _, port, frame = heapq.heappop(self._under_way)
            port.arrive(frame)


def _through(port: SwitchPort, free_ns: int, size: int, now_ns: int) -> tuple[int, int]:
    """A frame of `size` bytes through a port's bandwidth, which is free from `free_ns` on. The new free_ns,
    and when its last bit is through; 0 when it finds the queue full."""
    takes_ns = size * 8 * _NS // port.limits.bits_per_s
    if free_ns - now_ns > (port.limits.queue or BURST) * takes_ns:
        return free_ns, 0
    through_ns = max(free_ns, now_ns) + takes_ns
    return through_ns, through_ns
