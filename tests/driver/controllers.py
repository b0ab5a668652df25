"""A process that has a guest guarded by a dead-man, and what that writes to the history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil

from lab.hypervisor.deadman.rescue import Continue
from tests.driver.qemus import Qemu

LATE_NS = 60_000_000_000

CONTROLLER = """
import json, os, sys, time
from pathlib import Path
from lab.hypervisor.deadman.channel import Token
from lab.hypervisor.deadman.client import Charge, DeadMan
from lab.hypervisor.deadman.messages import from_message
from lab.hypervisor.deadman.rescue import now

asked = json.loads(sys.argv[1])
man, token = DeadMan(), Token()
man.history = Path(asked["history"])
files = [os.pidfd_open(pid) for pid in asked["pids"]] + [token.handle] * asked["token"]
if asked["taken"]:
    token.take()
charge = Charge(from_message(asked["rescue"]), tuple(files))
until_ns = now().raw_ns + asked["for_ns"]
man.guard([charge], 3, until_ns, lambda: print("lost", flush=True))
print(man.pid, until_ns, flush=True)
time.sleep(300)
"""


class DeadManProcess(psutil.Process):
    """A controller's dead-man. until_ns: when the guest's budget is over, MONOTONIC_RAW."""

    def __init__(self, pid: int, until_ns: int) -> None:
        super().__init__(pid)
        self.until_ns = until_ns


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def simple(qemu: Qemu) -> Continue:
    return Continue("web-0", qemu.process.pid, qemu.address)
