"""Host patches as values: each has its name, its description and what it requires of guests.

lab.playbook.patch_section has their form in playbooks, lab.host.patches applies them. docs/adding.md says how
to add one. Durations in nanoseconds.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from lab.core.method import FreezeMethod
from lab.core.units import NS_PER_S, format_duration


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


_FREEZES = tuple(method for method in FreezeMethod if method.freezes)
_FREEZES_FILES = tuple(method for method in FreezeMethod if method.needs_resume and not method.freezes)
_REBOOTS = tuple(method for method in FreezeMethod if method.boots_anew)
_RUNS_ON = tuple(method for method in FreezeMethod if method.runs_on and not method.needs_resume)

# Methods after which another process runs the guest, those that leave its memory in place first.
_REPLACES = tuple(
    sorted((m for m in _FREEZES if not m.keeps_process), key=lambda method: method.traits.copies_memory)
)


class PatchTraits:
    """The properties of a patch, with the values of most patches. kind: its name in playbooks and records."""

    kind: str

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
            return _REBOOTS
        return _RUNS_ON if self.impact is Impact.NONE else _FREEZES

    @property
    def shortest_ns(self) -> int:
        """The least time for which guests are stopped by it."""
        return 0

    @property
    def longest_ns(self) -> int:
        """Its deadline; 0: the freeze itself is the patch."""
        raise NotImplementedError

    @property
    def releases_hypervisor(self) -> bool:
        """Whether no hypervisor process may be there while it is applied."""
        return False

    @property
    def needs_run(self) -> bool:
        """Whether its check asks for what only a run has: a connection, an accelerator, fetched emulators.
        `freezelab plan` examines the others."""
        return False


class _TimedPatch(PatchTraits):
    """A patch with a deadline of its own."""

    deadline_ns: int

    @property
    def longest_ns(self) -> int:
        return self.deadline_ns


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
        return (*_FREEZES, *_FREEZES_FILES, *_REBOOTS, *_RUNS_ON)

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
class CommandPatch(_TimedPatch):
    """A program: argv, without a shell, killed at its deadline. undo: the program that reverts it, or ()."""

    argv: tuple[str, ...]
    deadline_ns: int
    impact: Impact = Impact.FREEZE
    undo: tuple[str, ...] = ()
    kind: Literal["command"] = "command"

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        more = _FREEZES_FILES if self.impact is Impact.FREEZE else ()  # what a backup does meanwhile
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

    @property
    def label(self) -> str:
        return f"replace-hypervisor {self.emulator}".rstrip()

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return _REPLACES

    @property
    def longest_ns(self) -> int:
        return 0

    @property
    def needs_run(self) -> bool:
        return True

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
class RestartLibvirtPatch(_TimedPatch):
    """Restarts libvirt's daemon; its guests stay as they are, paused."""

    deadline_ns: int = 20 * NS_PER_S
    kind: Literal["restart-libvirt"] = "restart-libvirt"

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        # A daemon that starts talks to every QEMU it finds, and would wait for one that does not answer.
        return tuple(
            m for m in _FREEZES if m.keeps_process and m.traits.monitor_answers and not m.traits.freezes_files
        )

    @property
    def needs_run(self) -> bool:
        return True

    @property
    def about(self) -> str:
        return "libvirt's daemon restarted"


class UnitScope(StrEnum):
    """The systemd that manages a unit."""

    SYSTEM = "system"  # the machine's init
    USER = "user"  # of the user who runs freezelab


@dataclass(frozen=True)
class RestartServicePatch(_TimedPatch):
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
class ReloadKvmPatch(_TimedPatch):
    """Unloads KVM's modules from the host's kernel and loads them again. No QEMU may use them meanwhile: the
    guest is RAM and a file of device state, and a new process continues it."""

    deadline_ns: int = 10 * NS_PER_S
    kind: Literal["reload-kvm"] = "reload-kvm"

    @property
    def methods(self) -> tuple[FreezeMethod, ...]:
        return tuple(method for method in _REPLACES if not method.traits.overlaps)

    @property
    def releases_hypervisor(self) -> bool:
        return True

    @property
    def needs_run(self) -> bool:
        return True

    @property
    def about(self) -> str:
        return "KVM's kernel modules unloaded and loaded again"


@dataclass(frozen=True)
class MicrocodePatch(_TimedPatch):
    """Loads the CPUs' microcode late (Linux, Documentation/arch/x86/microcode.rst)."""

    deadline_ns: int = 10 * NS_PER_S
    kind: Literal["microcode"] = "microcode"

    @property
    def about(self) -> str:
        return "late load of the CPUs' microcode"


@dataclass(frozen=True)
class LivepatchPatch(_TimedPatch):
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
        return (*_RUNS_ON, *_FREEZES)

    @property
    def short(self) -> str:
        return f"{self.kind}-{_base(self.module)}"

    @property
    def about(self) -> str:
        return f"livepatch {self.module} loaded into the host's kernel"


@dataclass(frozen=True)
class AnsiblePatch(_TimedPatch):
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
