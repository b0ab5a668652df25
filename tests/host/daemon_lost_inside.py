"""Runs inside namespaces of its own: a guest of a real libvirtd is frozen, and the daemon is lost.

    daemon_lost_inside.py killed|stopped

Prints what it saw as JSON; test_daemon_lost.py starts it and judges.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt

from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError, MachineError
from lab.host.patches import daemon
from lab.hypervisor.connection import connect
from lab.hypervisor.domain import Accelerator
from lab.ports import Freezing
from lab.process.clock import HostClock
from tests.driver.conftest import spec_of
from tests.driver.kernels import kernel

URI = "qemu:///system"
WAIT_S = 40.0


def started() -> daemon.Daemon:
    with Path("/run/libvirtd.out").open("ab") as out:
        subprocess.Popen(["/usr/sbin/libvirtd"], stdout=out, stderr=out, cwd="/tmp", start_new_session=True)
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return daemon.find(URI)
        except MachineError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def acts(history: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in history.read_text().splitlines()]


def main() -> None:
    serving, clock = started(), HostClock()
    home = Path(tempfile.mkdtemp(prefix="fl-", dir="/run"))
    history = home / "events.jsonl"
    history.touch()
    seen: dict[str, Any] = {}
    freezing = Freezing(FreezeMethod.SUSPEND)
    with connect(URI, home, clock=clock) as hypervisor:
        hypervisor.dead_man.history = history
        emulator = hypervisor.emulator(Accelerator.TCG)
        spec = replace(
            spec_of("web-0", home),
            emulator=emulator.path,
            machine=emulator.machine,
            kernel=home / "kernel",
            ssh_port=None,
        )
        assert spec.kernel is not None
        spec.kernel.write_bytes(kernel(bytes.fromhex("ebfe")))  # jmp to itself
        hypervisor.define_and_start(spec)
        hypervisor.prepare("web-0", freezing)
        began = clock.now().raw_ns
        with hypervisor.guard(["web-0"], freezing, began + 60 * NS_PER_S, began + 60 * NS_PER_S, 0):
            hypervisor.freeze("web-0", freezing, began + 60 * NS_PER_S)
            os.kill(serving.pid, signal.SIGKILL if sys.argv[1] == "killed" else signal.SIGSTOP)
            called = time.monotonic()
            try:
                hypervisor.resume("web-0", freezing)
            except HypervisorError as error:
                seen["failure"] = str(error)
            seen["waited_s"] = time.monotonic() - called
        hypervisor.finish("web-0")
        seen["before"] = acts(history)
        dead_man = hypervisor.dead_man.pid
    seen["closed"] = acts(history)
    if sys.argv[1] == "killed":
        started()
    else:
        os.kill(serving.pid, signal.SIGCONT)
        end = time.monotonic() + WAIT_S
        while Path(f"/proc/{dead_man}/stat").exists() and len(acts(history)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
    seen["last"] = acts(history)
    (domain,) = libvirt.open(URI).listAllDomains()
    end = time.monotonic() + WAIT_S
    while domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING and time.monotonic() < end:
        time.sleep(0.05)  # a daemon that has just started has not asked QEMU yet
    seen["runs"] = domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    with contextlib.suppress(libvirt.libvirtError):  # it has ended, when the daemon still connects to it
        domain.destroy()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
