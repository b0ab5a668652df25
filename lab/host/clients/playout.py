"""The playout of a stream: slots of equal length on the host's clock, each for one packet of the sender's.

As players do it: a packet's slot follows from its sender's time, and the first packet says where that begins.
A slot whose packet is not there when it has to be played has failed. If packets come too late for as long as
a second, the sender is behind, and all later ones get later slots. No I/O, times are given. Times are in
nanoseconds, on one clock.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """number: from 0 on. due_ns: when its packet should be there. at_ns: when it came; None: not in time."""

    number: int
    due_ns: int
    at_ns: int | None


class Playout:
    """length_ns: of a slot. late_ns: how much later than due a packet may come: the jitter buffer.
    behind_after_ns: how long packets have to be too late for the sender to be behind."""

    def __init__(self, length_ns: int, late_ns: int, behind_after_ns: int = 1_000_000_000) -> None:
        self._length, self._late, self._behind_after = length_ns, late_ns, behind_after_ns
        self._begin: int | None = None
        self._shift, self._next = 0, 0
        self._there: dict[int, int] = {}
        self._since: int | None = None
        self._least = 0

    def arrived(self, number: int, at_ns: int) -> tuple[bool, bool]:
        """The sender's packet with this number, counted from its first one, has come. Whether it is too late,
        and whether the sender has now been found to be behind."""
        if self._begin is None:
            self._begin = at_ns - number * self._length
        slot = number + self._shift
        late = at_ns - (self._begin + slot * self._length)
        self._there.setdefault(slot, at_ns)
        if late <= self._late:
            self._since = None
            return False, False
        if self._since is None:
            self._since, self._least = at_ns, late
        self._least = min(self._least, late)
        if at_ns - self._since < self._behind_after:
            return True, False
        self._shift += -(-self._least // self._length)
        self._since = None
        return True, True

    def over(self, now_ns: int) -> list[Slot]:
        """The next slots, in order, whose packet is there or whose time is over."""
        found: list[Slot] = []
        if self._begin is None:
            return found
        while True:
            due, at = self._begin + self._next * self._length, self._there.get(self._next)
            if at is not None and at <= due + self._late:
                found.append(Slot(self._next, due, at))
            elif due + self._late < now_ns:
                found.append(Slot(self._next, due, None))
            else:
                break
            self._next += 1
        for old in [slot for slot in self._there if slot < self._next]:
            del self._there[old]
        return found
