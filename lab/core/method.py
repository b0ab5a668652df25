"""Ways to freeze a guest: what each of them is, needs and predicts, in one place.

The rest of the lab asks a method what it is; it does not compare by name. How a guest is frozen is in
lab.hypervisor.freeze, one file a method. docs/adding.md says how to add one.

The predictions are the methods' own rules, written down before anything is measured; core.predictions
compares them with the measurement.
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


@dataclass(frozen=True)
class MethodTraits:
    """What a method is. The defaults are those of a method that stops the guest and touches nothing else.

    about: for the playbook's documentation, after the method's name. plan: its step in a plan; {} is where it
        saves to, if the plan says so.
    freezes: the guest stands still, and then goes on where it was. boots_anew: it is shut down and started
        again. A method that does neither lets it run on.
    without_pause: for a method that does not freeze: how the sentence begins that refuses to expect anything
        of a pause.
    keeps_process: the hypervisor process that froze the guest is the one that resumes it.
    monitor_answers: QEMU answers while the guest stands still.
    copies_memory: the guest's RAM is copied out of the process, and back.
    shares_memory: the guest's RAM has to be a file that two QEMU processes can map.
    overlaps: two QEMU processes have to be there through the pause, so no patch can need that there is none.
    sends_rest_stopped: memory of the guest is sent between its stop and the time when QEMU reads its clocks.
    stopped_by_migration: QEMU stops the guest itself, when it has begun to send the guest's state.
    sleeps: the guest suspends itself (S3), which its machine has to offer. It is silent, and its clocks stand
        still, before its machine does.
    freezes_files: the guest's file systems are frozen, by its agent. With `freezes`, so is the guest.
    in_cgroup: the QEMU process needs a cgroup of its own, in which it is frozen.
    overhead_ns: what stopping and resuming add to a pause beside the patch, at most. None: it depends on the
        guest, on the size of its RAM or on its own sleep, and only the budget bounds it.
    own_keys: keys of a playbook's cycle that go with this method, and not with those that do not list them.
    """

    about: str
    predicts: Prediction
    plan: str = ""
    freezes: bool = True
    boots_anew: bool = False
    without_pause: str = ""
    keeps_process: bool = True
    monitor_answers: bool = True
    copies_memory: bool = False
    shares_memory: bool = False
    overlaps: bool = False
    sends_rest_stopped: bool = False
    stopped_by_migration: bool = False
    sleeps: bool = False
    freezes_files: bool = False
    in_cgroup: bool = False
    overhead_ns: int | None = None
    own_keys: tuple[str, ...] = ()


class FreezeMethod(StrEnum):
    """How a guest is frozen, or what is done instead. The order is that of menus and documentation."""

    SUSPEND = "suspend"
    SIGSTOP = "sigstop"
    HOST_SLEEP = "host-sleep"
    SAVE_RESTORE = "save-restore"
    IN_PLACE = "in-place"
    LIVE_MIGRATE = "live-migrate"
    GUEST_SLEEP = "guest-sleep"
    SNAPSHOT = "snapshot"
    SNAPSHOT_STATE = "snapshot-state"
    REBOOT = "reboot"
    NONE = "none"

    @property
    def traits(self) -> MethodTraits:
        return _TRAITS[self]

    @property
    def predicts(self) -> Prediction:
        return self.traits.predicts

    def predicts_on(self, accelerator: str, clocksource: str) -> Prediction:
        """What its rules say of a guest with this clocksource. accelerator: "kvm" or "tcg", "" when it is not
        known."""
        tsc = accelerator == "kvm" and clocksource == "tsc"
        return _TSC_RUNS if tsc and self.stops_in_place else self.predicts

    @property
    def stops_in_place(self) -> bool:
        """QEMU's `stop` and `cont` in one process, with no other state loaded in between."""
        return self.predicts is _STOPPED and self.keeps_process

    @property
    def freezes(self) -> bool:
        return self.traits.freezes

    @property
    def needs_resume(self) -> bool:
        """The guest, or its file systems, stand still until it is resumed."""
        return self.freezes or self.traits.freezes_files

    @property
    def boots_anew(self) -> bool:
        return self.traits.boots_anew

    @property
    def runs_on(self) -> bool:
        """The guest is left alone."""
        return not self.freezes and not self.boots_anew

    @property
    def keeps_process(self) -> bool:
        return self.traits.keeps_process

    @property
    def keeps_memory(self) -> bool:
        """The guest's RAM is not copied: it stays where it is, page by page."""
        return not self.traits.copies_memory and not self.boots_anew

    @property
    def sleeps(self) -> bool:
        return self.traits.sleeps


_STOPPED = Prediction(Regime.RESUMED, WallClock.BEHIND)
"""QEMU's `stop` stops the virtual clock with the vCPUs, and the device state carries it from one process to
the next (QEMU, docs/devel/migration, "timer" section; softmmu/cpu-timers.c)."""

_TSC_RUNS = Prediction(Regime.JUMPED, WallClock.RIGHT)
"""On KVM the TSC is the CPU's own and does not stop. QEMU writes it, and kvm-clock, into a process that loads
a state; after a plain stop it writes only kvm-clock (target/i386/kvm/kvm.c, kvm_put_msrs: MSR_IA32_TSC from
KVM_PUT_RESET_STATE on; hw/i386/kvm/clock.c, kvmclock_vm_state_change). Under TCG the TSC is QEMU's clock."""

_QUICK_NS = NS_PER_S
"""10 to 60 ms a guest were measured on machines at work (docs/design.md); guests come one after another."""

_TRAITS = {
    FreezeMethod.SUSPEND: MethodTraits(
        "libvirt suspends them; their clocks stop",
        _STOPPED,
        "suspend every guest (libvirt)",
        overhead_ns=_QUICK_NS,
    ),
    FreezeMethod.SIGSTOP: MethodTraits(
        "a signal stops the whole QEMU process; their clocks run on",
        # A signal stops the threads, not QEMU's clocks, which are the host's.
        Prediction(Regime.JUMPED, WallClock.RIGHT),
        "stop every guest's QEMU process (SIGSTOP)",
        monitor_answers=False,
        overhead_ns=_QUICK_NS,
    ),
    FreezeMethod.HOST_SLEEP: MethodTraits(
        "the kernel's freezer, as in a host's suspend, stops the whole QEMU process; their clocks run on",
        # It stops the threads, as a signal does; the host's clocks stay up here.
        Prediction(Regime.JUMPED, WallClock.RIGHT),
        "freeze every guest's QEMU process (cgroup freezer)",
        monitor_answers=False,
        in_cgroup=True,
        overhead_ns=_QUICK_NS,
    ),
    FreezeMethod.SAVE_RESTORE: MethodTraits(
        "libvirt saves them to a file and restores them",
        _STOPPED,
        "save every guest to a file{} and restore it (libvirt)",
        keeps_process=False,
        copies_memory=True,
        own_keys=("save_to",),
    ),
    FreezeMethod.IN_PLACE: MethodTraits(
        "the QEMU process is replaced, memory stays in place",
        _STOPPED,
        "replace every guest's QEMU process with a successor started before, RAM left in place",
        keeps_process=False,
        shares_memory=True,
        stopped_by_migration=True,
        overhead_ns=_QUICK_NS,
    ),
    FreezeMethod.LIVE_MIGRATE: MethodTraits(
        "they move to a second QEMU process while they run, and stop for the rest of their memory",
        _STOPPED,
        "live-migrate every guest to a second QEMU process: its memory while it runs, the rest after a stop",
        keeps_process=False,
        copies_memory=True,
        overlaps=True,
        sends_rest_stopped=True,
        own_keys=(
            "max_downtime",
            "bandwidth",
            "multifd",
            "auto_converge",
            "post_copy",
            "dirty_rate",
            "dirty_memory",
        ),
    ),
    FreezeMethod.GUEST_SLEEP: MethodTraits(
        "the guest's own S3",
        # timekeeping_resume() of the guest's kernel adds the time slept, from the RTC, to REALTIME and
        # BOOTTIME; MONOTONIC and MONOTONIC_RAW stand still.
        Prediction(Regime.RESUMED, WallClock.NEARLY, boottime_counts=True),
        "suspend every guest to RAM (S3, through its agent) and wake it",
        sleeps=True,
    ),
    FreezeMethod.SNAPSHOT: MethodTraits(
        "their agents freeze file systems, disks are snapshotted; they run on",
        Prediction(Regime.RUNNING, WallClock.RIGHT),
        "freeze every guest's file systems (its agent), snapshot its disks{}, thaw",
        freezes=False,
        without_pause="only file systems are frozen and the guest runs on, so",
        freezes_files=True,
        overhead_ns=None,
        own_keys=("save_to",),
    ),
    FreezeMethod.SNAPSHOT_STATE: MethodTraits(
        "the same, and they are suspended while their memory is saved; their clocks stop",
        _STOPPED,
        "freeze every guest's file systems (its agent), suspend it, save RAM and snapshot disks{}, thaw",
        freezes_files=True,
        own_keys=("save_to",),
    ),
    FreezeMethod.REBOOT: MethodTraits(
        "no freeze, they are shut down and started again",
        Prediction(None, WallClock.BOOTED),
        freezes=False,
        boots_anew=True,
        without_pause="the guest is shut down and started again, so its clocks restart and",
        keeps_process=False,
    ),
    FreezeMethod.NONE: MethodTraits(
        "no freeze, they run on",
        Prediction(Regime.RUNNING, WallClock.RIGHT),
        freezes=False,
        without_pause="the guest runs on, so",
        overhead_ns=0,
    ),
}
