"""`freezelab image import`: a disk of the user's own becomes an image, after one of its guests has booted."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.core.plan import Depth, GuestSpec
from lab.errors import GuestError, GuestGone, HypervisorError, ImageError, MachineError, UsageError
from lab.guest.address import Address, RefusedError
from lab.guest.console import console_end
from lab.guest.survey import survey
from lab.hypervisor.accelerators import AcceleratorRequest
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connection import connect
from lab.image import disk_file, firmware
from lab.image.build import MANIFEST, Progress
from lab.image.partitions import BootWays, boot_ways
from lab.image.recipe import FORMAT
from lab.image.store import Image, ImageStore, default_cache, load_image
from lab.ports import View
from lab.process.clock import HostClock
from lab.record.journal import NullJournal
from lab.session import paths
from lab.session.agent_guests import system_of
from lab.session.guest_host import prepare_host
from lab.session.kept_guest_start import plan_without_freeze
from lab.session.recovery import left_by_killed
from lab.session.settings import memory_option

REFUSES_S = 5.0
"""The longest time until a guest that runs has refused a connection."""

GUEST = "imported"
"""The name of the guest that is booted to see that the image boots."""


class Firmware(StrEnum):
    """What boots an imported disk."""

    AUTO = "auto"  # BIOS if the disk can be booted so, because it starts faster
    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True)
class ImportOptions:
    """Options of `image import`. device: the file may be a block device. sha256: what the file must have, or
    "". user: who logs in. attempt: boot one guest. boot_s: None is the accelerator's default. probe: AGENT
    for guests without SSH; AUTO else."""

    name: str
    file: Path
    device: bool = False
    sha256: str = ""
    firmware: Firmware = Firmware.AUTO
    user: str = "root"
    attempt: bool = True
    memory: str = "1GiB"
    accelerator: AcceleratorRequest = AcceleratorRequest.AUTO
    boot_s: int | None = None
    probe: Depth = Depth.AUTO


def firmware_request(text: str) -> Firmware:
    """UsageError when it is none of auto, bios, uefi."""
    try:
        return Firmware(text)
    except ValueError:
        raise UsageError(f"unknown firmware {text!r}", hint="known: auto, bios, uefi") from None


def probe_request(text: str) -> Depth:
    """UsageError when it is neither auto nor agent."""
    if text not in (Depth.AUTO, Depth.AGENT):
        hint = f"known: {Depth.AUTO}, {Depth.AGENT}; python3 is used where there is one, else a shell"
        raise UsageError(f"unknown: {text!r}", where="--probe", hint=hint)
    return Depth(text)


def import_image(options: ImportOptions, view: View, progress: Progress) -> Image:
    """Copy the disk into the cache, boot a guest of it, and keep the image if that worked. Nothing is left
    and nothing changed otherwise. UsageError, ImageError; GuestError when the guest does not answer."""
    store = ImageStore(paths.RECIPES, default_cache())
    memory_option(options.memory)
    disk = disk_file.examine(options.file, device=options.device)
    if disk.format == "raw":
        _boot_ways(disk.path, options)  # before it is read as a whole
    content = disk_file.checked_sum(disk, options.sha256, lambda part: progress("reading", part))

    def fill(folder: Path, lock: int) -> None:
        progress("copying", None)
        copied = folder / f"disk-{secrets.token_hex(4)}.img"
        disk_file.copy(disk, copied, lock=lock)
        rom = _rom(copied, options, folder)
        facts = {
            "name": options.name,
            "about": f"imported from {options.file.name}",
            "disk": copied.name,
            "disk_format": "raw",
            "cmdline": "",
            "firmware": rom.name if rom is not None else "",
            "user": options.user,
            "probe": options.probe.value,
            "source": {"file": str(options.file.absolute()), "format": disk.format, "sha256": content},
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        facts["digest"] = _digest(content, rom, options)
        _write(folder, facts)
        if options.attempt:
            found = _attempt(load_image(folder), options, view, progress)
            _write(folder, {**facts, "guest": found, "kernel_version": found.get("kernel", "")})

    return store.add(options.name, progress, fill)


def _rom(disk: Path, options: ImportOptions, folder: Path) -> Path | None:
    """The firmware that boots a disk, as a file in `folder`; None for QEMU's BIOS."""
    ways = _boot_ways(disk, options)
    wanted = options.firmware
    if wanted is Firmware.AUTO:
        wanted = Firmware.BIOS if ways.bios else Firmware.UEFI
    if not (ways.bios if wanted is Firmware.BIOS else ways.uefi):
        lacks = "no code in its first sector" if wanted is Firmware.BIOS else f"no {ways.lacks_uefi}"
        hint = f"--firmware {Firmware.UEFI if wanted is Firmware.BIOS else Firmware.BIOS}"
        raise UsageError(f"it has {lacks}", where=str(options.file), hint=hint)
    if wanted is Firmware.BIOS:
        return None
    rom = folder / "firmware.fd"
    rom.write_bytes(firmware.uefi())
    return rom


def _boot_ways(disk: Path, options: ImportOptions) -> BootWays:
    try:
        return boot_ways(disk)
    except ImageError as error:
        error.where = error.where or str(options.file)
        raise


def _digest(content: str, rom: Path | None, options: ImportOptions) -> str:
    """What makes guests differ: the disk, what boots it, who logs in, and what looks into them."""
    firmware_sum = hashlib.sha256(rom.read_bytes()).hexdigest() if rom is not None else ""
    parts = [FORMAT, content, firmware_sum, options.user]
    parts += [options.probe] if options.probe is not Depth.AUTO else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write(folder: Path, facts: Mapping[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _attempt(image: Image, options: ImportOptions, view: View, progress: Progress) -> dict[str, str]:
    """Boot a guest of the image and log in; what there is in it."""
    from lab.session.guests import Guests

    spec = GuestSpec(GUEST, image=image.name, memory_bytes=memory_option(options.memory))
    plan = plan_without_freeze("import", spec)
    home, clock = paths.home(), HostClock()
    run = f"import-{secrets.token_hex(3)}"
    folder = home / "guests" / f"{run}-console"  # the guest's own is removed with it
    progress("booting a guest", None)
    try:
        with connect(None, home, clock=clock, ends=left_by_killed(home)) as hypervisor:
            images = {spec.image_key: image}
            host = prepare_host(hypervisor, plan, images, home, view, options.accelerator)
            paths.made(folder)
            settings = host.settings(run, folder, options.boot_s)
            with Guests(hypervisor, settings, clock, view, NullJournal()) as guests:
                try:
                    if options.probe is Depth.AGENT:
                        guests.boot({spec: ""})
                        return system_of(hypervisor, GUEST)
                    ssh = guests.login(spec)
                except GuestGone as error:
                    raise _explained(error, options, folder) from error
                except GuestError as error:
                    silent = options.probe is Depth.AUTO and not isinstance(error, RefusedError)
                    more = _what_answers(guests.address(GUEST)) if silent else ""
                    raise _explained(error, options, folder, more, _has_agent(hypervisor)) from error
                return survey(ssh)
    except OSError as error:
        raise MachineError(error.strerror or str(error), where=error.filename or str(home)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_agent(hypervisor: LibvirtHypervisor) -> bool:
    try:
        hypervisor.agent_ping(GUEST)
    except HypervisorError:
        return False
    return True


def _what_answers(address: Address) -> str:
    """What a guest does that does not answer SSH, for a message. QEMU accepts a forwarded connection by
    itself, and closes it when the guest refuses it; it keeps one that nobody answers."""
    try:
        with socket.create_connection((address.host, address.port), REFUSES_S) as sock:
            sock.settimeout(REFUSES_S)
            listens = sock.recv(1)
    except TimeoutError:
        return ": it has not booted, or has no address"
    except OSError:
        return ""
    return "" if listens else ": it has an address, and no sshd listens there"


def _explained(
    error: GuestError, options: ImportOptions, folder: Path, more: str = "", has_agent: bool = False
) -> ImageError:
    hint = console_end(folder / f"console-{GUEST}.log").partition(f"\n({folder}")[0]
    if isinstance(error, RefusedError):
        hint = "it does not take the NoCloud seed: has it cloud-init, with that data source enabled?"
    if has_agent:
        hint += "; its agent answers, and can look into it alone: --probe agent"
    what = f"a guest of it does not let the lab in: {error.what}{more}"
    return ImageError(what, where=str(options.file), hint=hint)
