"""The proof that a guest's RAM is the same before and after a hand-over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab.core.timeline import MemoryProof
from lab.errors import HypervisorError
from lab.hypervisor import memory
from lab.hypervisor.context import Steps
from lab.ports import Clock


class MemoryProver:
    """Takes two digests of one RAM file and compares them. path: None when no proof was requested.
    wall_clock: the page that KVM rewrites, if any."""

    def __init__(self, path: Path | None, steps: Steps, clock: Clock, wall_clock: int | None = None) -> None:
        self._path, self._steps, self._clock = path, steps, clock
        self._wall_clock = wall_clock
        self._before: memory.Digest | None = None
        self._after: memory.Digest | None = None
        self._looked_ns = 0

    def look(self, late: Callable[[], bool]) -> None:
        """Take the first digest. It is abandoned when `late` returns True."""
        self._before = self._take("prove memory", late)

    def look_again(self, late: Callable[[], bool]) -> None:
        """Take the second digest, if there is a first. HypervisorError when the two differ."""
        if self._before is None:
            return
        self._after = self._take("prove memory again", late)
        if self._after is not None and self._after != self._before:
            proof = self.result()
            if proof is not None and proof.differ:
                raise HypervisorError(f"{proof.differ} pages of its RAM have changed")

    def result(self) -> MemoryProof | None:
        """The proof; None without both digests. Not to be called during the pause, because it takes time."""
        if self._before is None or self._after is None:
            return None
        return memory.compare(self._before, self._after, self._looked_ns).allowing(self._wall_clock)

    def _take(self, name: str, late: Callable[[], bool]) -> memory.Digest | None:
        if self._path is None:
            return None
        began = self._clock.now().raw_ns
        try:
            with self._steps.step(name):
                return memory.take(self._path, late)
        except memory.DigestCalledOff:
            return None
        finally:
            self._looked_ns += self._clock.now().raw_ns - began
