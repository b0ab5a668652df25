"""Host patches as values: each has its name, its description and what it requires of guests.

lab.playbook.patch_section has their form in playbooks, lab.host.patches applies them. docs/adding.md says how
to add one. Durations in nanoseconds.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal

from lab.core.method import FreezeMethod
from lab.core.patch_traits import FREEZES, FREEZES_FILES, REBOOTS, REPLACES, RUNS_ON, PatchTraits, TimedPatch
from lab.core.patch_traits import NO_TIME_LEFT as NO_TIME_LEFT
from lab.core.patch_traits import OUT_OF_TIME as OUT_OF_TIME
from lab.core.patch_traits import SYSTEM as SYSTEM
from lab.core.patch_traits import Impact as Impact
from lab.core.patch_traits import ran_out_of_time as ran_out_of_time
from lab.core.units import NS_PER_S, format_duration


def _base(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1].split(".")[0]


@dataclass(frozen=True)
class HoldPatch(PatchTraits):
    """A patch that takes a given time and changes nothing."""

    duration_ns: int
    kind: Literal["hold"] = "hold"

    @property
    def label(self) -> str:
        return f"hold {format_duration(self.duration_ns)}"

    @property
    def longest_ns(self) -> int:
        return self.duration_ns

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return (*FREEZES, *FREEZES_FILES, *REBOOTS, *RUNS_ON)

    @property
    def shortest_ns(self) -> int:
        return self.duration_ns

    @property
    def short(self) -> str:
        return f"{self.kind}-{format_duration(self.duration_ns).replace(' ', '')}"

    @property
    def about(self) -> str:
        return "hold: nothing is changed on the host"


@dataclass(frozen=True)
class CommandPatch(TimedPatch):
    """A program: argv, without a shell, killed at its deadline. undo: the program that reverts it, or ()."""

    argv: tuple[str, ...]
    deadline_ns: int
    impact: Impact = Impact.FREEZE
    undo: tuple[str, ...] = ()
    kind: Literal["command"] = "command"

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        more = FREEZES_FILES if self.impact is Impact.FREEZE else ()  # what a backup does meanwhile
        return (*super().methods, *more)

    @property
    def label(self) -> str:
        return f"command {self.argv[0]}"

    @property
    def short(self) -> str:
        return f"{self.kind}-{_base(self.argv[0])}"

    @property
    def about(self) -> str:
        back = f"; undo: {shlex.join(self.undo)}" if self.undo else ""
        return f"run on the host: {shlex.join(self.argv)}{back}"


@dataclass(frozen=True)
class ReplaceHypervisorPatch(PatchTraits):
    """Replaces the emulator under running guests by another binary, or by a new process of the same one.

    emulator: a path, the name of one that `freezelab emulator fetch` got, SYSTEM, or "" for the same binary.
    machine, cpu: "" leaves the guest's; another one is refused before the freeze, as QEMU would do in it.
    """

    emulator: str = ""
    machine: str = ""
    cpu: str = ""
    kind: Literal["replace-hypervisor"] = "replace-hypervisor"
    needs_run: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return f"replace-hypervisor {self.emulator}".rstrip()

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return REPLACES

    @property
    def longest_ns(self) -> int:
        return 0

    @property
    def short(self) -> str:
        path = self.emulator.rstrip("/").rsplit("/", 1)[-1]
        return "-".join(filter(None, (self.kind, path or "same", self.machine, self.cpu)))

    @property
    def about(self) -> str:
        by = f"replaced by {self.emulator}" if self.emulator else "restarted"
        machine = f", machine {self.machine}" if self.machine else ""
        return f"the emulator {by}{machine}{f', CPU {self.cpu}' if self.cpu else ''}"


@dataclass(frozen=True)
class RestartLibvirtPatch(TimedPatch):
    """Restarts libvirt's daemon; its guests stay as they are, paused."""

    deadline_ns: int = 20 * NS_PER_S
    kind: Literal["restart-libvirt"] = "restart-libvirt"
    needs_run: ClassVar[bool] = True

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        # A daemon that starts talks to every QEMU it finds, and would wait for one that does not answer.
        return tuple(
            m for m in FREEZES if m.keeps_process and m.traits.monitor_answers and not m.traits.freezes_files
        )

    @property
    def about(self) -> str:
        return "libvirt's daemon restarted"


class UnitScope(StrEnum):
    """The systemd that manages a unit."""

    SYSTEM = "system"  # the machine's init
    USER = "user"  # of the user who runs freezelab


@dataclass(frozen=True)
class RestartServicePatch(TimedPatch):
    """Restarts a service of the host's systemd. unit: its full name, like "nginx.service"."""

    unit: str
    scope: UnitScope = UnitScope.SYSTEM
    deadline_ns: int = 20 * NS_PER_S
    impact: Impact = Impact.FREEZE
    kind: Literal["restart-service"] = "restart-service"

    @property
    def label(self) -> str:
        return f"{self.kind} {self.unit}"

    @property
    def short(self) -> str:
        return f"{self.kind}-{self.unit.removesuffix('.service')}"

    @property
    def about(self) -> str:
        return f"{self.unit} restarted{' (systemd --user)' if self.scope is UnitScope.USER else ''}"


@dataclass(frozen=True)
class ReloadKvmPatch(TimedPatch):
    """Unloads KVM's modules from the host's kernel and loads them again. No QEMU may use them meanwhile: the
    guest is RAM and a file of device state, and a new process continues it."""

    deadline_ns: int = 10 * NS_PER_S
    kind: Literal["reload-kvm"] = "reload-kvm"
    needs_run: ClassVar[bool] = True

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return tuple(method for method in REPLACES if not method.traits.overlaps)

    @property
    def about(self) -> str:
        return "KVM's kernel modules unloaded and loaded again"


@dataclass(frozen=True)
class ReplaceHostKernelPatch(TimedPatch):
    """Replaces the lab host's kernel by kexec, while the memory of its guests stays where it is: reserved, so
    that no kernel uses it for anything else.

    kernels: those that are started, one a cycle, in turn; each is the beginning of a release of a kernel that
    the lab host has, such as "6.12".
    """

    kernels: tuple[str, ...]
    deadline_ns: int = 25 * NS_PER_S
    kind: Literal["replace-host-kernel"] = "replace-host-kernel"
    needs_run: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return f"{self.kind} {', '.join(self.kernels)}"

    @property
    def short(self) -> str:
        return f"{self.kind}-{'-'.join(self.kernels)}"

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return (FreezeMethod.IN_PLACE,)

    @property
    def about(self) -> str:
        return (
            f"the lab host's kernel replaced by Linux {', '.join(self.kernels)} (kexec); a kernel that does "
            "not come up takes the guest with it: --accept-loss"
        )


@dataclass(frozen=True)
class MicrocodePatch(TimedPatch):
    """Loads the CPUs' microcode late (Linux, Documentation/arch/x86/microcode.rst)."""

    deadline_ns: int = 10 * NS_PER_S
    kind: Literal["microcode"] = "microcode"

    @property
    def about(self) -> str:
        return "late load of the CPUs' microcode"


@dataclass(frozen=True)
class LivepatchPatch(TimedPatch):
    """Loads and enables a livepatch module for the host's kernel; undo disables it (Linux,
    Documentation/livepatch/livepatch.rst). module: path of the .ko."""

    module: str
    deadline_ns: int = 20 * NS_PER_S
    kind: Literal["livepatch"] = "livepatch"

    @property
    def label(self) -> str:
        return f"livepatch {self.module.rsplit('/', 1)[-1]}"

    @property
    def impact(self) -> Impact:
        return Impact.NONE

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return (*RUNS_ON, *FREEZES)

    @property
    def short(self) -> str:
        return f"{self.kind}-{_base(self.module)}"

    @property
    def about(self) -> str:
        return f"livepatch {self.module} loaded into the host's kernel"


@dataclass(frozen=True)
class AnsiblePatch(TimedPatch):
    """Runs an Ansible playbook. inventory: "" is localhost. undo: the playbook that reverts it, or ""."""

    playbook: str
    deadline_ns: int
    inventory: str = ""
    impact: Impact = Impact.FREEZE
    undo: str = ""
    kind: Literal["ansible"] = "ansible"

    @property
    def label(self) -> str:
        return f"ansible {self.playbook.rsplit('/', 1)[-1]}"

    @property
    def short(self) -> str:
        return f"{self.kind}-{_base(self.playbook)}"

    @property
    def about(self) -> str:
        back = f"; undo: {self.undo}" if self.undo else ""
        return f"Ansible playbook {self.playbook} on {self.inventory or 'localhost'}{back}"


Patch = (
    HoldPatch
    | CommandPatch
    | ReplaceHypervisorPatch
    | RestartLibvirtPatch
    | RestartServicePatch
    | ReloadKvmPatch
    | ReplaceHostKernelPatch
    | MicrocodePatch
    | LivepatchPatch
    | AnsiblePatch
)


def conflict(patch: Patch, method: FreezeMethod) -> str:
    """Why the method does not fit the patch; "" when it does."""
    if method in patch.methods:
        return ""
    ways = " or ".join(patch.methods)
    if patch.impact is Impact.REBOOT:
        return (
            f"{patch.kind} is a patch of class reboot: it cannot be applied under a frozen "
            f"guest, which has to be shut down and started again (method: {ways})"
        )
    if patch.impact is Impact.NONE:
        return f"{patch.kind} is a patch of class none: guests run on (method: {ways})"
    if not method.freezes:
        return f"{patch.kind} needs a freeze (method: {ways})"
    return f"{patch.kind} cannot be applied under {method} (method: {ways})"
