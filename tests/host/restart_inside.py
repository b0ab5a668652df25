"""Runs inside namespaces of its own: a real libvirtd for qemu:///system, a paused guest, a restart.

Prints what it saw as JSON; test_restart_libvirt.py starts it and judges.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import libvirt

from lab.core.patch import RestartLibvirtPatch
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host import patches
from lab.host.patches import daemon
from lab.process.clock import HostClock

URI = "qemu:///system"

GUEST = """
<domain type='qemu'>
  <name>still</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
"""


def comes(uri: str) -> daemon.Daemon:
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(MachineError):
            return daemon.find(uri)
        if time.monotonic() > end:
            sys.exit("libvirtd does not answer")
        time.sleep(0.05)


def emulators() -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdigit() and b"guest=still," in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


def main() -> None:
    clock, argv = HostClock(), ["/usr/sbin/libvirtd", *sys.argv[1:]]
    log = Path("/run/libvirtd.out")
    with log.open("ab") as out:
        first = subprocess.Popen(
            argv,
            stdout=out,
            stderr=out,
            cwd="/tmp",
            env={**os.environ, "A_MARK": "kept"},
            start_new_session=True,
        )
    seen: dict[str, Any] = {}
    comes(URI)
    connections = [libvirt.open(URI)]
    domain = connections[0].createXML(GUEST, 0)
    domain.suspend()
    seen["emulators"] = emulators()

    def reconnect() -> None:
        connections.append(libvirt.open(URI))

    patch = patches.make(
        RestartLibvirtPatch(60 * NS_PER_S), clock, patches.Tools(uri=URI, reconnect=reconnect)
    )
    patch.check()
    seen["rounds"] = []
    for _ in range(2):
        before = patch.version("")
        deadline = clock.now().raw_ns + 90 * NS_PER_S
        result = patch.apply(deadline)
        in_time = clock.now().raw_ns <= deadline
        after = patch.version("")
        serving = daemon.find(URI)
        environ = Path(f"/proc/{serving.pid}/environ").read_bytes().split(b"\0")
        state, _why = connections[-1].lookupByName("still").state()
        seen["rounds"].append(
            {
                "ok": result.ok,
                "why": result.why,
                "in_time": in_time,
                "steps": [step.name for step in result.steps],
                "verdict": patch.verify(before, after),
                "same": patch.verify(after, after),
                "argv": Path(f"/proc/{serving.pid}/cmdline").read_text().rstrip("\0").split("\0"),
                "mark": b"A_MARK=kept" in environ,
                "cwd": str(Path(f"/proc/{serving.pid}/cwd").readlink()),
                "output": str(Path(f"/proc/{serving.pid}/fd/2").readlink()),
                "paused": state == libvirt.VIR_DOMAIN_PAUSED,
                "emulators": emulators(),
            }
        )
    again = connections[-1].lookupByName("still")
    again.resume()
    seen["runs"] = again.state()[0] == libvirt.VIR_DOMAIN_RUNNING
    again.destroy()
    seen["first ended"] = first.wait(5) == 0

    # One that cannot be started again: the connection is lost, and that is said in time.
    serving = daemon.find(URI)
    Path("/etc/libvirt/libvirtd.conf").write_text("nonsense = = 1\n")
    result = patch.apply(clock.now().raw_ns + 20 * NS_PER_S)
    seen["broken"] = {"ok": result.ok, "why": result.why, "version": patch.version("")}
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
