"""Runs inside namespaces of its own: a domain of a user's own on a real libvirtd, and runs over it.

    own_inside.py NAME

NAME is one of the functions below. Prints what it saw as JSON; test_own_domains.py starts it and judges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import libvirt

from tests.host.own_machine import SECOND_DISK, OwnMachine, daemon, opened

ROOT = Path(__file__).parents[2]
URI = "qemu:///system"
HOME = Path("/run/fl")

PLAYBOOK = """
name: own
guests: [{entry}]
resync: {resync}
cycle: {{method: {method}, patch: {{hold: {hold}}}, before: 2s, watch: 4s}}
"""


def freezelab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab.cli.main", *arguments],
        cwd=ROOT,
        env={**os.environ, "FREEZELAB_HOME": str(HOME), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def playbook(machine: OwnMachine, method: str = "suspend", resync: str = "none", hold: str = "2s") -> str:
    path = Path("/run/own.yaml")
    entry = machine.entry()
    path.write_text(PLAYBOOK.format(entry=entry, method=method, resync=resync, hold=hold))
    return str(path)


def run(machine: OwnMachine, method: str, **more: str) -> dict[str, Any]:
    """One run over the domain, and whether the domain is as before."""
    before = machine.look()
    done = freezelab("run", "--json", playbook(machine, method, **more), "--connect", URI)
    after = machine.look()
    record = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    cycles = [cycle for guest in record.get("guests", []) for cycle in guest["cycles"]]
    return {
        "status": done.returncode,
        "notes": done.stderr.splitlines(),
        "outcome": record.get("outcome"),
        "boot": record["guests"][0]["boot"] if record else {},
        "pauses": [cycle["pause"]["value_ns"] for cycle in cycles if cycle.get("pause")],
        "differs": {key: [before[key], after[key]] for key in before if before[key] != after[key]},
        "left": sorted(str(path) for name in ("own", "saved", "guests") for path in HOME.glob(f"{name}/*")),
    }


def methods(connection: Any) -> dict[str, Any]:
    """A persistent domain with two disks and an empty CD drive, by suspend and by save-restore."""
    machine = OwnMachine(connection, Path("/run/mine"), devices=SECOND_DISK)
    machine.answers()
    return {method: run(machine, method) for method in ("suspend", "save-restore")}


def main() -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/run/lock").mkdir()
    Path("/run/lock").chmod(0o1777)
    with daemon("/usr/sbin/libvirtd", log=Path("/run/libvirtd.out")):
        connection = opened(URI)
        try:
            seen = {"methods": methods}[sys.argv[1]](connection)
        finally:
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                domain.destroy()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
