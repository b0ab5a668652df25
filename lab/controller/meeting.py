"""A port of the controller on a host of a fleet: the controller of the whole fleet."""

from __future__ import annotations

from typing import Protocol


class Meeting(Protocol):
    """The controller of a fleet over hosts, from the side of one host."""

    def __call__(self) -> None:
        """Return at the next instant of a freeze. MachineError when there is none: the guests must not be
        frozen."""

    def over(self, index: int, why: str) -> str:
        """Say that a rollout's wave, the cycle `index`, is over on this host, and wait for the others. why:
        what stops the rollout, one line; "" when all guests are back and their gates hold. Returns why the
        rollout stops, "" when the next wave may begin."""
