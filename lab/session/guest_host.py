"""This host, made ready to start a plan's guests: libvirt, the accelerator, the emulator."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.core.history import Host
from lab.core.plan import SYSTEM, Plan
from lab.host import facts as host_facts
from lab.hypervisor.accelerators import AcceleratorRequest, Choice, choose
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.facts import Emulator
from lab.image.store import Image
from lab.ports import View
from lab.session import own_plan
from lab.session.emulators import find_emulator
from lab.session.images import proof_kernel
from lab.session.recovery import clear
from lab.session.settings import Settings, check_memory

LAB_HOST = "FREEZELAB_LAB_HOST"
"""The variable that says in a lab host which one it is: JSON, with its name and facts of the host below."""


@dataclass(frozen=True)
class GuestHost:
    """home: the state folder. images: those of the guests, by GuestSpec.image_key. emulator: this machine's
    own. emulators: others that guests are started with, by GuestSpec.emulator."""

    home: Path
    hypervisor: LibvirtHypervisor
    images: dict[str, Image]
    accelerator: Choice
    emulator: Emulator
    emulators: dict[str, Emulator] = field(default_factory=dict)

    def settings(self, run: str, folder: Path, boot_s: int | None = None) -> Settings:
        """The settings of the guests of one run, see Settings."""
        return Settings(
            run,
            self.home,
            folder,
            self.images,
            self.accelerator,
            self.emulator,
            boot_s,
            emulators=self.emulators,
        )

    def facts(self) -> Host:
        """The host's entry in the record."""
        facts, versions = host_facts.look(), self.hypervisor.facts()
        inside = of_lab_host()
        where = _in_lab_host(inside["lab_host"]) if inside else ""
        return Host(
            kernel=facts.kernel,
            cpu=facts.cpu,
            memory_bytes=facts.memory_bytes,
            qemu=versions.qemu,
            libvirt=versions.libvirt,
            accelerator=self.accelerator.accelerator.value,
            accelerator_reason=f"{self.accelerator.reason}{where}",
            details={
                **asdict(facts),
                "machine": host_facts.machine_id(),
                "uri": versions.uri,
                "libvirt_linked": versions.libvirt_linked,
                **inside,
            },
        )


def _in_lab_host(known: dict[str, Any]) -> str:
    return f", in the lab host {known['name']} on {str(known['accelerator']).upper()}"


def of_lab_host() -> dict[str, Any]:
    """What a record says of the lab host that this is; empty elsewhere. A lab host has a new machine id each
    time, but is the same machine as those before it on the same host."""
    text = os.environ.get(LAB_HOST)
    return details_of_lab_host(json.loads(text)) if text else {}


def details_of_lab_host(below: dict[str, Any]) -> dict[str, Any]:
    """The same of a lab host. below: its name, its accelerator, and facts of the host below it."""
    machine = hashlib.sha256(f"{below['name']} on {below['machine']}".encode()).hexdigest()[:16]
    return {"lab_host": below, "machine": machine}


def prepare_host(
    hypervisor: LibvirtHypervisor,
    plan: Plan,
    images: dict[str, Image],
    home: Path,
    view: View,
    request: AcceleratorRequest = AcceleratorRequest.AUTO,
) -> GuestHost:
    """Remove what killed runs left, check what the plan's guests need, and choose the accelerator. images:
    see images_for(). Without one the accelerator and the emulator are those of the first domain of the user's
    own.

    MachineError when the guests do not fit into the free memory, or the accelerator cannot be had. UsageError
    or Refused when a domain of the user's own does not exist or run."""
    for line in clear(hypervisor, home):
        view.note(f"left by a killed run: {line}")
    if not plan.cells:
        check_memory(plan.guests)  # those of cells are checked when they are started
    own = own_plan.look_at(hypervisor, plan)
    if images:
        view.phase("accelerator")
        kernel = proof_kernel(images.values(), lambda stage, _part: view.note(stage))
        choice = choose(request, kernel, home, progress=view.note)
        emulator = hypervisor.emulator(choice.accelerator)
    else:
        choice, emulator = own_plan.machine_of(next(iter(own.values())))
    others = {}
    for name in sorted({spec.emulator for cell in plan.parts for spec in cell.guests} - {SYSTEM}):
        path = find_emulator(name, emulator.path, view.note)
        others[name] = hypervisor.emulator(choice.accelerator, path=path)
    return GuestHost(home, hypervisor, images, choice, emulator, others)
