"""`freezelab doctor`: checks of what this host supports."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import time
from pathlib import Path

from lab.core.machine_check import MachineCheck
from lab.core.units import format_size
from lab.errors import FreezelabError, MachineError
from lab.host import chronyd, emulators
from lab.host.network import LabNetwork
from lab.hypervisor import freezer
from lab.hypervisor.accelerators import AcceleratorRequest, boots_unsurely, choose
from lab.hypervisor.domain import Accelerator
from lab.image import staging
from lab.image.store import ImageStore, default_cache
from lab.process.clock import HostClock
from lab.process.requirements import advice, needed
from lab.process.runner import run, which
from lab.session import paths

NAMESPACES = (
    "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}; if that does not help, "
    "the kernel forbids them: sysctl -a | grep -E 'max_user_namespaces|unprivileged_userns'"
)
TRY_S = 10
REAPS_S = 3.0
NEEDED_BYTES = 2 << 30  # an image while it is built, and a guest's overlay
GUEST_BYTES = 1 << 30


def examine(uri: str | None) -> list[MachineCheck]:
    """All checks, in the order in which a run would meet them."""
    checks = [*_init(), *_tools(), _memory()]
    try:
        state = paths.home()
    except FreezelabError as error:
        return [*checks, _failed("state folder", error)]
    store = ImageStore(paths.RECIPES, default_cache())
    image = store.find("debian")
    checks += [_space("state folder", state), _space("image cache", default_cache(), needed=image is None)]
    checks += _left_of_images(store.images)
    checks.append(
        MachineCheck("guest image", True, f"{image.label}, kernel {image.info.get('kernel_version', '?')}")
        if image
        else MachineCheck(
            "guest image", None, "not built yet; the first run builds it", "freezelab image build"
        )
    )
    checks.append(_hypervisor(uri, state))
    if image is not None and image.kernel is not None:
        checks.append(_accelerator(image.kernel, state))
        checks += _kernels(store)
    checks += [_chronyd(state), _clients(), _bridge(), _freezer()]
    return checks


def _failed(name: str, error: FreezelabError) -> MachineCheck:
    return MachineCheck(
        name, False, f"{error.where}: {error.what}" if error.where else error.what, error.hint
    )


def _init() -> list[MachineCheck]:
    """As process 1 of a container this process would have to reap all processes that end there, which it does
    not: libvirt regards an ended QEMU that is still in the process table as one that cannot be killed
    (observed with 11.3)."""
    hint = "start the container with one, such as docker run --init"
    if os.getpid() == 1:
        shown = "none: this is process 1, so QEMU processes that have ended stay as zombies"
        return [MachineCheck("init", False, shown, hint)]
    if _orphans_stay():
        shown = "process 1 reaps no orphans: kept guests are frozen by suspend and sigstop alone"
        return [MachineCheck("init", None, shown, hint)]
    return []


def _orphans_stay() -> bool:
    """Whether an orphan of ours that has ended is still a zombie of process 1 after REAPS_S. Many
    containers' process 1 looks only every second or two."""
    orphan = Path("/proc") / run(["/bin/sh", "-c", "sleep 0.01 >&- & echo $!"], TRY_S).stdout.strip() / "stat"
    end = time.monotonic() + REAPS_S
    with contextlib.suppress(OSError):  # it has gone
        while time.monotonic() < end:
            state, parent = orphan.read_text(encoding="ascii").rpartition(")")[2].split()[:2]
            time.sleep(0.01)
        return state == "Z" and parent == "1"
    return False


def _tools() -> list[MachineCheck]:
    found = []
    for package in needed(images=True):
        if package.program:
            path = which(package.program)
            shown = path or f"missing, needed {package.purpose}"
            found.append(MachineCheck(package.label, path is not None, shown, advice()))
        elif not package.has_files:
            found.append(MachineCheck(package.label, None, f"not found, needed {package.purpose}", advice()))
    if os.geteuid() != 0:
        found.append(_user_namespaces())
    return found


def _user_namespaces() -> MachineCheck:
    """Check, by creating one, that a user namespace with several users can be created: mmdebstrap builds
    images in it."""
    name, without = "user namespaces", "image builds need root"
    if which("newuidmap") is None:
        return MachineCheck(name, False, f"newuidmap is missing: {without}", advice())
    try:
        run(["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "true"], TRY_S)
    except MachineError as error:
        shown = error.what.removeprefix("exit status 1: ").removesuffix(": Success")
        return MachineCheck(name, False, f"{shown}: {without}", NAMESPACES.format(user=getpass.getuser()))
    return MachineCheck(name, True, "available: image builds need no root")


def _freezer() -> MachineCheck:
    """Whether guests of this process can be frozen by host-sleep."""
    name = "host-sleep"
    if why := freezer.obstacle(os.getpid()):
        return MachineCheck(name, None, why, freezer.HINT)
    return MachineCheck(name, True, freezer.place(os.getpid()))


def _memory() -> MachineCheck:
    import psutil

    free = int(psutil.virtual_memory().available)
    shown = f"{format_size(free >> 20 << 20)} free"
    return MachineCheck(
        "memory", free >= GUEST_BYTES, shown, "free some memory: a guest needs 512 MiB and some more"
    )


def _space(name: str, folder: Path, *, needed: bool = True) -> MachineCheck:
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    shown = f"{folder}, {format_size(free >> 20 << 20)} free" + ("" if writable else ", not writable")
    variable = "FREEZELAB_HOME" if name == "state folder" else "FREEZELAB_CACHE"
    good = writable and free >= NEEDED_BYTES
    return MachineCheck(
        name, good or (False if needed else None), shown, f"set {variable} to a folder with 2 GiB free"
    )


def _left_of_images(images: Path) -> list[MachineCheck]:
    """Tell of what killed builds and imports have left."""
    left = staging.left(images)
    if not left:
        return []
    size = sum(path.lstat().st_blocks * 512 for folder in left for path in folder.rglob("*"))
    what = f"a killed import or build has left {format_size(size >> 20 << 20)} in {left[0]}"
    return [MachineCheck("image cache", None, what, "freezelab recover, or the next import")]


def _hypervisor(uri: str | None, state: Path) -> MachineCheck:
    try:
        from lab.hypervisor.connection import connect  # loads libvirt, which may be missing

        with connect(uri, state, clock=HostClock()) as hypervisor:
            facts, emulator = hypervisor.facts(), hypervisor.emulator(Accelerator.TCG)
            left = [domain for domain in hypervisor.list_lab_domains() if not domain.kept_guest]
            recover = hypervisor.recover_command
    except FreezelabError as error:
        return _failed("hypervisor", error)
    where = facts.uri if uri else "no daemon"
    shown = f"QEMU {facts.qemu}, libvirt {facts.libvirt}, {emulator.machine}, {where}"
    if left:
        return MachineCheck("hypervisor", None, f"{shown}; a killed run left {len(left)} guests", recover)
    return MachineCheck("hypervisor", True, shown)


def _accelerator(kernel: Path, state: Path) -> MachineCheck:
    try:
        choice = choose(AcceleratorRequest.AUTO, kernel, state)
    except FreezelabError as error:
        return _failed("accelerator", error)
    shown = f"{choice.accelerator.value} ({choice.reason})"
    if choice.accelerator is Accelerator.KVM:
        return MachineCheck("accelerator", True, shown)
    return MachineCheck("accelerator", None, f"{shown}; guests are slower, everything works", choice.hint)


def _kernels(store: ImageStore) -> list[MachineCheck]:
    """Warn of images whose guests may not boot here without KVM."""
    there = emulators.system()
    try:
        qemu = emulators.version(there) if there is not None else ""
    except FreezelabError:
        return []
    found = []
    for listed in store.listing():
        kernel = str(listed.image.info.get("kernel_version", ""))
        if listed.current and (why := boots_unsurely(kernel, qemu)):
            hint = "install a newer QEMU, or build the image with an older kernel"
            found.append(MachineCheck(f"image {listed.image.name}", None, f"without KVM: {why}", hint))
    return found


def _clients() -> MachineCheck:
    """Whether programs of this host can be clients in the lab's own network, seen by starting one."""
    name = "network: lab"
    try:
        with LabNetwork({}) as network:
            network.command([])
    except MachineError as error:
        return MachineCheck(name, None, f"guests see each other; {error.what}", error.hint)
    return MachineCheck(name, True, "guests see each other, and programs of this host can be clients")


def _bridge() -> MachineCheck:
    """Whether the lab's own network can have a bridge, seen by making one."""
    name = "network: lab, bridge"
    try:
        with LabNetwork({}, bridge=True):
            return MachineCheck(name, True, "a Linux bridge can be made in a namespace")
    except MachineError as error:
        return MachineCheck(name, None, error.what, error.hint)


def _chronyd(state: Path) -> MachineCheck:
    try:
        return MachineCheck(
            "chronyd", True, f"{chronyd.find(state, paths.default_home())}, for the chrony mechanisms"
        )
    except FreezelabError as error:
        return MachineCheck("chronyd", None, f"{error.what}: the chrony mechanisms do not work", error.hint)
