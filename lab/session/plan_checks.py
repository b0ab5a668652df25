"""Checks of a plan on this host, before anything is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from lab.core.parallel_cells import batches
from lab.core.patch import ReplaceHypervisorPatch
from lab.core.plan import SYSTEM, Cell, GuestSpec, Plan
from lab.errors import FreezelabError, MachineError, UsageError
from lab.host import emulators, patches, taps
from lab.host.network import LabNetwork
from lab.hypervisor import freezer, memory
from lab.hypervisor.accelerators import boots_unsurely
from lab.image.store import ImageStore, default_cache
from lab.process.clock import HostClock
from lab.process.requirements import check_programs
from lab.session import paths
from lab.session.client_programs import client_obstacles
from lab.session.images import check_cell, check_image
from lab.session.settings import check_memory
from lab.session.setup_sources import setup_obstacles


def obstacles(plan: Plan) -> list[FreezelabError]:
    """The reasons for which a run of the plan, or of one of its cells, would be refused now, each once:
    images, memory, bridges (the lab's own too), and requirements of its patches."""
    found: dict[str, FreezelabError] = {}
    for check in _checks(plan):
        try:
            check()
        except FreezelabError as error:
            found.setdefault(str(error), error)
    return list(found.values())


def source_obstacles(plan: Plan) -> list[UsageError]:
    """What the playbook names and this host lacks: files, variables, clients of workloads."""
    return [*setup_obstacles(plan), *client_obstacles(plan)]


def cautions(plan: Plan) -> list[str]:
    """Warnings of what may go wrong on this host."""
    lacking = [str(error).replace("\n", "; ") for error in source_obstacles(plan)]
    return [*lacking, *_boot_cautions(plan)]


def _by_image(plan: Plan) -> dict[str, GuestSpec]:
    """A guest of each image that is needed."""
    guests = (guest for cell in plan.parts for guest in cell.guests)
    return {guest.image_key: guest for guest in guests if not guest.is_own}


def _boot_cautions(plan: Plan) -> list[str]:
    there = emulators.system()
    if there is None:
        return []
    store = ImageStore(paths.RECIPES, default_cache())
    found = []
    for name, guest in _by_image(plan).items():
        with suppress(FreezelabError):
            own = guest.emulator == SYSTEM
            qemu = emulators.version(there if own else emulators.find(guest.emulator, default_cache()))
            image = store.find(guest.image, guest.setup.packages)
            kernel = str(image.info.get("kernel_version", "")) if image is not None else ""
            if why := boots_unsurely(kernel, qemu):
                todo = "; write emulator: trixie" if own else ""
                found.append(f"image {name}: without KVM: {why}{todo}")
    return found


def _checks(plan: Plan) -> Iterator[Callable[[], object]]:
    guests = [guest for cell in plan.parts for guest in cell.guests if not guest.is_own]
    store = ImageStore(paths.RECIPES, default_cache())
    yield _check_libvirt
    for guest in guests:
        yield partial(_check_image, store, guest)
        if os.sep in guest.emulator:
            yield partial(emulators.find, guest.emulator, default_cache())
    for cell in plan.parts:
        yield partial(_check_cell, store, cell)
    for batch in batches(plan):
        together = [guest for cell in batch for guest in cell.guests]
        yield partial(check_memory, together)
        if batch[0].cycle.method.traits.shares_memory:
            yield partial(_check_shared, together)
        if together and batch[0].cycle.method.traits.in_cgroup:
            yield _check_freezer
    for bridge in dict.fromkeys(guest.bridge for guest in guests if guest.bridge):
        yield partial(taps.check, bridge)
    if plan.network is not None and plan.network.bridge:
        yield _check_bridge
    for patch in dict.fromkeys(cell.cycle.patch for cell in plan.parts):
        if not patch.needs_run:
            yield patches.make(patch, HostClock()).check
        elif isinstance(patch, ReplaceHypervisorPatch) and os.sep in patch.emulator:
            yield partial(emulators.find, patch.emulator, default_cache())


def _check_bridge() -> None:
    """Check that the lab's network can have a bridge, by making one."""
    with LabNetwork({}, bridge=True):
        pass


def _check_freezer() -> None:
    """Check that QEMU, which starts in the cgroup of this process, can be frozen."""
    if why := freezer.obstacle(os.getpid()):
        raise MachineError(why, where="method host-sleep", hint=freezer.HINT)


def _check_libvirt() -> None:
    import lab.hypervisor.binding  # noqa: F401 - an expected failure when the library is missing


def _check_image(store: ImageStore, guest: GuestSpec) -> None:
    """Check that the guest's image exists or can be built, and allows what the guest asks for."""
    image = store.find(guest.image, guest.setup.packages)
    check_programs(images=image is None)
    check_image(guest, image)


def _check_cell(store: ImageStore, cell: Cell) -> None:
    """Check that the cell's guests can do what it asks of them."""
    for guest in cell.guests:
        image = None if guest.is_own else store.find(guest.image, guest.setup.packages)
        if image is not None:
            check_cell(cell, guest, image)


def _check_shared(specs: list[GuestSpec]) -> None:
    """Check that there is room for RAM in files."""
    for huge in (False, True):
        needed = sum(spec.memory_bytes for spec in specs if spec.huge_pages is huge)
        if needed:
            memory.check_room(memory.huge_page_folder() if huge else Path(memory.SHM), needed)
