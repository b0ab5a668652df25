"""`freezelab up`: starts a guest that outlives the command."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.patch import HoldPatch
from lab.core.plan import SYSTEM, Cell, CycleSpec, Depth, Expectations, GuestSpec, Plan
from lab.core.units import NS_PER_S
from lab.errors import MachineError, Refused, UsageError
from lab.hypervisor.accelerators import AcceleratorRequest
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connection import connect
from lab.image.store import Image
from lab.process.clock import HostClock
from lab.process.signals import Signals, shield
from lab.record.journal import NullJournal
from lab.session.guest_host import prepare_host
from lab.session.guests import Guests
from lab.session.images import images_for
from lab.session.kept_guests import KeptGuest, read_all, write
from lab.session.paths import made
from lab.session.recovery import left_by_killed
from lab.session.settings import Furnishing, Settings, check_memory, memory_option
from lab.session.views import Views


def _as_it_is(image: Image) -> Image:
    return image


@dataclass(frozen=True)
class UpOptions:
    """Options of `up`. memory: in the form of playbooks. boot_s: None is the accelerator's default. nested:
    the guest can run guests on KVM itself. furnishing: None: it is booted, and does not start from a golden
    state. emulator: as in playbooks. kernel_options: further ones of the guest's kernel. booting: of its
    image, the one with the kernel that it boots."""

    name: str
    memory: str = "512MiB"
    vcpus: int = 1
    image: str = "debian"
    resync: str = "none"
    accelerator: AcceleratorRequest = AcceleratorRequest.AUTO
    boot_s: int | None = None
    nested: bool = False
    furnishing: Furnishing | None = None
    emulator: str = SYSTEM
    kernel_options: tuple[str, ...] = ()
    booting: Callable[[Image], Image] = _as_it_is


def up(home: Path, options: UpOptions, views: Views) -> KeptGuest:
    """Start a kept guest. UsageError when there is one of this name already."""
    spec = GuestSpec(
        *(options.name, options.image, options.vcpus, memory_option(options.memory)),
        kernel_options=options.kernel_options,
        emulator=options.emulator,
    )
    plan = plan_without_freeze("up", spec, _mechanism(options.resync))
    if any(guest.name == spec.name for guest in read_all(home)):
        hint = f"freezelab down {spec.name}, or another --name"
        raise UsageError("there is a kept guest of this name already", where=spec.name, hint=hint)
    check_memory(plan.guests)  # before an image is built for it
    clock = HostClock()
    with Signals(), views([spec.name]) as (view, progress):
        images = {key: options.booting(image) for key, image in images_for(plan, progress).items()}
        check_login(images.values())
        with connect(None, home, clock=clock, ends=left_by_killed(home)) as hypervisor:
            host = prepare_host(hypervisor, plan, images, home, view, options.accelerator)
            run = f"kept-{secrets.token_hex(3)}"
            folder = made(home / "guests" / run, private=True)
            settings = replace(
                host.settings(run, folder, options.boot_s),
                kept_guest=True,
                nested=options.nested,
                golden=options.furnishing is not None,
                furnishing=options.furnishing,
            )
            with Guests(hypervisor, settings, clock, view, NullJournal()) as guests:
                (cell,) = plan.parts
                guests.up(cell)
                (guest,) = leave_running(settings, hypervisor, guests, cell)
    return guest


def plan_without_freeze(
    name: str, spec: GuestSpec, mechanism: ResyncMechanism = ResyncMechanism.NONE
) -> Plan:
    """A plan of one guest that is started and not frozen."""
    nothing = CycleSpec(FreezeMethod.NONE, HoldPatch(NS_PER_S))
    return Plan(name, "", "", (spec,), mechanism, nothing, Expectations())


def check_login(images: Iterable[Image]) -> None:
    """Refused when guests of an image cannot be kept: nobody could log in to them."""
    for image in images:
        if image.depth is Depth.AGENT:
            what = f"image {image.name} has no SSH, which a kept guest needs"
            raise Refused(what, hint="use it in a playbook: freezelab run")


def leave_running(
    settings: Settings, hypervisor: LibvirtHypervisor, guests: Guests, cell: Cell
) -> list[KeptGuest]:
    """Leave a cell's guests running, as kept ones, when settings.kept_guest was set at their start."""
    with shield():
        kept = [_described(settings, hypervisor, guests, spec, cell.resync) for spec in cell.guests]
        for guest in kept:
            write(settings.home, guest)
        guests.leave()
    return kept


def _described(
    settings: Settings,
    hypervisor: LibvirtHypervisor,
    guests: Guests,
    spec: GuestSpec,
    mechanism: ResyncMechanism,
) -> KeptGuest:
    """The file of a running guest. MachineError when it has gone."""
    domain, address = hypervisor.spec(spec.name), guests.address(spec.name)
    if domain is None:
        raise MachineError("its domain has gone", where=spec.name)
    return KeptGuest(
        name=spec.name,
        run=settings.run,
        domain=domain.name,
        uuid=domain.uuid,
        image=settings.images[spec.image_key].label,
        memory_bytes=spec.memory_bytes,
        vcpus=spec.vcpus,
        resync=mechanism.value,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        host=address.host,
        port=address.port,
        user=address.user,
        key=str(address.key),
        host_key=address.host_key,
        known_hosts=str(settings.folder / "known_hosts"),
        console=str(domain.console_log),
        sockets=tuple(map(str, domain.sockets)),
        accelerator=settings.accelerator.accelerator.value,
        machine_uuid=domain.machine_uuid,
        mac=domain.mac,
    )


def _mechanism(text: str) -> ResyncMechanism:
    """A mechanism that works without the host's help. UsageError for an unknown name, Refused for one that
    needs the host."""
    try:
        mechanism = ResyncMechanism(text)
    except ValueError:
        known = ", ".join(m.value for m in ResyncMechanism if m.fits_kept_guest)
        raise UsageError(
            f"unknown mechanism {text!r}", where="--resync", hint=f"a kept guest can have: {known}"
        ) from None
    if mechanism.is_of_windows:
        raise Refused(f"{mechanism} is a part of Windows, and a kept guest is no Windows", where="--resync")
    if mechanism.needs_host:
        what = "the host's time server" if mechanism.uses_ntp else "an action at the resume"
        raise Refused(
            f"{mechanism.value} needs {what}, which exists only during a run",
            where="--resync",
            hint="use it as resync: in a playbook; a kept guest can have none",
        )
    return mechanism
