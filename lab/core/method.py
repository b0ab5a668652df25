"""Ways to freeze a guest, and what each of them predicts.

The predictions are the methods' own rules, said before anything is measured; core.predictions holds them
against the measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.units import NS_PER_S


class Regime(StrEnum):
    """What the guest's clocks did during a pause (docs/measuring.md, "A pause: four witnesses")."""

    RESUMED = "resumed"  # they stopped with the guest: it is behind by the pause
    JUMPED = "jumped"  # they ran on: the guest keeps true time and sees a hole
    MIXED = "mixed"  # part stopped, part hole
    RUNNING = "running"  # no pause: a control cycle


class WallClock(StrEnum):
    """What a guest's REALTIME shows at the resume, before anything repairs it."""

    BEHIND = "behind by the pause"
    RIGHT = "right"
    NEARLY = "right to some seconds"  # set from the RTC, which has whole seconds
    BOOTED = "set at boot"


@dataclass(frozen=True)
class Prediction:
    """What a method's rules say of the guest's clocks.

    regime: of MONOTONIC and MONOTONIC_RAW; None: there is no pause in the guest's own time.
    boottime_counts: CLOCK_BOOTTIME goes on through the pause while CLOCK_MONOTONIC does not
        (clock_gettime(2): only a suspend of the guest itself sets them apart).
    """

    regime: Regime | None
    wall_clock: WallClock
    boottime_counts: bool = False


class FreezeMethod(StrEnum):
    """How a guest is frozen, or what is done instead."""

    SUSPEND = "suspend"  # libvirt's suspend: QEMU's `stop`
    SIGSTOP = "sigstop"  # the whole QEMU process stopped by a signal
    SAVE_RESTORE = "save-restore"  # libvirt's save to a file, and restore
    IN_PLACE = "in-place"  # the QEMU process replaced, RAM left where it is
    GUEST_SLEEP = "guest-sleep"  # the guest's own S3, by its agent; woken by the host
    REBOOT = "reboot"  # no freeze: shut down, and started again
    NONE = "none"  # no freeze: the guest runs on

    @property
    def predicts(self) -> Prediction:
        return _PREDICTIONS[self]

    @property
    def expected_regime(self) -> Regime | None:
        return self.predicts.regime

    @property
    def freezes(self) -> bool:
        """The guest stands still, and then goes on where it was."""
        return self not in (FreezeMethod.REBOOT, FreezeMethod.NONE)

    @property
    def keeps_process(self) -> bool:
        """The hypervisor process that froze the guest is the one that resumes it."""
        return self not in (FreezeMethod.SAVE_RESTORE, FreezeMethod.IN_PLACE, FreezeMethod.REBOOT)

    @property
    def keeps_memory(self) -> bool:
        """The guest's RAM is not copied: it stays where it is, page by page."""
        return self not in (FreezeMethod.SAVE_RESTORE, FreezeMethod.REBOOT)

    @property
    def shares_memory(self) -> bool:
        """The guest's RAM has to be a file that two QEMU processes can map."""
        return self is FreezeMethod.IN_PLACE

    @property
    def overhead_ns(self) -> int | None:
        """What stopping and resuming add to a pause beside the patch, at most. None: it depends on the guest,
        on the size of its RAM or on its own sleep, and only the budget bounds it."""
        return _OVERHEAD_NS.get(self)


# Seen: 10 to 60 ms a guest on machines at work (docs/design.md), several guests one after another.
_OVERHEAD_NS = {
    FreezeMethod.SUSPEND: NS_PER_S,
    FreezeMethod.SIGSTOP: NS_PER_S,
    FreezeMethod.IN_PLACE: NS_PER_S,
    FreezeMethod.NONE: 0,
}

_STOPPED = Prediction(Regime.RESUMED, WallClock.BEHIND)

_PREDICTIONS = {
    # QEMU's `stop` stops the virtual clock with the vCPUs, and the device state carries it from one
    # process to the next (QEMU, docs/devel/migration, "timer" section; softmmu/cpu-timers.c).
    FreezeMethod.SUSPEND: _STOPPED,
    FreezeMethod.SAVE_RESTORE: _STOPPED,
    FreezeMethod.IN_PLACE: _STOPPED,
    # A signal stops the threads, not QEMU's clocks, which are the host's.
    FreezeMethod.SIGSTOP: Prediction(Regime.JUMPED, WallClock.RIGHT),
    # timekeeping_resume() of the guest's kernel adds the time slept, from the RTC, to REALTIME and BOOTTIME;
    # MONOTONIC and MONOTONIC_RAW stand still.
    FreezeMethod.GUEST_SLEEP: Prediction(Regime.RESUMED, WallClock.NEARLY, boottime_counts=True),
    FreezeMethod.REBOOT: Prediction(None, WallClock.BOOTED),
    FreezeMethod.NONE: Prediction(Regime.RUNNING, WallClock.RIGHT),
}
