"""The `patch` section: what is done to the host, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from lab.core import patch as core
from lab.core.patch import Impact, UnitScope
from lab.playbook.fields import (
    Duration,
    DurationOrZero,
    Or,
    OrOne,
    Words,
    default,
    needed,
    section,
    section_of,
    time,
)
from lab.playbook.hosts import (
    ansible_playbook,
    emulator,
    file,
    module,
    option,
    release,
    service,
    way_back,
)
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import one_of
from lab.playbook.tree import Items, Map, Scalar

_EXTRAS = ("deadline", "impact", "undo", "inventory")

Emulator = Annotated[str, emulator()]
Module = Annotated[str, module()]
AnsiblePlaybook = Annotated[str, ansible_playbook()]
Inventory = Annotated[str, file("an inventory", "write its path, or a host with a comma, like lab-host,")]
Machine = Annotated[str, option("a machine type", "write it like pc-q35-7.2")]
Cpu = Annotated[str, option("a CPU model", "write it like qemu64, with features after commas")]
PatchImpact = Annotated[Impact, one_of(*Impact, hint="an impact")]
Timed = TypeVar(
    "Timed", core.RestartLibvirtPatch, core.ReloadKvmPatch, core.MicrocodePatch, core.LivepatchPatch
)
Service = Annotated[str, service()]
Scope = Annotated[UnitScope, one_of(*UnitScope, hint="a scope")]
RestartImpact = Annotated[Impact, one_of(Impact.FREEZE, Impact.NONE, hint="an impact of a restart")]
MOST_KERNELS = 16
WayBack = Annotated[tuple[str, ...] | str, way_back()]


def _one_or_some(node: object) -> object:
    """One release stands for a list of it."""
    if isinstance(node, Items) and not 0 < len(node) <= MOST_KERNELS:
        raise Wrong("1 to 16 kernels are needed here", "write it like [6.12, 6.1]")
    return [node] if isinstance(node, Scalar) else node


Releases = Annotated[
    list[Annotated[str, release()]],
    BeforeValidator(_one_or_some),
    OrOne(),
    Field(json_schema_extra={"minItems": 1, "maxItems": MOST_KERNELS}),
]


class Replacement(BaseModel):
    """What the hypervisor under the guests is replaced by."""

    model_config = section("{emulator: backports}, or same", minProperties=1)

    emulator: Emulator | None = default(
        None,
        "A path, the name of an emulator that `freezelab emulator fetch` got, or same "
        "(the default): a new process of the guest's own.",
    )
    machine: Machine | None = default(
        None, "Machine type. Default: the guest's; any other is refused before the freeze."
    )
    cpu: Cpu | None = default(
        None, "CPU model. Default: the guest's; any other is refused before the freeze."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.emulator is None and self.machine is None and self.cpu is None:
            raise Wrong("no emulator is given", "write same, a path, or the name of a fetched emulator")
        return self

    def to_plan(self) -> core.ReplaceHypervisorPatch:
        """The patch as the plan has it."""
        return core.ReplaceHypervisorPatch(self.emulator or "", self.machine or "", self.cpu or "")


class Deadline(BaseModel):
    """How long a patch may take; it may be left out."""

    model_config = section("{deadline: 20s}")

    deadline: Duration | None = default(None, "The patch fails when it takes longer than this.")


class RestartedService(BaseModel):
    """Which service of the host is restarted."""

    model_config = section("{unit: nginx}, or its name")

    unit: Service = needed("Its name in systemd; .service may be left out.", "nginx", "chrony.service")
    scope: Scope = default(
        UnitScope.SYSTEM,
        "The systemd that manages it. system: the host's. user: that of the user who runs freezelab.",
        UnitScope.SYSTEM,
    )
    deadline: Duration = time(
        core.RestartServicePatch.deadline_ns, "The patch fails when it takes longer than this."
    )
    impact: RestartImpact = default(
        core.RestartServicePatch.impact,
        "What it requires of the guests. freeze: they are frozen. none: they run on.",
        core.RestartServicePatch.impact,
    )

    def to_plan(self) -> core.RestartServicePatch:
        """The patch as the plan has it."""
        return core.RestartServicePatch(self.unit, self.scope, self.deadline, self.impact)


class HostKernels(BaseModel):
    """Which kernels the lab host's is replaced by."""

    model_config = section("{kernels: [6.12, 6.1]}, or one release")

    kernels: Releases = needed(
        "Kernels that the lab host has, each by its release or the beginning of it: one a cycle, in turn.",
        "6.12",
    )
    deadline: Duration = time(
        core.ReplaceHostKernelPatch.deadline_ns,
        "The patch fails when the new kernel has not restored the guest by then; it goes on when it is.",
    )

    def to_plan(self) -> core.ReplaceHostKernelPatch:
        """The patch as the plan has it."""
        return core.ReplaceHostKernelPatch(tuple(self.kernels), self.deadline)


@dataclass(frozen=True)
class _PatchKey:
    """What belongs to a patch's key. to_plan: the patch that it stands for. beside: keys that may stand next
    to it. inside: those of its section. needs_deadline: it has no usual one. bare: a word says it."""

    to_plan: Callable[[Patch], core.Patch]
    beside: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    needs_deadline: bool = False
    bare: bool = False


_KINDS = {
    "hold": _PatchKey(lambda given: core.HoldPatch(given.hold or 0)),
    "command": _PatchKey(
        lambda given: core.CommandPatch(
            given.command or (),
            given.deadline or 0,
            given.impact or Impact.FREEZE,
            given.undo if isinstance(given.undo, tuple) else (),
        ),
        ("deadline", "impact", "undo"),
        needs_deadline=True,
    ),
    "replace-hypervisor": _PatchKey(lambda given: (given.replace_hypervisor or Replacement()).to_plan()),
    "restart-libvirt": _PatchKey(
        lambda given: _timed(core.RestartLibvirtPatch(), given.restart_libvirt), bare=True
    ),
    "restart-service": _PatchKey(
        lambda given: (given.restart_service or RestartedService(unit="")).to_plan(),
        inside=("deadline", "impact"),
    ),
    "reload-kvm": _PatchKey(lambda given: _timed(core.ReloadKvmPatch(), given.reload_kvm), bare=True),
    "replace-host-kernel": _PatchKey(
        lambda given: (given.replace_host_kernel or HostKernels(kernels=[])).to_plan(), inside=("deadline",)
    ),
    "microcode": _PatchKey(lambda given: _timed(core.MicrocodePatch(), given.microcode), bare=True),
    "livepatch": _PatchKey(
        lambda given: _timed(core.LivepatchPatch(given.livepatch or ""), given), ("deadline",)
    ),
    "ansible": _PatchKey(
        lambda given: core.AnsiblePatch(
            given.ansible or "",
            given.deadline or 0,
            given.inventory or "",
            given.impact or Impact.FREEZE,
            given.undo if isinstance(given.undo, str) else "",
        ),
        ("deadline", "inventory", "impact", "undo"),
        needs_deadline=True,
    ),
}
BARE = tuple(name for name, kind in _KINDS.items() if kind.bare)


class Patch(BaseModel):
    """What is done to the host: exactly one of hold, command, replace-hypervisor, restart-libvirt,
    restart-service, reload-kvm, replace-host-kernel, microcode, livepatch and ansible."""

    model_config = section(
        "{hold: 5s}",
        oneOf=[
            {
                "required": [name, *(["deadline"] if kind.needs_deadline else [])],
                "properties": {
                    other: False
                    for other in (*_KINDS, *_EXTRAS)
                    if other != name and other not in kind.beside
                },
            }
            for name, kind in _KINDS.items()
        ],
    )

    hold: DurationOrZero | None = default(
        None, "Change nothing for this long. It may exceed the budget, to rehearse an overrun."
    )
    command: Words | None = default(
        None, "Run this program on the host: a list of arguments, without a shell."
    )
    replace_hypervisor: Annotated[Replacement, section_of("emulator"), Or(emulator().json)] | None = default(
        None,
        "Replace the emulator under the guests: a path, the name of a fetched emulator, same, or a section.",
        alias="replace-hypervisor",
    )
    restart_libvirt: Deadline | None = default(
        None, "Restart libvirt's daemon; may be written as a word.", alias="restart-libvirt"
    )
    restart_service: Annotated[RestartedService, section_of("unit"), Or(service().json)] | None = default(
        None, "Restart a service of the host's systemd: its name, or a section.", alias="restart-service"
    )
    reload_kvm: Deadline | None = default(
        None,
        "Unload KVM's modules from the host's kernel and load them again; may be written as a word.",
        alias="reload-kvm",
    )
    replace_host_kernel: Annotated[HostKernels, section_of("kernels"), Or(release().json)] | None = default(
        None,
        "Replace the lab host's kernel by kexec, with the guest's memory left where it is: the new kernel's "
        "release, or a section. Needs --on labhost and --accept-loss.",
        alias="replace-host-kernel",
    )
    microcode: Deadline | None = default(None, "Load the CPUs' microcode; may be written as a word.")
    livepatch: Module | None = default(None, "Load this livepatch module into the host's kernel.")
    ansible: AnsiblePlaybook | None = default(None, "Run this Ansible playbook.")
    deadline: Duration | None = default(
        None,
        "Deadline of command and ansible (required) and livepatch (20 s): the patch is "
        "stopped then, and has failed.",
    )
    inventory: Inventory | None = default(None, "Inventory of ansible. Default: localhost.")
    impact: PatchImpact | None = default(
        None,
        "What command or ansible requires of the guests. none: they run on. freeze "
        "(the default): they are frozen. reboot: they are shut down and started again.",
    )
    undo: WayBack | None = default(
        None, "What reverts it: for command a list of arguments, for ansible another playbook."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = self._given(_KINDS)
        if not kinds:
            raise Wrong("the patch is empty", "write {hold: 5s}, or a command with a deadline")
        kind = kinds[0]
        if len(kinds) > 1:
            what = f"a patch has one kind, and {kind} and {kinds[1]} are two"
            raise Wrong(what, "keep one of them", within=(kinds[1],))
        for extra in self._given(_EXTRAS):
            if extra not in _KINDS[kind].beside:
                raise Wrong(f"{extra} does not go with {kind}", _instead(kind, extra), within=(extra,))
        if _KINDS[kind].needs_deadline and self.deadline is None:
            article = "an" if kind == "ansible" else "a"
            raise Wrong(f"{article} {kind} needs a deadline", "add deadline: 10s next to it", within=(kind,))
        if self.undo is not None and isinstance(self.undo, str) is (kind == "command"):
            todo = "write a list of words" if kind == "command" else "write its path, like ./undo.yml"
            raise Wrong(f"undo of {kind} has to be of the same kind", todo, within=("undo",))
        return self

    def _given(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if getattr(self, key.replace("-", "_")) is not None]

    def to_plan(self) -> core.Patch:
        """The patch as the plan has it."""
        return _KINDS[self._given(_KINDS)[0]].to_plan(self)


def _timed(patch: Timed, written: Deadline | Patch | None) -> Timed:
    deadline = written.deadline if written is not None else None
    return patch if deadline is None else replace(patch, deadline_ns=deadline)


def _instead(kind: str, extra: str) -> str:
    if extra in _KINDS[kind].inside:
        return f"write it in its section: {{{kind}: {{{extra}: …}}}}"
    if extra == "deadline":
        if kind in BARE:
            return f"write {{{kind}: {{deadline: 20s}}}}"
        if kind == "hold":
            return "delete it; the cycle's budget ends a long hold"
    homes = [name for name, other in _KINDS.items() if extra in other.beside]
    return f"delete it; it goes with {' and '.join(homes)}"


def _from_word(node: object) -> object:
    """`restart-libvirt` is {restart-libvirt: {}}."""
    if not isinstance(node, Scalar):
        return node
    word = node.text
    if word in BARE:
        long = Map(node.place)
        long[word] = Map(node.place)
        return long
    close = get_close_matches(word[:40].lower().replace("_", "-"), BARE, n=1)
    if close:
        raise Wrong(f"{quoted(word)} is not a patch", f"did you mean {close[0]}?")
    return node


PatchOrWord = Annotated[Patch, BeforeValidator(_from_word), Or({"type": "string", "enum": list(BARE)})]
