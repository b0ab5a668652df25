"""A machine that runs its firmware and no guest, with RAM full of random bytes. It needs no image."""

from __future__ import annotations

import os
from pathlib import Path

from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import Accelerator, DomainSpec

SIZE = 64 << 20
SYSTEM = Path("/usr/bin/qemu-system-x86_64")


def running(hypervisor: LibvirtHypervisor, home: Path, folder: Path, emulator: Path = SYSTEM) -> None:
    """Start it as web-0, with two monitors of the lab's own. folder: for its RAM."""
    ram = folder / "ram"
    ram.write_bytes(os.urandom(SIZE))
    (home / "agents").mkdir(exist_ok=True)
    plain = DomainSpec(
        guest="web-0", run="firmware", home=home, memory_bytes=SIZE, vcpus=1, accelerator=Accelerator.TCG,
        emulator=emulator, machine="pc-q35-7.2", kernel=None, cmdline="",
        console_log=folder / "console.log", memory_base=ram,
        monitor_socket=Path("monitor"), control_socket=Path("control"),
    )  # fmt: skip
    hypervisor.define_and_start(plain.with_sockets_in(home / "agents"))
