"""What all host patches have in common; core.patch has each of them."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from lab.core.method import FreezeMethod


class Impact(StrEnum):
    """What a patch requires of the guests: its impact class."""

    NONE = "none"  # guests run on
    FREEZE = "freeze"  # guests have to be frozen
    REBOOT = "reboot"  # cannot be done under a frozen guest: it is shut down, and started again


SYSTEM = "system"
"""The name of this machine's own emulator, beside those of fetched ones."""


OUT_OF_TIME = "out of time"
NO_TIME_LEFT = "no time left to start"
_OVERRAN = "still running after"  # of lab.process.runner.Finished
"""In the reason of a patch that failed (ports.PatchResult.why): the time that it had was over."""


def ran_out_of_time(why: str) -> bool:
    """Whether a patch failed for this reason because its time was over."""
    return any(words in why for words in (OUT_OF_TIME, NO_TIME_LEFT, _OVERRAN))


FREEZES = tuple(method for method in FreezeMethod if method.freezes)
FREEZES_FILES = tuple(method for method in FreezeMethod if method.needs_resume and not method.freezes)
REBOOTS = tuple(method for method in FreezeMethod if method.boots_anew)
RUNS_ON = tuple(method for method in FreezeMethod if method.runs_on and not method.needs_resume)

# Methods after which another process runs the guest, those that leave its memory in place first.
REPLACES = tuple(
    sorted((m for m in FREEZES if not m.keeps_process), key=lambda method: method.traits.copies_memory)
)


class PatchTraits:
    """The properties of a patch, with the values of most patches. kind: its name in playbooks and records."""

    kind: str

    needs_run: ClassVar[bool] = False
    """Whether its check asks for what only a run has: a connection, an accelerator, fetched emulators.
    `freezelab plan` examines the others."""

    @property
    def label(self) -> str:
        """Its name in records and reports."""
        return self.kind

    @property
    def short(self) -> str:
        """Its name in ids of cells."""
        return self.kind

    @property
    def about(self) -> str:
        """Its description in a plan."""
        raise NotImplementedError

    @property
    def impact(self) -> Impact:
        return Impact.FREEZE

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        """The methods that fit the patch, its default first."""
        if self.impact is Impact.REBOOT:
            return REBOOTS
        return RUNS_ON if self.impact is Impact.NONE else FREEZES

    @property
    def shortest_ns(self) -> int:
        """The least time for which guests are stopped by it."""
        return 0

    @property
    def longest_ns(self) -> int:
        """Its deadline; 0: the freeze itself is the patch."""
        raise NotImplementedError


class TimedPatch(PatchTraits):
    """A patch with a deadline of its own."""

    deadline_ns: int

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns
