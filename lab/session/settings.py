"""Settings of guests, their data before and after the start, and shared resources."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.controller.meeting import Meeting
from lab.core.network import NetworkSpec
from lab.core.plan import Depth, GuestSpec
from lab.core.secret_values import SecretValues
from lab.core.setup import Secret
from lab.core.units import format_size, parse_size
from lab.errors import FreezelabError, MachineError, Refused, UsageError
from lab.guest.address import Address, RefusedError, load_key
from lab.guest.ssh import SSH
from lab.hypervisor import memory
from lab.hypervisor.accelerators import Choice
from lab.hypervisor.domain import Accelerator, DomainSpec
from lab.image.identity import make_key, write_key
from lab.image.store import Image
from lab.process.pace import paced
from lab.session.guest_seed import GuestSeed
from lab.session.paths import made

if TYPE_CHECKING:
    from lab.hypervisor.adapter import LibvirtHypervisor
    from lab.hypervisor.facts import Emulator

BOOT_S = {Accelerator.KVM: 90, Accelerator.TCG: 300}
"""The longest time until a guest answers SSH; docs/figures.md has measured times."""

OWN_BOOT_S = {Accelerator.KVM: 240, Accelerator.TCG: 900}
"""The same for imported images, which start all that their makers put there."""

TAKES_KEY_S = 60.0
"""How long a guest of an imported image may refuse the lab's key after its first answer: in some systems sshd
starts before the seed is read."""

FOR_TCG = ("no_timer_check",)
"""Kernel options for emulated guests: on a busy host the timer's first ticks may be too late for Linux's
check, which then panics ("IO-APIC + timer doesn't work!"; arch/x86/kernel/apic/io_apic.c, check_timer). On
KVM Linux omits the check by itself (arch/x86/kernel/kvm.c)."""

WAKES = "pc"
"""The machine family for guests that sleep. On q35 neither SeaBIOS 1.16 nor Linux 6.1 maps the ACPI timer
again after S3: it reads as all ones, Linux finds the TSC unstable and its time stands still."""

_AGAIN_S = 2.0

OVERHEAD_BYTES = 128 << 20  # of one QEMU process, beside the guest's memory

START_TRIES = 3


@dataclass(frozen=True)
class Furnishing:
    """What is done in a guest before its golden state is saved. furnish: gets its address, a folder for
    files, and what notes its progress. digest: of all that decides the result."""

    furnish: Callable[[Address, Path, Callable[[str], object]], None]
    digest: str


@dataclass(frozen=True)
class Settings:
    """The settings of the guests of one run. home: the state folder. folder: the run's own.

    images: by GuestSpec.image_key. shared_memory: their RAM is a file that another QEMU can map. guest_sleep:
    they may suspend themselves. kept_guest: they may outlive this process, see Guests.leave. golden: they
    start from a golden state where possible. boots_anew: their freeze method reboots them. network: the
    lab's own network, for those that have a place in it. secrets: the values of their setups' secrets.
    emulator: this machine's own. emulators: others, by GuestSpec.emulator.
    devices: the device of QEMU's that a guest's mechanism needs, by the guest's name.
    nested: they can run guests on KVM themselves. furnishing: of their golden states. meeting: with the
    controller, for a host of a fleet; fleet: its guests, on all hosts.
    """

    run: str
    home: Path
    folder: Path
    images: dict[str, Image]
    accelerator: Choice
    emulator: Emulator
    boot_s: int | None = None
    shared_memory: bool = False
    guest_sleep: bool = False
    kept_guest: bool = False
    golden: bool = False
    boots_anew: bool = False
    network: NetworkSpec | None = None
    nested: bool = False
    furnishing: Furnishing | None = None
    secrets: Mapping[Secret, bytes] = field(default_factory=dict, repr=False)
    emulators: Mapping[str, Emulator] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    meeting: Meeting | None = None
    fleet: tuple[GuestSpec, ...] = ()

    def secret_values(self, spec: GuestSpec) -> SecretValues:
        """Those of a guest's set-up."""
        return SecretValues({secret.name: self.secrets[secret] for secret in spec.setup.secrets})


@dataclass(frozen=True)
class PreparedGuest:
    """A guest that is ready to be started. domain: without a disk and without its port."""

    spec: GuestSpec
    domain: DomainSpec
    image: Image
    folder: Path
    seed: GuestSeed


@dataclass(frozen=True)
class StartedGuest:
    """A guest whose domain runs. address: its SSH address. imported: it is of an imported image. depth: what
    is to look into it."""

    spec: GuestSpec
    address: Address
    console: Path
    imported: bool = False
    depth: Depth = Depth.PYTHON

    def boot_s(self, accelerator: Accelerator) -> float:
        """The longest time until it answers SSH."""
        return paced((OWN_BOOT_S if self.imported else BOOT_S)[accelerator])

    def patient(self, connect: Callable[[], SSH]) -> SSH:
        """The connection that `connect` makes, and makes again for TAKES_KEY_S if the guest refuses it and
        may change its mind."""
        until = 0.0
        while True:
            try:
                return connect()
            except RefusedError:
                until = until or time.monotonic() + TAKES_KEY_S
                if not self.imported or time.monotonic() > until:
                    raise
                time.sleep(_AGAIN_S)


def memory_option(text: str) -> int:
    """The bytes of --memory, in the form of playbooks. UsageError when it is no size that a guest boots
    with."""
    try:
        size = parse_size(text)
    except ValueError as error:
        raise UsageError(str(error), where="--memory") from None
    if size < 64 << 20:
        raise UsageError("too little to boot", where="--memory", hint="write it like 512MiB")
    return size


def check_memory(guests: Sequence[GuestSpec]) -> None:
    """MachineError when the guests do not fit into the free memory."""
    import psutil

    guests = [guest for guest in guests if not guest.is_own]
    needed = sum(g.memory_bytes + OVERHEAD_BYTES for g in guests)
    free = psutil.virtual_memory().available
    if needed > free:
        raise MachineError(
            f"{'1 guest needs' if len(guests) == 1 else f'{len(guests)} guests need'} "
            f"{format_size(needed >> 20 << 20)}, "
            f"{format_size(free >> 20 << 20)} are free",
            hint="use fewer guests, or less memory for each",
        )


def ram_file(spec: GuestSpec, settings: Settings, stack: ExitStack) -> Path | None:
    """The file of a guest's RAM, allocated, until `stack` is left; None when another QEMU need not map it."""
    if not settings.shared_memory:
        return None
    folder = memory.huge_page_folder() if spec.huge_pages else memory.folder(settings.home)
    memory.check_room(folder, spec.memory_bytes)
    stack.callback(memory.drop, settings.home)
    path = folder / f"{settings.run}-{spec.name}"
    stack.callback(path.unlink, missing_ok=True)
    memory.allocate(path, spec.memory_bytes)
    return path


def emulator_for(spec: GuestSpec, settings: Settings, hypervisor: LibvirtHypervisor) -> Emulator:
    """The emulator and machine type that a guest is started with."""
    found = settings.emulators.get(spec.emulator, settings.emulator)
    if settings.guest_sleep:
        return hypervisor.emulator(settings.accelerator.accelerator, WAKES, found.path)
    return found


def devices_of(spec: GuestSpec, emulator: Emulator, settings: Settings) -> tuple[str, ...]:
    """The further devices of a guest, as arguments of QEMU's -device. Refused when its QEMU lacks one."""
    from lab.hypervisor.facts import has_device, program_version  # they need libvirt, `plan` does not

    name = settings.devices.get(spec.name, "")
    if name and not has_device(emulator.path, name):
        raise Refused(
            f"QEMU {program_version(emulator.path)} has no {name} device",
            where=f"guest {spec.name}",
            hint="start it with a newer QEMU: emulator: trixie-backports",
        )
    return (name,) if name else ()


def lab_key(home: Path) -> tuple[Path, str]:
    """The lab's own key pair, created on first use: (private key's path, public line)."""
    path = made(home / "keys") / "lab_ed25519"
    if not path.exists():
        write_key(path, *make_key("freezelab"))
    load_key(path)  # said before a guest is started, not after
    try:
        return path, path.with_name(path.name + ".pub").read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        hint = f"remove {path} and {path}.pub; a new pair is created"
        raise MachineError("the lab's public key cannot be read", where=f"{path}.pub", hint=hint) from error


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def on_a_free_port(domain: DomainSpec, start: Callable[[DomainSpec], object]) -> int:
    """Start the domain with `start`, with SSH on a free port of this host; the result is the port.
    FreezelabError when other programs take the port each time, or the domain does not start."""
    for tries_left in reversed(range(START_TRIES)):
        port = free_port()
        try:
            start(replace(domain, ssh_port=port))
        except FreezelabError as error:
            # Somebody was given the same free port between our look and QEMU's.
            if f"TCP port {port}" not in error.what or not tries_left:
                raise
        else:
            return port
    raise AssertionError  # the last try returns or raises
