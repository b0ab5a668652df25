"""QEMU processes that run their firmware and no guest."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.hypervisor.deadman.rescue import MonitorAddress
from lab.hypervisor.qmp import QmpSocket, status

PATIENCE_S = 20.0


class Qemu:
    """A machine without a disk: its firmware runs. monitor: one of the test's own; the lab's is `address`.
    shared: its RAM is a file that its successor maps."""

    def __init__(
        self, folder: Path, name: str, *more: str, program: str = "qemu-system-x86_64", shared: bool = True
    ) -> None:
        self.path = folder / f"{name}.lab"
        own = folder / f"{name}.own"
        file = f"memory-backend-file,id=ram,size=64M,mem-path={folder}/ram,share=on"
        self.process = subprocess.Popen(
            [
                *(program, "-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "64"),
                *(("-machine", "memory-backend=ram", "-object", file) if shared else ()),
                *("-qmp", f"unix:{own},server=on,wait=off", "-qmp", f"unix:{self.path},server=on,wait=off"),
                *more,
            ]
        )
        until(own.exists)
        until(self.path.exists)
        self.monitor = QmpSocket(own)
        self.address = MonitorAddress(str(self.path))

    def is_running(self) -> bool:
        return status(self.monitor) == "running"

    def end(self) -> None:
        self.monitor.close()
        self.process.kill()
        self.process.wait()


def until(look: Callable[[], Any], wait_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + wait_s
    while not look():
        assert time.monotonic() < end, f"not within {wait_s} s"
        time.sleep(0.01)
