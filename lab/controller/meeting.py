"""A port of the controller on a host of a fleet: the controller of the whole fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lab.core.scheduled.instance import InstanceInfo


class Meeting(Protocol):
    """The controller of a fleet over hosts, from the side of one host."""

    def __call__(self) -> None:
        """Return at the next instant of a freeze. MachineError when there is none: the guests must not be
        frozen."""

    def over(self, index: int, why: str) -> str:
        """Say that a rollout's wave, the cycle `index`, is over on this host, and wait for the others. why:
        what stops the rollout, one line; "" when all guests are back and their gates hold. Returns why the
        rollout stops, "" when the next wave may begin."""

    def serve(self, instances: Sequence[InstanceInfo]) -> tuple[int, Mapping[str, str]]:
        """Have the metadata service know these guests, which are on this host. Returns the port of the
        loopback at which it listens for them, and what a connection of each begins with. MachineError when
        there is no service."""

    def announced(self) -> bool:
        """Have the next cycle of this host's guests announced. Returns when they may be frozen; False when
        the announcement was cancelled. MachineError when they must not be."""

    def back(self) -> None:
        """Say that the guests of the cycle on this host are back and in time, or given up. Raises nothing."""


def alone() -> None:
    """For a host of no fleet: every instant will do."""
