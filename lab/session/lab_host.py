"""The lab host: a kept guest that runs guests itself, on KVM, with freezelab in it.

Where this machine has KVM, the lab host has it nested. Elsewhere QEMU emulates a CPU with AMD's SVM, and KVM
is real but slow. What the lab host needs beside its image is sent to it over SSH: freezelab as it is here,
the Python packages of requirements.lock, and images of guests, which are built here.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from lab.core.plan import SYSTEM
from lab.core.units import format_size, parse_size
from lab.errors import RecordError, Refused, UsageError
from lab.guest.address import Address
from lab.host import emulators
from lab.hypervisor.accelerators import AcceleratorRequest, choose, hangs_lab_hosts
from lab.hypervisor.domain import Accelerator
from lab.image.store import Image, ImageStore, default_cache
from lab.process import runner
from lab.process.signals import shield
from lab.session import kept_guest_access as access
from lab.session import kept_guests
from lab.session.images import proof_kernel
from lab.session.kept_guest_start import UpOptions
from lab.session.kept_guest_start import up as start_guest
from lab.session.kept_guests import KeptGuest
from lab.session.lab_host_code import PACKAGES, clone, send_code
from lab.session.lab_host_kernel import with_kernel
from lab.session.lab_host_shell import NAME, PLACE, LabHostShell
from lab.session.paths import RECIPES, made
from lab.session.settings import Furnishing, memory_option
from lab.session.views import Views

IMAGE = "labhost"
GUEST_IMAGE = "debian"
"""The image that is sent to every lab host: that of the shipped playbooks."""

SURE_EMULATOR = "trixie"
"""The Debian release whose QEMU runs an emulated lab host where the system's is too old for it."""

LEAST_BYTES = 1536 << 20
"""A lab host with less has no room for a guest of 512 MiB and its golden guest."""

RESERVE_STEP = 128 << 20
"""Linux hands memory to devices in such sections (sparsemem, x86-64)."""

_SPLIT = 2816 << 20
"""A q35 machine with less has all its memory below 4 GiB."""

_PYTHON = "3.11"
"""The Python of the lab host's Debian."""

_NOT_SENT = (
    "libvirt-python",  # an sdist; the image has Debian's
    *("axe-core-python", "codespell", "grimp", "import-linter", "librt", "mypy", "numpy", "ruff", "scipy"),
    *("selenium", "trio", "trio-websocket", "vermin"),  # of tests that run no guests
    *("cloudpickle", "dask", "distributed", "fsspec", "importlib-metadata", "lazy-importer", "locket"),
    *("msgpack", "partd", "tblib", "toolz", "tornado", "zict", "zipp"),  # of run --hosts
)

IMAGES = "/root/.cache/freezelab/images"
_READY = f"{PLACE}/ready"
_FORMAT = "1"
"""Raise it when furnish() changes what is done."""

_SEND_S, _DOCTOR_S = 600.0, 600.0


@dataclass(frozen=True)
class LabHostOptions:
    """Options of `labhost up`; as UpOptions has them. golden: it starts from a golden state. reserve: memory
    that outlives its kernel, in the form of playbooks; "" for none. kernel: the one that it
    boots, such as 6.12; "" is its image's first. image: IMAGE, or one that is made from it: IMAGE-…
    emulator: the QEMU that runs it, as in playbooks; "": see emulator_for()."""

    memory: str = "3GiB"
    vcpus: int = 2
    accelerator: AcceleratorRequest = AcceleratorRequest.AUTO
    boot_s: int | None = None
    golden: bool = True
    reserve: str = ""
    kernel: str = ""
    image: str = IMAGE
    emulator: str = ""

    def write(self, guest: KeptGuest) -> None:
        """Write them to a file of this lab host's, for read()."""
        _options_file(guest).write_bytes(TypeAdapter(LabHostOptions).dump_json(self, indent=1))

    @classmethod
    def read(cls, guest: KeptGuest) -> LabHostOptions:
        """Those that this lab host was started with, for another one in its place. RecordError when they are
        not there, or not valid."""
        path = _options_file(guest)
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            what = f"the options of the lab host cannot be read: {str(error).splitlines()[0]}"
            raise RecordError(what, where=str(path), hint="freezelab labhost down, and up again") from None


def _options_file(guest: KeptGuest) -> Path:
    return Path(guest.console).with_name("options.json")


def shell_of(guest: KeptGuest) -> LabHostShell:
    """See LabHostShell."""
    return LabHostShell(access.login(guest, []), guest.accelerator)


def exists(home: Path) -> bool:
    """Whether there is a lab host, running or not."""
    return any(_is_one(guest) for guest in kept_guests.read_all(home))


def known(home: Path) -> KeptGuest:
    """The lab host, running or not. UsageError when there is none."""
    for guest in kept_guests.read_all(home):
        if _is_one(guest):
            return guest
    raise UsageError("there is no lab host", hint="start one: freezelab labhost up")


def _is_one(guest: KeptGuest) -> bool:
    return guest.name == NAME and guest.image.startswith(f"{IMAGE}-")


def find(home: Path) -> KeptGuest:
    """The lab host that runs. UsageError when there is none, GuestGone when it has ended."""
    access.check_running(home, guest := known(home))
    return guest


def described(guest: KeptGuest) -> str:
    """What runs the lab host, in a sentence."""
    how = (
        "emulated SVM, which is slow"
        if guest.accelerator == Accelerator.TCG
        else "this machine's KVM, nested"
    )
    return f"lab host {guest.name} is running, its KVM by {how}"


def up(home: Path, options: LabHostOptions, views: Views) -> KeptGuest:
    """Start a lab host from its golden state, which is made first if there is none.

    UsageError for too little memory, or another image. Refused when it cannot have KVM: it is removed."""
    if memory_option(options.memory) < LEAST_BYTES:
        what = f"a lab host needs {format_size(LEAST_BYTES)} for guests of its own"
        raise UsageError(what, where="--memory")
    if options.image != IMAGE and not options.image.startswith(f"{IMAGE}-"):
        what = f"a lab host's image is {IMAGE}, or one that is made from it and named {IMAGE}-…"
        raise UsageError(what, where="--image")
    reserving = reserve_options(options.reserve, memory_option(options.memory))
    with views([]) as (view, progress):
        request = request_for(options.accelerator, view.note)
        packages = packed_packages(view.note)
        image = ImageStore(RECIPES, default_cache()).build(GUEST_IMAGE, progress)
        emulator = options.emulator
        if not emulator:
            accelerator = choose(
                request, proof_kernel([image], progress), home, progress=view.note
            ).accelerator
            emulator = emulator_for(accelerator, emulators.version(runner.find(emulators.PROGRAM)), view.note)
    furnishing = furnishing_of(packages, [image])
    wanted = UpOptions(
        *(NAME, options.memory, options.vcpus, options.image, "none", request, options.boot_s),
        nested=True,
        furnishing=furnishing if options.golden else None,
        emulator=emulator,
        kernel_options=reserving,
        booting=lambda found: with_kernel(found, options.kernel) if options.kernel else found,
    )
    guest = start_guest(home, wanted, views)
    try:
        options.write(guest)
        with views([]) as (view, _):
            shell = shell_of(guest)
            if not shell.run(f"ls {_READY} 2>/dev/null || true"):
                furnish(shell, packages, [image], view.note)
            send_code(shell)
    except BaseException:
        with shield():
            for _ in kept_guests.down(home, [NAME]):
                pass
        raise
    return guest


def reserve_options(reserve: str, memory_bytes: int) -> tuple[str, ...]:
    """The kernel options that keep memory of a lab host of this size out of its kernel's hands, as a pmem
    device. UsageError when it has no room for that.

    The memory is that from 4 GiB on: where a q35 machine has its memory above 2 GiB (QEMU, hw/i386/pc_q35.c),
    and where no kernel that kexec loads is put."""
    if not reserve:
        return ()
    try:
        size = parse_size(reserve)
    except ValueError as error:
        raise UsageError(str(error), where="--reserve") from None
    if size < RESERVE_STEP or size % RESERVE_STEP:
        raise UsageError(f"a multiple of {format_size(RESERVE_STEP)} can be reserved", where="--reserve")
    high = memory_bytes - (2 << 30) if memory_bytes >= _SPLIT else 0
    if size > high:
        least = format_size(max(_SPLIT, size + (2 << 30)))
        what = f"to reserve {format_size(size)} a lab host needs {least} of memory"
        raise UsageError(what, where="--reserve", hint=f"--memory {least.replace(' ', '')}")
    return (f"memmap={size >> 20}M!4G",)


def request_for(
    request: AcceleratorRequest, note: Callable[[str], object], modules: Path = Path("/sys/module")
) -> AcceleratorRequest:
    """The request for a lab host's accelerator: TCG instead of AUTO when this machine's KVM does not nest.
    Refused when KVM is requested then. modules: with the parameters of the kernel's modules."""
    files = [modules / name / "parameters/nested" for name in ("kvm_amd", "kvm_intel")]
    values = [file.read_text(encoding="ascii").strip() for file in files if file.exists()]
    if not values or {"1", "Y"} & {*values} or request is AcceleratorRequest.TCG:
        return request
    what = "this machine's KVM does not nest"
    if request is AcceleratorRequest.KVM:
        raise Refused(
            what, where="lab host", hint="load kvm_amd or kvm_intel with nested=1; or use --accelerator tcg"
        )
    note(f"lab host: {what}, so its CPU is emulated")
    return AcceleratorRequest.TCG


def emulator_for(accelerator: Accelerator, system: str, note: Callable[[str], object]) -> str:
    """The emulator of a lab host for which none is named. system: the version of the system's QEMU."""
    why = hangs_lab_hosts(system) if accelerator is Accelerator.TCG else ""
    if not why:
        return SYSTEM
    note(f"lab host: {why}, so it runs on that of Debian {SURE_EMULATOR}")
    return SURE_EMULATOR


def furnishing_of(packages: Path, images: Sequence[Image]) -> Furnishing:
    """What a lab host's golden state has. packages: from packed_packages()."""
    contents = "\n".join((_FORMAT, packages.name, *(image.label for image in images)))

    def do(address: Address, folder: Path, note: Callable[[str], object]) -> None:
        known = folder / f"known_hosts-{address.guest}"
        known.write_text(
            kept_guests.known_host(address.host, address.port, address.host_key), encoding="ascii"
        )
        login = [*access.SAFE, *kept_guests.ssh_files(str(address.key), str(known)), "-p", str(address.port)]
        furnish(LabHostShell(["ssh", *login, f"{address.user}@{address.host}"]), packages, images, note)

    return Furnishing(do, hashlib.sha256(contents.encode()).hexdigest())


def furnish(
    shell: LabHostShell, packages: Path, images: Sequence[Image], note: Callable[[str], object]
) -> None:
    """Send a lab host all that it needs, and have it find out what its QEMU and KVM can do. packages: from
    packed_packages(). Refused when it has no KVM."""
    found = shell.run("grep -m 1 ^flags /proc/cpuinfo; ls /dev/kvm 2>/dev/null || true")
    if "/dev/kvm" not in found:
        raise Refused(no_kvm(found), where="lab host")
    note("lab host: sending Python packages")
    shell.send(["cat", str(packages)], f"mkdir -p {PACKAGES} && tar -C {PACKAGES} -xzf -")
    send_code(shell)
    for image in images:
        send_image(shell, image, note)
    note("lab host: freezelab doctor in it")
    shell.run(f"freezelab doctor >/root/doctor.log 2>&1; touch {_READY}; sync", _DOCTOR_S)


def no_kvm(flags: str) -> str:
    """Why a lab host whose CPU has these flags has no /dev/kvm."""
    if re.search(r"\b(svm|vmx)\b", flags):
        return "its CPU can run guests, but its kernel has no /dev/kvm"
    return (
        "its CPU has neither svm nor vmx: this QEMU does not emulate SVM, or this machine's KVM does not nest"
    )


def send_image(shell: LabHostShell, image: Image, note: Callable[[str], object]) -> None:
    """Send an image, unless it is there."""
    label = runner.quote([image.label])
    if shell.run(f"ls -d {IMAGES}/{label} 2>/dev/null || true").strip():
        return
    note(f"lab host: sending image {image.label}")
    source = ["tar", "-C", str(image.folder.parent), "-cSf", "-", image.label]
    there = f"{IMAGES}/.sent"
    shell.send(
        source, f"rm -rf {there} && mkdir -p {there} && tar -C {there} -xSf - && mv {there}/{label} {IMAGES}/"
    )


def packed_packages(note: Callable[[str], object]) -> Path:
    """The Python packages of requirements.lock for the lab host's Python, as a tar.gz in the cache."""
    lock = sent_packages((clone() / "requirements.lock").read_text(encoding="utf-8"))
    folder = made(default_cache() / "labhost")
    target = folder / f"packages-{hashlib.sha256(lock.encode()).hexdigest()[:12]}.tar.gz"
    if target.exists():
        return target
    note("lab host: fetching its Python packages")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        (Path(work) / "requirements.lock").write_text(lock, encoding="utf-8")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--no-compile",
        ]
        theirs = ["--python-version", _PYTHON, "--implementation", "cp", "--only-binary=:all:"]
        runner.run([*pip, *theirs, "--target", f"{work}/root", "-r", f"{work}/requirements.lock"], _SEND_S)
        runner.run(["tar", "-C", f"{work}/root", "-czf", f"{work}/packed", "."], _SEND_S)
        Path(f"{work}/packed").replace(target)
    for old in folder.glob("packages-*.tar.gz"):
        if old != target:
            old.unlink()
    return target


def sent_packages(lock: str) -> str:
    """The part of a lock with hashes that a lab host needs."""
    entries = re.split(r"\n(?=[a-z0-9])", lock)
    return "".join(
        f"{entry.rstrip()}\n"
        for entry in entries
        if (found := re.match(r"([a-z0-9][a-z0-9.-]*)==", entry)) and found[1] not in _NOT_SENT
    )
