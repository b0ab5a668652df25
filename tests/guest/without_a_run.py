"""Guests that a test or a benchmark starts by itself, with what a run would start them with."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.core.plan import CycleSpec, Expectations, FreezeMethod, GuestSpec, HoldPatch, Plan, ResyncMechanism
from lab.core.units import NS_PER_S
from lab.hypervisor.accelerators import AcceleratorRequest, choose
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connection import connect
from lab.ports import Clock
from lab.session.images import images_for, proof_kernel
from lab.session.run_folders import new_run_folder
from lab.session.settings import Settings

SUSPEND = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(NS_PER_S))


@contextmanager
def settings_for(
    home: Path,
    name: str,
    guests: Sequence[GuestSpec],
    mechanism: ResyncMechanism,
    clock: Clock,
    cycle: CycleSpec = SUSPEND,
    **settings: Any,
) -> Iterator[tuple[LibvirtHypervisor, Settings, Plan]]:
    """The embedded driver in `home`, a run's folder called `name` there, and a plan of these guests; their
    image is built if it is not cached. settings: more of Settings."""
    plan = Plan(name, "", "", tuple(guests), mechanism, cycle, Expectations())
    images = images_for(plan, lambda _stage, _fraction: None)
    hypervisor = opened(home, clock)
    kernel = proof_kernel(images.values(), lambda _stage, _part: None)
    choice = choose(AcceleratorRequest.AUTO, kernel, home)
    run, folder = new_run_folder(home, name)
    emulator = hypervisor.emulator(choice.accelerator)
    yield hypervisor, Settings(run, home, folder, images, choice, emulator, **settings), plan


_OPEN: dict[Path, LibvirtHypervisor] = {}


def opened(home: Path, clock: Clock) -> LibvirtHypervisor:
    """The embedded driver in `home`, which stays open: a process can open it only some sixteen times
    (findings/libvirt-embed-opens.sh)."""
    if home not in _OPEN:
        _OPEN[home] = connect(None, home, clock=clock)
    _OPEN[home].on_step(lambda _guest, _step: None)
    return _OPEN[home]


def close_all() -> None:
    """Close what opened() has opened."""
    while _OPEN:
        _OPEN.popitem()[1].close()


atexit.register(close_all)
