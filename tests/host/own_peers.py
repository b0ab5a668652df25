"""Runs inside namespaces of its own: a domain of a user's own, two real libvirt daemons, and runs that
migrate it from one to the other and back.

    own_peers.py SCENE

Prints what it saw as JSON; test_own_migrations.py starts it and judges. The domain is on a bridge, where each
daemon's QEMU has a tap. The second daemon has folders and a host uuid of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import libvirt

from tests.host.own_inside import kill_both
from tests.host.own_lab import PLACE, Lab, until
from tests.host.own_machine import OwnMachine, daemon, opened

BRIDGE = ("own0", "10.9.0.1/24", "10.9.0.2/24")
APART = """
for folder in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p $folder
    mount -t tmpfs none $folder
done
exec "$@"
"""
RUNS = libvirt.VIR_DOMAIN_RUNNING


class Peers:
    """A lab over one domain, and both daemons."""

    def __init__(self, lab: Lab, here: Any, there: Any, uri: str) -> None:
        self.lab, self.here, self.there, self.uri = lab, here, there, uri

    def run(self, cycle: str = "", unsafe: bool = True, uri: str = "", hold: str = "0s") -> dict[str, Any]:
        return self.lab.run("live-migrate", hold=hold, entry=self.entry(unsafe, uri), keys=cycle)

    def playbook(self, cycle: str = "", watch: str = "4s") -> str:
        return self.lab.playbook("live-migrate", hold="0s", entry=self.entry(), keys=cycle, watch=watch)

    def entry(self, unsafe: bool = True, uri: str = "") -> str:
        to = f"{{uri: '{uri or self.uri}', unsafe: {str(unsafe).lower()}}}"
        return self.lab.machine.entry(f", migrate_to: {to}")

    def is_at(self, place: str, leaves: Any | None, run: subprocess.Popen[str]) -> bool:
        """Whether the domain is at this place, and leaves it if that is given; or the run has ended."""
        return run.poll() is not None or (place in self.places() and self.has_job(leaves))

    def has_job(self, connection: Any | None) -> bool:
        """Whether the domain is being migrated away from here; True for no connection."""
        with contextlib.suppress(libvirt.libvirtError):
            name = self.lab.machine.name
            return (
                connection is None
                or connection.lookupByName(name).jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE
            )
        return False

    def places(self) -> list[str]:
        """Where the domain is active, and whether it runs there."""
        found = []
        for name, connection in (("here", self.here), ("there", self.there)):
            with contextlib.suppress(libvirt.libvirtError):
                domain = connection.lookupByName(self.lab.machine.name)
                if domain.isActive():
                    found.append(f"{name} {'runs' if domain.state()[0] == RUNS else domain.state()}")
        return found


def moves(peers: Peers) -> dict[str, Any]:
    """There and back."""
    seen: dict[str, Any] = {"plan": peers.lab("plan", peers.playbook()), "moved": peers.run()}
    seen["places"] = peers.places()
    seen["report"] = peers.lab.ended(peers.lab.start("report", "-v", connect=False))
    return seen


def refused(peers: Peers) -> dict[str, Any]:
    """A migration that does not converge, and what cannot be done."""
    never = ", bandwidth: 4 MiB/s, dirty_rate: 40 MiB/s, max_downtime: 10ms, budget: 8s"
    return {
        "never": peers.run(never),
        "downtime": peers.lab.machine.domain.migrateGetMaxDowntime(0),
        "unsafe": peers.run(unsafe=False),
        "held": peers.run(hold="2s"),
        "nobody": peers.run(uri=f"qemu+unix:///system?socket={PLACE}/nobody"),
        "itself": peers.run(uri=peers.lab.uri),
        "interrupted": interrupted(peers),
        "places": peers.places(),
        "tainted": peers.lab.machine.domain.messages(libvirt.VIR_DOMAIN_MESSAGE_TAINTING),
    }


def interrupted(peers: Peers) -> dict[str, Any]:
    """An interrupt while the domain goes there."""
    process = peers.lab.start("run", peers.playbook(SLOW))
    until(partial(peers.is_at, "here runs", peers.here, process))
    process.send_signal(signal.SIGTERM)
    return {**peers.lab.ended(process), "places": peers.places(), "left": peers.lab.left()}


SLOW = ", bandwidth: 4 MiB/s, budget: 1min"


def killed(peers: Peers) -> dict[str, Any]:
    """The controller is killed while the domain goes there, with its dead-man too, while it is there, and
    while it comes back."""
    machine, lab = peers.lab.machine, peers.lab
    before, seen = machine.look(), dict[str, Any]()
    for name, act, cycle, at, connection in (
        ("going", subprocess.Popen.kill, SLOW, "here runs", peers.here),
        ("going, alone", kill_both, SLOW, "here runs", peers.here),
        ("there", kill_both, "", "there runs", None),
        ("coming", kill_both, "", "there runs", peers.there),
    ):
        playbook = peers.playbook(cycle, "2s" if connection else "1min")
        process = lab.start("run", playbook)
        until(partial(peers.is_at, at, connection, process))
        if process.poll() is not None:
            raise AssertionError(lab.ended(process))
        time.sleep(0.5 if connection is peers.here else 0)
        act(process)
        process.communicate()
        until(lambda: not any(map(peers.has_job, (peers.here, peers.there))), told=lab.history)
        seen[name] = {"places": peers.places(), "recover": lab("recover"), "left": lab.left()}
        seen[name]["then"] = peers.places()
        machine.answers()
    after = machine.look()
    return {
        **seen,
        "differs": {key: [before[key], after[key]] for key in before if before[key] != after[key]},
    }


SCENES: dict[str, Callable[[Peers], dict[str, Any]]] = {"moves": moves, "refused": refused, "killed": killed}


def main() -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)
    name, host, guest = BRIDGE
    for command in (
        ("link", "set", "lo", "up"),
        ("link", "add", name, "type", "bridge"),
        ("address", "add", host, "dev", name),
        ("link", "set", name, "up"),
    ):
        subprocess.run(["ip", *command], check=True)
    Path("/dev/net").mkdir()
    os.mknod("/dev/net/tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    Path("/run/lock").mkdir()
    Path("/run/lock").chmod(0o1777)
    PLACE.mkdir()
    with contextlib.ExitStack() as stack:
        uris = [
            stack.enter_context(libvirtd(PLACE / each, apart=each == "there")) for each in ("here", "there")
        ]
        here, there = map(opened, uris)
        machine = OwnMachine(here, PLACE / "mine", bridge=name, address=guest)
        try:
            machine.answers()
            seen = SCENES[sys.argv[1]](Peers(Lab(machine, uris[0]), here, there, uris[1]))
        finally:
            for connection in (here, there):
                with contextlib.suppress(libvirt.libvirtError):
                    connection.lookupByName(machine.name).destroy()
    json.dump(seen, sys.stdout)


@contextlib.contextmanager
def libvirtd(folder: Path, *, apart: bool) -> Any:
    """A daemon with its socket in this folder; its URI. apart: it has the other folders to itself."""
    folder.mkdir()
    config = folder / "libvirtd.conf"
    config.write_text(f"unix_sock_dir = '{folder}'\nhost_uuid = '{uuid.uuid4()}'\nauth_unix_rw = 'none'\n")
    argv = ["/usr/sbin/libvirtd", "--config", str(config), "--pid-file", str(folder / "pid")]
    if apart:
        argv = ["unshare", "--mount", "sh", "-c", APART, "apart", *argv]
    with daemon(*argv, log=folder / "out"):
        yield f"qemu+unix:///system?socket={folder}/libvirt-sock"


if __name__ == "__main__":
    main()
