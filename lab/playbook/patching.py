"""The `patch` section: what is done to the host, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from lab.core import patch as core
from lab.core.patch import Impact
from lab.core.units import format_duration
from lab.playbook.fields import Duration, DurationOrZero, Words, default, section
from lab.playbook.hosts import ansible_playbook, emulator, file, module, option, way_back
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import one_of
from lab.playbook.tree import Map, Scalar

BARE = ("restart-libvirt", "reload-kvm", "microcode")  # patches that a word says all about

# Each kind of patch, and what may and has to stand beside it.
_BESIDE: dict[str, tuple[str, ...]] = {
    "hold": (),
    "command": ("deadline", "impact", "undo"),
    "replace-hypervisor": (),
    "restart-libvirt": (),
    "reload-kvm": (),
    "microcode": (),
    "livepatch": ("deadline",),
    "ansible": ("deadline", "inventory", "impact", "undo"),
}
_TIMED = ("command", "ansible")  # their deadline has no default
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
WayBack = Annotated[tuple[str, ...] | str, way_back()]


def _only_emulator(node: object) -> object:
    if not isinstance(node, Scalar):
        return node
    long = Map(node.place)
    long["emulator"] = node
    return long


class Replacement(BaseModel):
    """What the hypervisor under the guests is replaced by."""

    model_config = section("{emulator: backports}, or same", minProperties=1)

    emulator: Emulator | None = default(
        None,
        "A path, the name of an emulator that `freezelab emulator fetch` got, or same (the default): the "
        "guest's own, started anew.",
    )
    machine: Machine | None = default(
        None, "Machine type. Left out: the guest's, and another one is refused before the freeze."
    )
    cpu: Cpu | None = default(
        None, "CPU model. Left out: the guest's, and another one is refused before the freeze."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.emulator is None and self.machine is None and self.cpu is None:
            raise Wrong("it is not said by which emulator", "write same, a path, or a fetched one's name")
        return self


class Deadline(BaseModel):
    """How long a patch may take; it may be left out."""

    model_config = section("{deadline: 20s}")

    deadline: Duration | None = default(None, "It has failed when it takes longer than this.")


class _OrEmulator:
    """In the JSON schema: the section, or the emulator alone."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), dict(emulator().json)]}


class Patch(BaseModel):
    """What is done to the host: exactly one of hold, command, replace-hypervisor, restart-libvirt,
    reload-kvm, microcode, livepatch and ansible."""

    model_config = section(
        "{hold: 5s}",
        oneOf=[
            {
                "required": [kind, *(["deadline"] if kind in _TIMED else [])],
                "properties": {
                    other: False for other in (*_BESIDE, *_EXTRAS) if other != kind and other not in beside
                },
            }
            for kind, beside in _BESIDE.items()
        ],
    )

    hold: DurationOrZero | None = default(
        None, "Change nothing and take this long. May exceed the budget, to rehearse an overrun."
    )
    command: Words | None = default(None, "Run this program on the host: a list of words, no shell.")
    replace_hypervisor: Annotated[Replacement, BeforeValidator(_only_emulator), _OrEmulator()] | None = (
        default(
            None,
            "Replace the emulator under the running guests: a path, the name of a fetched emulator, same, or "
            "a section.",
            alias="replace-hypervisor",
        )
    )
    restart_libvirt: Deadline | None = default(
        None, "Restart libvirt's daemon; a word says it too.", alias="restart-libvirt"
    )
    reload_kvm: Deadline | None = default(
        None,
        "Take KVM's modules out of the host's kernel and in again; a word says it too.",
        alias="reload-kvm",
    )
    microcode: Deadline | None = default(None, "Load the CPUs' microcode; a word says it too.")
    livepatch: Module | None = default(None, "Load this livepatch module into the host's kernel.")
    ansible: AnsiblePlaybook | None = default(None, "Run this Ansible playbook.")
    deadline: Duration | None = default(
        None, "Of command, ansible (needed) and livepatch (20 s): it is stopped, and has failed, after this."
    )
    inventory: Inventory | None = default(None, "Of ansible: its inventory. Left out: localhost.")
    impact: PatchImpact | None = default(
        None,
        "Of command and ansible, what it asks of the guests. none: they run on. freeze (the default): they "
        "are frozen. reboot: they are shut down, and started again.",
    )
    undo: WayBack | None = default(
        None, "What takes it back: of command another list of words, of ansible another playbook."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = self._given(_BESIDE)
        if not kinds:
            raise Wrong("the patch does nothing", "write {hold: 5s}, or a command with a deadline")
        kind = kinds[0]
        if len(kinds) > 1:
            what = f"a patch is one thing, and {kind} and {kinds[1]} are two"
            raise Wrong(what, "keep one of them", within=(kinds[1],))
        for extra in self._given(_EXTRAS):
            if extra not in _BESIDE[kind]:
                raise Wrong(f"{extra} does not go with {kind}", _instead(kind, extra), within=(extra,))
        if kind in _TIMED and self.deadline is None:
            article = "an" if kind == "ansible" else "a"
            raise Wrong(f"{article} {kind} needs a deadline", "add deadline: 10s next to it", within=(kind,))
        if self.undo is not None and isinstance(self.undo, str) is (kind == "command"):
            todo = "write a list of words" if kind == "command" else "write its path, like ./undo.yml"
            raise Wrong(f"{kind} is undone by another {kind}", todo, within=("undo",))
        return self

    def _given(self, keys: Sequence[str] | dict[str, Any]) -> list[str]:
        return [key for key in keys if getattr(self, key.replace("-", "_")) is not None]

    def meant(self) -> core.Patch:
        """The patch as the plan has it."""
        match self._given(_BESIDE)[0]:
            case "hold":
                return core.HoldPatch(self.hold or 0)
            case "command":
                undo = self.undo if isinstance(self.undo, tuple) else ()
                return core.CommandPatch(self.command or (), self.deadline or 0, self._impact, undo)
            case "replace-hypervisor":
                by = self.replace_hypervisor or Replacement()
                return core.ReplaceHypervisorPatch(by.emulator or "", by.machine or "", by.cpu or "")
            case "restart-libvirt":
                return _timed(core.RestartLibvirtPatch(), self.restart_libvirt)
            case "reload-kvm":
                return _timed(core.ReloadKvmPatch(), self.reload_kvm)
            case "microcode":
                return _timed(core.MicrocodePatch(), self.microcode)
            case "livepatch":
                return _timed(core.LivepatchPatch(self.livepatch or ""), self)
            case _:
                back = self.undo if isinstance(self.undo, str) else ""
                return core.AnsiblePatch(
                    self.ansible or "", self.deadline or 0, self.inventory or "", self._impact, back
                )

    @property
    def _impact(self) -> Impact:
        return self.impact or Impact.FREEZE


def _timed(patch: Timed, written: Deadline | Patch | None) -> Timed:
    deadline = written.deadline if written is not None else None
    return patch if deadline is None else replace(patch, deadline_ns=deadline)


def _instead(kind: str, extra: str) -> str:
    if extra == "deadline":
        if kind in BARE:
            return f"write {{{kind}: {{deadline: 20s}}}}"
        if kind == "hold":
            return "delete it; the cycle's budget ends a long hold"
    homes = [other for other, beside in _BESIDE.items() if extra in beside]
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


class _OrWord:
    """In the JSON schema: the section, or one of the words."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "string", "enum": list(BARE)}]}


PatchOrWord = Annotated[Patch, BeforeValidator(_from_word), _OrWord()]


def short(patch: core.Patch) -> str:
    """A patch in a word or two, for ids: "hold-5s", "replace-hypervisor-backports"."""

    def base(path: str) -> str:
        return path.rstrip("/").rsplit("/", 1)[-1].split(".")[0]

    match patch:
        case core.HoldPatch():
            return f"{patch.kind}-{format_duration(patch.duration_ns).replace(' ', '')}"
        case core.CommandPatch():
            return f"{patch.kind}-{base(patch.argv[0])}"
        case core.ReplaceHypervisorPatch():
            path = patch.emulator.rstrip("/").rsplit("/", 1)[-1]
            return "-".join(filter(None, (patch.kind, path or "same", patch.machine, patch.cpu)))
        case core.LivepatchPatch():
            return f"{patch.kind}-{base(patch.module)}"
        case core.AnsiblePatch():
            return f"{patch.kind}-{base(patch.playbook)}"
        case _:
            return patch.kind
