"""A hardware watchdog of a guest."""

from __future__ import annotations

from enum import StrEnum


class WatchdogAction(StrEnum):
    """What a hardware watchdog that was not petted does to its guest."""

    NONE = "none"
    RESET = "reset"
    POWEROFF = "poweroff"
    NMI = "inject-nmi"
