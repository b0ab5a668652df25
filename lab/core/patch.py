"""What is done to the host, by name: each patch is a value that knows what it does to guests.

Durations in nanoseconds. `kind` is the patch's name in playbooks and records.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from lab.core.method import FreezeMethod
from lab.core.units import NS_PER_S, format_duration


class Impact(StrEnum):
    """What a patch asks of the guests."""

    NONE = "none"  # guests run on
    FREEZE = "freeze"  # guests have to be frozen
    REBOOT = "reboot"  # cannot be done under a frozen guest: it is shut down, and started again


_FREEZES = tuple(method for method in FreezeMethod if method.freezes)


def _methods(impact: Impact) -> tuple[FreezeMethod, ...]:
    if impact is Impact.REBOOT:
        return (FreezeMethod.REBOOT,)
    return (FreezeMethod.NONE,) if impact is Impact.NONE else _FREEZES


@dataclass(frozen=True)
class HoldPatch:
    """Take a given time and change nothing."""

    duration_ns: int
    kind: Literal["hold"] = "hold"

    @property
    def label(self) -> str:
        return f"hold {format_duration(self.duration_ns)}"

    @property
    def impact(self) -> Impact:
        return Impact.FREEZE

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        """How guests may be treated meanwhile, the usual way first."""
        return (*_FREEZES, FreezeMethod.REBOOT, FreezeMethod.NONE)

    @property
    def longest_ns(self) -> int:
        return self.duration_ns


@dataclass(frozen=True)
class CommandPatch:
    """A program: argv, no shell, killed at its deadline. undo: the program that takes it back, or ()."""

    argv: tuple[str, ...]
    deadline_ns: int
    impact: Impact = Impact.FREEZE
    undo: tuple[str, ...] = ()
    kind: Literal["command"] = "command"

    @property
    def label(self) -> str:
        return f"command {self.argv[0]}"

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return _methods(self.impact)

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns


@dataclass(frozen=True)
class ReplaceHypervisorPatch:
    """The emulator under running guests exchanged for another binary, or started anew.

    emulator: a path, the name of one that `freezelab emulator fetch` got, or "" for the same binary.
    machine, cpu: "" leaves the guest's; another one is refused before the freeze, as QEMU would do in it.
    """

    emulator: str = ""
    machine: str = ""
    cpu: str = ""
    kind: Literal["replace-hypervisor"] = "replace-hypervisor"

    @property
    def label(self) -> str:
        return f"replace-hypervisor {self.emulator}".rstrip()

    @property
    def impact(self) -> Impact:
        return Impact.FREEZE

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return (FreezeMethod.IN_PLACE, FreezeMethod.SAVE_RESTORE)

    @property
    def longest_ns(self) -> int:
        return 0  # the freeze itself is the patch


@dataclass(frozen=True)
class RestartLibvirtPatch:
    """libvirt's daemon restarted; its guests stay as they are, paused."""

    deadline_ns: int = 20 * NS_PER_S
    kind: Literal["restart-libvirt"] = "restart-libvirt"

    @property
    def label(self) -> str:
        return self.kind

    @property
    def impact(self) -> Impact:
        return Impact.FREEZE

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        # Not sigstop: a daemon that starts talks to every QEMU it finds, and would wait for a stopped one.
        return (FreezeMethod.SUSPEND, FreezeMethod.GUEST_SLEEP)

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns


@dataclass(frozen=True)
class ReloadKvmPatch:
    """KVM's modules out of the host's kernel and in again. No QEMU may hold them meanwhile: the guest is RAM
    and a file of device state, and a new process takes it up."""

    deadline_ns: int = 10 * NS_PER_S
    kind: Literal["reload-kvm"] = "reload-kvm"

    @property
    def label(self) -> str:
        return self.kind

    @property
    def impact(self) -> Impact:
        return Impact.FREEZE

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return (FreezeMethod.IN_PLACE, FreezeMethod.SAVE_RESTORE)

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns


@dataclass(frozen=True)
class MicrocodePatch:
    """The CPUs' microcode loaded late (Linux, Documentation/arch/x86/microcode.rst)."""

    deadline_ns: int = 10 * NS_PER_S
    kind: Literal["microcode"] = "microcode"

    @property
    def label(self) -> str:
        return self.kind

    @property
    def impact(self) -> Impact:
        return Impact.FREEZE

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return _FREEZES

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns


@dataclass(frozen=True)
class LivepatchPatch:
    """A livepatch module for the host's kernel loaded and enabled; undone by disabling it (Linux,
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
        return (FreezeMethod.NONE, *_FREEZES)

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns


@dataclass(frozen=True)
class AnsiblePatch:
    """An Ansible playbook. inventory: "" is localhost. undo: the playbook that takes it back, or ""."""

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
    def methods(self) -> tuple[FreezeMethod, ...]:
        return _methods(self.impact)

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns


Patch = (
    HoldPatch
    | CommandPatch
    | ReplaceHypervisorPatch
    | RestartLibvirtPatch
    | ReloadKvmPatch
    | MicrocodePatch
    | LivepatchPatch
    | AnsiblePatch
)


def shortest_ns(patch: Patch) -> int:
    """How long guests stand still for it at least."""
    return patch.duration_ns if isinstance(patch, HoldPatch) else 0


def releases_hypervisor(patch: Patch) -> bool:
    """Whether no hypervisor process may be there while it is applied."""
    return isinstance(patch, ReloadKvmPatch)


def conflict(patch: Patch, method: FreezeMethod) -> str:
    """Why guests cannot be treated this way for this patch; "" when they can."""
    if method in patch.methods:
        return ""
    ways = " or ".join(patch.methods)
    if patch.impact is Impact.REBOOT:
        return (
            f"{patch.kind} is a patch of class reboot: it cannot be done under a frozen guest, "
            f"which has to be shut down and started again (method: {ways})"
        )
    if patch.impact is Impact.NONE:
        return f"{patch.kind} is a patch of class none: guests run on (method: {ways})"
    if not method.freezes:
        return f"{patch.kind} needs a freeze (method: {ways})"
    return f"{patch.kind} cannot be done under {method} (method: {ways})"
