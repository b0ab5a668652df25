"""Runs a plan's cells, one after another: guests for a cell, its patch, its cycles."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from lab.controller import Controller, CycleGuest, CycleRunner, RolloutRunner, reported
from lab.core.history import CellReached, PatchUndone
from lab.core.parallel_cells import batches
from lab.core.patch import HoldPatch, Patch
from lab.core.plan import Announcement, Cell, GuestSpec, Plan, ToleranceSpec
from lab.core.rollout import waves
from lab.errors import FreezelabError, GuestError, HypervisorError, Interrupted, Refused
from lab.host import patches
from lab.host.patches import Hold, Tools
from lab.hypervisor.accelerators import Choice
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.facts import Emulator
from lab.ports import Announcer, Clock, HostPatch, View, WorkloadClient
from lab.process.pace import PACE
from lab.process.signals import Teardown, shield
from lab.record.journal import FileJournal
from lab.session.emulators import find_emulator
from lab.session.guests import Guests
from lab.session.images import check_images
from lab.session.own_guests import check_cells
from lab.session.settings import Settings, check_memory, lab_key

if TYPE_CHECKING:
    from lab.core.workload.tolerance import ToleranceTry
    from lab.session.tolerance import CycleEvents, EarlierTries

Shield = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class _Kind:
    """The facts that decide whether a batch of cells can reuse the guests of the one before."""

    guests: frozenset[GuestSpec]
    shared_memory: bool
    guest_sleep: bool
    devices: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, batch: Sequence[Cell]) -> _Kind:
        method = batch[0].cycle.method
        guests = frozenset(spec for cell in batch for spec in cell.guests)
        devices = frozenset(_devices(batch).items())
        return cls(guests, method.traits.shares_memory, method.sleeps, devices)

    def serves(self, other: _Kind) -> bool:
        """True when guests of this kind suit the other."""
        return other.guests <= self.guests and replace(other, guests=self.guests) == self


class Cells:
    """Runs a plan's cells with one hypervisor. A context manager; guests of the last cell go with it.

    settings: those of all cells' guests. earlier: tries of a search that goes on. checked: the patch of a
    plan without a matrix, checked before anything was started. measured: the last cycle of the last cell is
    complete; later failures are failures of the clean-up.
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
        earlier: EarlierTries | None = None,
    ) -> None:
        self._earlier = earlier
        self._tries: dict[str, list[ToleranceTry]] = {}
        self._checked = checked
        self._plan, self._hypervisor, self._settings = plan, hypervisor, settings
        self._clock, self._view, self._journal = clock, view, journal
        self._controller = Controller(clock, hypervisor, journal, view, shield, settings.meeting, PACE.factor)
        self._shield = shield
        self._stack = self._teardown()
        self._kind: _Kind | None = None
        self._guests: Guests | None = None
        self._index = 0
        self._through = False
        self.measured = False

    def __enter__(self) -> Cells:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, value, trace)

    def run(self) -> None:
        """Run all cells. Without a matrix a failure ends the run; in a matrix it ends its cell and is
        reported. The next cell has the same guests after a refusal, and new ones after any other failure. A
        failure after a cell's last cycle does not affect the cell; it is raised at the end."""
        together = batches(self._plan)
        waved = self._waves()
        total = sum(batch[0].repeat * waved + batch[0].control for batch in together)
        not_undone: FreezelabError | None = None
        for batch in together:
            for cell in batch:
                if cell.id:
                    self._journal.append(CellReached(cell.id))
                    self._view.note(f"cell {cell.id}")
            self._through = False
            try:
                self._batch(batch, total)
            except Interrupted:
                raise
            except FreezelabError as error:
                if self._through:
                    not_undone = not_undone or error
                else:
                    for cell in batch:
                        self._skip(cell, error)
                if not isinstance(error, Refused):  # then nothing was tried, and the guests are as they were
                    self._drop()
        self.measured = True
        if not_undone is not None:
            raise not_undone

    def _teardown(self) -> Teardown:
        return Teardown(self._view.note, self._hypervisor.recover_command)

    def _waves(self) -> int:
        """The number of cycles in which every guest is frozen once."""
        rollout = self._plan.rollout
        return len(waves(self._settings.fleet or self._plan.guests, rollout)) if rollout is not None else 1

    def _skip(self, cell: Cell, error: FreezelabError) -> None:
        if not cell.id:
            raise error
        refused = isinstance(error, Refused)
        self._view.note(f"{cell.id} {'refused' if refused else 'not run'}: {error}")
        self._journal.append(CellReached(cell.id, str(error).split("\n")[0], refused))

    def _batch(self, batch: Sequence[Cell], total: int) -> None:
        """Run cells that run together: one, unless the matrix has side_by_side."""
        cycle, control, repeat = batch[0].cycle, batch[0].control, batch[0].repeat
        if self._has_been_searched(batch[0]):
            self._through = True
            return
        patch = self._checked
        if patch is None:
            choice, emulator = self._settings.accelerator, self._settings.emulator
            patch = make_patch(cycle.patch, self._hypervisor, choice, emulator, self._clock, self._view)
            patch.check()
        guests = self._serving(batch)
        with self._teardown() as stack:
            subjects = self._equipped(batch, guests, stack)
            for spec in (spec for cell in batch for spec in cell.guests if spec.is_peer):
                subjects.pop(spec.name, None)
            if not subjects:
                return
            announcer = None
            if cycle.announce is not None and repeat:
                announcer, subjects = self._announcer(batch[0], guests, subjects, stack)
            clients = self._workloads(batch, guests, stack)
            runner = CycleRunner(
                self._controller, self._clock, self._journal, self._view, batch[0], patch, announcer, clients
            )
            search, tried = batch[0].tolerance, None
            if search is not None:
                from lab.session.tolerance import CycleEvents

                tried = CycleEvents(self._journal)
            try:
                for _ in range(control):
                    self._view.cycle(self._index + 1, total)
                    with reported(clients, tried or self._journal, self._index):
                        self._controller.run_cycle(self._index, subjects, cycle, patch, frozen=False)
                    self._index += 1
                if search is not None and tried is not None:
                    self._search(runner, search, subjects, tried)
                for _ in range(repeat if search is None else 0):
                    self._view.cycle(self._index + 1, total)
                    if not self._rollout_or_cycle(runner, subjects, guests):
                        break
                self._through = True
            finally:
                with shield():
                    if undone := patch.undo():
                        self._journal.append(PatchUndone(batch[0].id, undone))
                        self._view.note(f"undone: {undone}")

    def _workloads(
        self, batch: Sequence[Cell], guests: Guests, stack: ExitStack
    ) -> tuple[WorkloadClient, ...]:
        """The clients of the batch's workloads, until `stack` is left."""
        if not any(cell.workloads for cell in batch):
            return ()
        from lab.session.workloads import CellWorkloads

        folder = self._settings.folder
        clients: list[WorkloadClient] = []
        for cell in batch:
            starting = CellWorkloads(
                *(cell, guests.probes, guests.address, guests.network, folder),
                *(self._clock, self._view, self._journal, self._hypervisor.state),
            )
            clients += starting.start(stack)
        return tuple(clients)

    def _has_been_searched(self, cell: Cell) -> bool:
        """Whether an earlier run has ended the cell's search; its tries become part of this run's history."""
        if self._earlier is None or cell.tolerance is None:
            return False
        from lab.session.tolerance import is_complete

        self._tries[cell.id] = tries = self._earlier.journalled(cell, self._journal)
        if tries:
            self._view.note(f"{len(tries)} tries are known from run {self._earlier.run}")
        return is_complete(cell, tries)

    def _search(
        self, runner: CycleRunner, spec: ToleranceSpec, subjects: dict[str, CycleGuest], events: CycleEvents
    ) -> None:
        """Search the shortest pause that the cell's workload fails at. events: those of control cycles."""
        from lab.session.tolerance import search

        controller = Controller(
            self._clock, self._hypervisor, events, self._view, self._shield, pace=PACE.factor
        )

        def run(pause_ns: int) -> None:
            patch = Hold(HoldPatch(pause_ns), self._clock)
            trying = replace(runner, controller=controller, patch=patch, journal=events)
            trying.run(self._index, subjects)
            self._index += 1

        cell = runner.cell
        search(cell, spec, events, self._index, run, self._clock, self._view, self._tries.get(cell.id, ()))

    def _announcer(
        self, cell: Cell, guests: Guests, subjects: dict[str, CycleGuest], stack: ExitStack
    ) -> tuple[Announcer, dict[str, CycleGuest]]:
        """The metadata service for a cell with an announcement, until `stack` is left, and its guests with
        their handlers."""
        from lab.session.announcer import CellMetadataService

        settings = self._settings
        sockets = settings.home / "doors" / secrets.token_hex(3)
        _, key = lab_key(settings.home)
        announcing = CellMetadataService(
            self._hypervisor,
            self._clock,
            self._view,
            self._journal,
            cell.id,
            sockets,
            settings.folder,
            key,
            lambda spec: settings.secret_values(spec).mask,
            settings.meeting,
        )
        specs = [spec for spec in cell.guests if spec.name in subjects]
        announcer = announcing.start(
            cell.cycle.announce or Announcement(), specs, guests.probes, stack, guests.call_off
        )
        listening = {
            name: replace(
                subject,
                booted=partial(_both, subject.booted, partial(announcing.booted, name)),
                handler_end=partial(announcing.handler_end, name),
            )
            for name, subject in subjects.items()
        }
        return announcer, listening

    def _rollout_or_cycle(self, runner: CycleRunner, subjects: dict[str, CycleGuest], guests: Guests) -> bool:
        """Freeze the guests, all together or domain by domain. False when a gate stopped the rollout."""
        rollout = self._plan.rollout
        if rollout is None:
            runner.run(self._index, subjects)
            self._index += 1
            return True
        from lab.guest.health import GuestDoctor
        from lab.session.announcer import ssh_of

        cell = runner.cell
        fleet = RolloutRunner(
            rollout,
            cell.guests,
            self._clock,
            self._journal,
            self._view,
            GuestDoctor(
                {name: partial(ssh_of, probe) for name, probe in guests.probes.items()},
                self._clock,
                {spec.name: self._settings.secret_values(spec).mask for spec in cell.guests},
            ),
            cell.expectations.tolerance_ns,
            self._settings.fleet,
            self._settings.meeting,
        )
        stopped = fleet.roll_out(self._index, subjects, runner.run)
        self._index += len(fleet.waves)
        return stopped is None

    def _serving(self, batch: Sequence[Cell]) -> Guests:
        """Guests for the batch: the present ones, if they suit it and are unchanged since their start."""
        kind = _Kind.of(batch)
        if self._kind is None or self._guests is None or not self._kind.serves(kind):
            self._drop()
            check_cells(batch)
            for cell in batch:
                check_images(cell, self._settings.images)
            check_memory([spec for cell in batch for spec in cell.guests])
            settings = replace(
                self._settings,
                shared_memory=kind.shared_memory,
                guest_sleep=kind.guest_sleep,
                devices=dict(kind.devices),
                boots_anew=batch[0].cycle.method.boots_anew,
            )
            guests = self._stack.enter_context(
                Guests(self._hypervisor, settings, self._clock, self._view, self._journal)
            )
            guests.boot({spec: cell.id for cell in batch for spec in cell.guests})
            self._guests, self._kind = guests, kind
        if batch[0].cycle.method.boots_anew:
            self._kind = None  # what was rebooted serves nobody else
        return self._guests

    def _equipped(self, batch: Sequence[Cell], guests: Guests, stack: ExitStack) -> dict[str, CycleGuest]:
        """Every cell's guests with their resync mechanisms, installed in parallel; without those of cells for
        which that failed, which are skipped."""
        self._view.phase("time sync", guest=", ".join(cell.resync for cell in batch))
        if any(cell.resync.uses_ntp for cell in batch):
            guests.serve_time(self._plan.ntp_offset_ns, self._plan.ntp_fault)
        subjects: dict[str, CycleGuest] = {}
        broken = False
        pool = ThreadPoolExecutor(len(batch))
        try:
            for cell, begun in [(cell, pool.submit(guests.equip, cell, stack)) for cell in batch]:
                try:
                    subjects |= begun.result()
                except Refused as error:
                    self._skip(cell, error)
                except (GuestError, HypervisorError) as error:
                    broken = True
                    self._skip(cell, error)
        except BaseException:
            guests.call_off()  # or they would be waited for
            raise
        finally:
            with shield():
                pool.shutdown(cancel_futures=True)
        if broken:
            self._kind = None  # nobody knows what state it is in
        return subjects

    def _drop(self) -> None:
        self._kind = None
        self._guests = None
        stack, self._stack = self._stack, self._teardown()
        stack.close()


def _devices(batch: Sequence[Cell]) -> dict[str, str]:
    """The devices of QEMU's that mechanisms need, by guest."""
    needed = ((spec.name, cell.resync.traits.device) for cell in batch for spec in cell.guests)
    return {name: device for name, device in needed if device}


def _both(first: Callable[[], None] | None, then: Callable[[], None]) -> None:
    if first is not None:
        first()
    then()


def make_patch(
    spec: Patch, hypervisor: LibvirtHypervisor, choice: Choice, emulator: Emulator, clock: Clock, view: View
) -> HostPatch:
    """The host patch of a plan. choice, emulator: those with which its guests were started."""
    tools = Tools(
        guest_emulator=lambda guest: f"QEMU {hypervisor.emulator_of(guest)}",
        emulator=lambda name: find_emulator(name, emulator.path, view.note),
        uri=hypervisor.uri,
        reconnect=hypervisor.reconnect,
        accelerator=choice.accelerator.value,
        accelerator_reason=choice.reason,
        emulator_pids=hypervisor.domains.pids,
    )
    return patches.make(spec, clock, tools)
