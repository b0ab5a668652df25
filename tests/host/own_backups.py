"""Scenes of own_inside.py: snapshots of a domain's disks, and what of them is left when they are cut off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from tests.host.killed_in_snapshot import dead_men
from tests.host.own_lab import Lab, until

PROGRAM = "tests.host.killed_in_snapshot"
SAVED_APART = ("pivoted", "taken", "state-taken")


def backups(lab: Lab) -> dict[str, Any]:
    """By a host's sleep and by snapshots of its two disks, and a snapshot whose controller is killed."""
    seen: dict[str, Any] = {
        method: lab.run(method) for method in ("host-sleep", "snapshot", "snapshot-state")
    }
    seen["overlays"] = files(lab)
    before = look(lab)
    lab.during("freeze", subprocess.Popen.kill, "snapshot")
    until(lambda: '"kind":"deadman"' in lab.history(), told=lab.history)
    seen["killed"] = {
        "history": [json.loads(x) for x in lab.history().splitlines() if '"kind":"deadman"' in x],
        "recover": lab("recover"),
        **left(lab, before),
    }
    return seen


def cut_off(lab: Lab) -> dict[str, Any]:
    """A controller that is killed at moments of a snapshot, perhaps with its dead-man; and recover. The
    arguments are points of killed_in_snapshot.py, some with " alone"."""
    seen: dict[str, Any] = {}
    before = look(lab)
    apart = lab.machine.folder.parent / "apart"
    apart.mkdir()
    for moment in sys.argv[2:]:
        point, _, alone = moment.partition(" ")
        method = "snapshot-state" if point.startswith("state") else "snapshot"
        keys = ", budget: 10s"  # for which the killed run's writer writes on, and keeps the guest busy
        keys += f", save_to: {apart}" if point in SAVED_APART else ""
        playbook = lab.playbook(method, hold="100ms", watch="1s", keys=keys)
        ended = lab.ended(lab.start("run", playbook, program=(PROGRAM, point, alone or "with")))
        until(lambda: not dead_men())
        recovered = lab("recover")
        seen[moment] = {
            "status": ended["status"],
            "said": ended["said"][-3:],
            "recover": recovered["out"].splitlines(),
            "status of recover": recovered["status"],
            **left(lab, before),
            "apart": sorted(path.name for path in apart.iterdir()),
        }
        tell(moment, seen[moment])
    return seen


def tell(name: str, one: dict[str, Any]) -> None:
    """For whoever waits."""
    print(name, one, file=sys.stderr, flush=True)  # noqa: T201


def look(lab: Lab) -> dict[str, Any]:
    """What must be the same, with the chains of its disks and the downtime of migrations as QEMU has them."""
    devices = ET.fromstring(lab.machine.domain.XMLDesc(0))  # noqa: S314 - libvirt's own
    chains = [[each.get("file") for each in disk.iter("source")] for disk in devices.iterfind("devices/disk")]
    downtime = lab.machine.domain.migrateGetMaxDowntime(0)
    return {**lab.machine.look(), "chains": chains, "downtime": downtime}


def left(lab: Lab, before: dict[str, Any]) -> dict[str, Any]:
    """What a cut-off snapshot has left after recover: nothing. The guest writes again."""
    lab.machine.answers()
    lab.machine.inside("touch /var/tmp/written && sync")
    after = look(lab)
    return {
        "differs": {key: [before[key], after[key]] for key in before if before[key] != after[key]},
        "overlays": files(lab),
        "left": lab.left(),
    }


def files(lab: Lab) -> list[str]:
    return sorted(path.name for path in lab.machine.folder.glob("freezelab-*"))


AGENT = "qemu-guest-agent"


def interrupted(lab: Lab) -> dict[str, Any]:
    """Ctrl-C at points of a snapshot, once or twice as the first argument says."""
    seen: dict[str, Any] = {}
    before = look(lab)
    how, *points = sys.argv[2:]
    for point in points:
        method = "snapshot-state" if point.startswith("state") else "snapshot"
        playbook = lab.playbook(method, hold="2s", watch="2s")
        ended = lab.ended(lab.start("run", playbook, program=(PROGRAM, point, how)))
        seen[point] = {"status": ended["status"], "said": ended["said"][-3:], **left(lab, before)}
        tell(f"{point} {how}", seen[point])
    return seen


def troubled(lab: Lab) -> dict[str, Any]:
    """Agents that hang, end or are not there, and file systems that others have frozen."""
    machine = lab.machine
    end = f"systemctl stop {AGENT}"
    stop, go_on = (f"systemctl kill -s {signal} {AGENT}" for signal in ("STOP", "CONT"))
    shell = machine.entry(", probe: shell")

    def frozen(name: str, entry: str = "") -> dict[str, Any]:
        """Its agent is sent this signal."""
        act = machine.poised(FIND, f"kill -s {name} $pid")
        return reported(lab.during("freeze", lambda _: act(), "snapshot", entry=entry, watch="2s"))

    def reported(done: dict[str, Any]) -> dict[str, Any]:
        report = json.loads(lab.ended(lab.start("report", "--json", connect=False))["out"])
        found = [each for each in report["findings"] if each["metric"] == "file systems"]
        return {**done, "found": [(each["outcome"], each["why"]) for each in found]}

    def late() -> dict[str, Any]:
        """A snapshot that takes longer than the budget, since libvirt's daemon hangs."""
        pid = Path("/run/libvirtd.pid").read_text().strip()
        program = (PROGRAM, "taking", f"kill -STOP {pid}; (sleep 15; kill -CONT {pid}) >/dev/null 2>&1 &")
        playbook = lab.playbook("snapshot", watch="2s", keys=", budget: 5s")
        return reported(lab.ended(lab.start("run", playbook, program=program)))

    def is_thawed() -> bool:
        with suppress(libvirt.libvirtError):
            return int(machine.domain.fsThaw()) >= 0
        return False

    def before(command: str) -> dict[str, Any]:
        machine.inside(command)
        return lab.run("snapshot")

    def by_its_agent() -> dict[str, Any]:
        until(is_thawed)  # its agent is there
        machine.domain.fsFreeze()
        return {**lab.run("snapshot"), "thawed": machine.domain.fsThaw()}

    def as_it_is_to_freeze() -> dict[str, Any]:
        """What it was asked waits for it: when it goes on, it freezes, and nobody is there to thaw."""
        program = (PROGRAM, "asked", f"ssh -F {machine.config} {machine.name}-host {stop}")
        done = lab.ended(lab.start("run", lab.playbook("snapshot", watch="2s"), program=program))
        machine.inside(go_on)
        until(lambda: machine.domain.fsThaw() > 0)
        return done

    scenes: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
        "hangs": (lambda: frozen("STOP"), go_on),
        "ends": (lambda: frozen("TERM"), START),
        "hangs, shell": (lambda: frozen("STOP", shell), go_on),
        "ends, shell": (lambda: frozen("TERM", shell), START),
        "hung before": (lambda: before(stop), go_on),
        "hangs as it is to freeze": (as_it_is_to_freeze, ""),
        "absent": (lambda: before(end), START),
        "frozen by its agent": (by_its_agent, ""),
        "libvirt hangs": (late, ""),
    }
    as_it_was, seen = look(lab), {}
    for name in sys.argv[2:] or scenes:
        act, after = scenes[name]
        done = act()
        if after:
            machine.inside(after)
            until(is_thawed)  # it takes the file systems for frozen until it has thawed them itself
        keys = ("status", "found", "thawed")
        seen[name] = {key: done[key] for key in keys if key in done} | left(lab, as_it_was)
        seen[name]["said"] = done["said"][-2:]
        tell(name, seen[name])
    return seen


START = f"systemctl start {AGENT}"
FIND = f"""
pid=0
while [ "$pid" = 0 ]; do sleep 0.1; pid=$(systemctl show -p MainPID --value {AGENT}); done
"""
"""The process of the agent, which the guest may not have started yet."""
