"""A plan's cells, one after another: guests that serve a cell, its patch, its cycles."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from lab.cli.session import Guests, Settings, check_memory
from lab.controller import Controller, Subject
from lab.core.method import FreezeMethod
from lab.core.patch import Patch
from lab.core.plan import Cell, GuestSpec, Plan, ResyncMechanism
from lab.errors import FreezelabError, Interrupted, Refused
from lab.host import emulators, emulators_fetch, patches
from lab.host.patches import Tools
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.image.store import default_cache
from lab.ports import Clock, HostPatch, View
from lab.record.journal import FileJournal

Shield = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class _Kind:
    """What decides whether a cell can have the guests of the one before."""

    guests: tuple[GuestSpec, ...]
    resync: ResyncMechanism
    shared_memory: bool
    guest_sleep: bool


def kind_of(cell: Cell) -> _Kind:
    """The guests that a cell needs."""
    method = cell.cycle.method
    return _Kind(cell.guests, cell.resync, method.shares_memory, method is FreezeMethod.GUEST_SLEEP)


class Cells:
    """Runs a plan's cells with one hypervisor. A context manager; guests of the last cell go with it.

    settings: what all cells' guests are made with. checked: the patch of a plan without a matrix, which was
    looked at before anything was started.
    """

    def __init__(
        self,
        plan: Plan,
        hypervisor: LibvirtHypervisor,
        settings: Settings,
        clock: Clock,
        view: View,
        journal: FileJournal,
        shield: Shield,
        checked: HostPatch | None,
    ) -> None:
        self._checked = checked
        self._plan, self._hypervisor, self._settings = plan, hypervisor, settings
        self._clock, self._view, self._journal = clock, view, journal
        self._controller = Controller(clock, hypervisor, journal, view, shield)
        self._stack = ExitStack()
        self._kind: _Kind | None = None
        self._subjects: dict[str, Subject] = {}
        self._index = 0

    def __enter__(self) -> Cells:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.__exit__(None, None, None)

    def run(self) -> None:
        """All of them. Without a matrix a failure ends the run; in one, it ends its cell, and is told."""
        cells = self._plan.parts
        for cell in cells:
            if not cell.id:
                self._one(cell)
                continue
            self._journal.append("cell", id=cell.id)
            self._view.note(f"cell {cell.id}")
            try:
                self._one(cell)
            except Interrupted:
                raise
            except FreezelabError as error:
                refused = isinstance(error, Refused)
                self._view.note(f"{'refused' if refused else 'not run'}: {error}")
                self._journal.append("cell", id=cell.id, skipped=str(error).split("\n")[0], refused=refused)
                self._drop()

    def _one(self, cell: Cell) -> None:
        patch = self._checked
        if patch is None:
            patch = make_patch(cell.cycle.patch, self._hypervisor, self._settings, self._clock, self._view)
            patch.check()
        subjects = self._guests(cell)
        mine = sum(part.repeat + part.control for part in self._plan.parts)
        try:
            for number in range(cell.control + cell.repeat):
                self._view.cycle(self._index + 1, mine)
                self._controller.run_cycle(
                    self._index, subjects, cell.cycle, patch, frozen=number >= cell.control
                )
                self._index += 1
        finally:
            if undone := patch.undo():
                self._journal.append("undo", cell=cell.id, what=undone)
                self._view.note(f"undone: {undone}")

    def _guests(self, cell: Cell) -> dict[str, Subject]:
        """Guests for the cell: those that are there, if they serve it too, and are as they were started."""
        kind = kind_of(cell)
        if kind != self._kind or cell.cycle.method is FreezeMethod.REBOOT:
            self._drop()
            check_memory(cell.guests)
            settings = replace(
                self._settings, shared_memory=kind.shared_memory, guest_sleep=kind.guest_sleep, cell=cell.id
            )
            guests = self._stack.enter_context(
                Guests(self._hypervisor, settings, self._clock, self._view, self._journal)
            )
            self._subjects = guests.up(cell.guests, cell.resync)
            self._kind = kind
        return {name: replace(subject, cell=cell.id) for name, subject in self._subjects.items()}

    def _drop(self) -> None:
        self._kind = None
        self._subjects = {}
        stack, self._stack = self._stack, ExitStack()
        stack.close()


def make_patch(
    spec: Patch, hypervisor: LibvirtHypervisor, settings: Settings, clock: Clock, view: View
) -> HostPatch:
    """The host patch that a plan asks for, with what only the command line knows."""
    tools = Tools(
        guest_emulator=lambda guest: f"QEMU {hypervisor.emulator_of(guest)}",
        emulator=lambda name: find_emulator(name, settings.emulator.path, view.note),
        uri=hypervisor.uri,
        reconnect=hypervisor.reconnect,
        accelerator=settings.accelerator.accelerator.value,
        accelerator_reason=settings.accelerator.reason,
        emulator_pids=hypervisor.pids,
    )
    return patches.make(spec, clock, tools)


def find_emulator(name: str, own: Path, say: Callable[[str], None]) -> Path:
    """The emulator that a playbook names: "same", a path, or a suite's, fetched if it is not here yet."""
    if name in ("", "same"):
        return own
    cache = default_cache()
    if "/" in name or any(one.is_called(name) for one in emulators.listing(cache)):
        return emulators.find(name, cache)
    return emulators_fetch.fetch(name, cache, say).path
