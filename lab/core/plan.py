"""What a run will do, as plain values: the playbook's meaning once every default is filled in.

Times in nanoseconds, sizes in bytes. Nothing here knows YAML, libvirt or a guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.units import NS_PER_MS, NS_PER_S, format_duration


class Regime(StrEnum):
    """What the guest's clocks did during a pause (MEASURING.md, "A pause")."""

    RESUMED = "resumed"  # they stopped with the guest: it is behind by the pause
    JUMPED = "jumped"  # they ran on: the guest keeps true time and sees a hole
    MIXED = "mixed"  # part stopped, part hole
    RUNNING = "running"  # no pause: a control cycle


class FreezeMethod(StrEnum):
    """How a guest is frozen."""

    SUSPEND = "suspend"  # libvirt's suspend: QEMU's `stop`
    SIGSTOP = "sigstop"  # the whole QEMU process stopped by a signal
    NONE = "none"  # a control cycle: everything but the freeze

    @property
    def expected_regime(self) -> Regime:
        return _EXPECTED[self]

    @property
    def keeps_process(self) -> bool:
        """The hypervisor process that froze the guest is the one that resumes it."""
        return True


_EXPECTED = {
    FreezeMethod.SUSPEND: Regime.RESUMED,
    FreezeMethod.SIGSTOP: Regime.JUMPED,
    FreezeMethod.NONE: Regime.RUNNING,
}


class ResyncMechanism(StrEnum):
    """What brings the guest's clock back to time after the resume."""

    NONE = "none"
    AGENT = "agent"  # the host sets the time, in nanoseconds, through qemu-guest-agent
    CHRONY = "chrony"  # chronyd in the guest against a real chronyd on the host


@dataclass(frozen=True)
class GuestSpec:
    """One guest to start."""

    name: str
    image: str = "debian"
    vcpus: int = 1
    memory_bytes: int = 512 << 20
    fault_domain: int = 0
    update_domain: int = 0


@dataclass(frozen=True)
class HoldPatch:
    """A host patch that takes a given time and changes nothing."""

    duration_ns: int

    @property
    def label(self) -> str:
        return f"hold {format_duration(self.duration_ns)}"


@dataclass(frozen=True)
class CommandPatch:
    """A host patch that is a program: argv, no shell, killed at its deadline."""

    argv: tuple[str, ...]
    deadline_ns: int

    @property
    def label(self) -> str:
        return f"command {self.argv[0]}"


Patch = HoldPatch | CommandPatch


@dataclass(frozen=True)
class CycleSpec:
    """One settle / measure / freeze / patch / resume / watch cycle.

    settle_ns: quiet time before the first reading.
    before_ns: how long offset and drift are measured before the freeze.
    budget_ns: from the suspend call to the resume, kept whatever the patch does.
    watch_ns: how long the guest is watched from the resume on.
    """

    method: FreezeMethod
    patch: Patch
    settle_ns: int = 1 * NS_PER_S
    before_ns: int = 4 * NS_PER_S
    budget_ns: int = 30 * NS_PER_S
    watch_ns: int = 8 * NS_PER_S


@dataclass(frozen=True)
class Expectations:
    """What a run must show to pass; None asks nothing.

    Always expected, whatever is written: cycles close, the budget is kept, the patch succeeds,
    the guest is the same boot.

    in_time_within_ns: from the resume to the first instant from which |offset| stays within
        tolerance_ns for hold_ns.
    final_offset_ns: largest |offset| at the end of the watch.
    drift_ppm: largest |drift| after the resync.
    clean_kernel_log: no soft lockup, RCU stall or unstable clocksource in the guest's kernel log.
    """

    regime: Regime | None = None
    pause_at_least_ns: int | None = None
    pause_at_most_ns: int | None = None
    in_time_within_ns: int | None = None
    tolerance_ns: int = 100 * NS_PER_MS
    hold_ns: int = 2 * NS_PER_S
    final_offset_ns: int | None = None
    drift_ppm: float | None = None
    clean_kernel_log: bool = True


@dataclass(frozen=True)
class Plan:
    """A whole run.

    digest: sha256 of the playbook's bytes, hexadecimal.
    repeat: cycles with a freeze. control: cycles without one, run before them.
    """

    name: str
    about: str
    digest: str
    guests: tuple[GuestSpec, ...]
    resync: ResyncMechanism
    cycle: CycleSpec
    expectations: Expectations
    repeat: int = 1
    control: int = 0
