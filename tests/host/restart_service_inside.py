"""Runs as a service of a systemd of its own (systemd_lab.py). Restarts other
services there, and writes down what it sees.

    restart_service_inside.py SCOPE OUTPUT FLAG
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.core.patch import RestartServicePatch, UnitScope
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.host import patches
from lab.ports import HostPatch
from lab.process.clock import HostClock
from tests.host.systemd_lab import report

CLOCK = HostClock()


def patch_of(unit: str, scope: UnitScope, deadline_ns: int = 20 * NS_PER_S) -> HostPatch:
    return patches.make(RestartServicePatch(f"{unit}.service", scope, deadline_ns), CLOCK)


def main_pid(unit: str, scope: UnitScope) -> int:
    argv = ["systemctl", f"--{scope}", "show", "--property=MainPID", "--value", unit]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def restarted(unit: str, scope: UnitScope, deadline_ns: int = 20 * NS_PER_S) -> dict[str, Any]:
    patch = patch_of(unit, scope, deadline_ns)
    patch.check()
    first, before = main_pid(unit, scope), patch.version("")
    end = CLOCK.now().raw_ns + 30 * NS_PER_S
    result = patch.apply(end)
    return {
        "ok": result.ok,
        "why": result.why,
        "steps": [step.name for step in result.steps],
        "facts": dict(result.facts),
        "pids": [first, main_pid(unit, scope)],
        "verdict": patch.verify(before, patch.version("")),
        "idle": patch.verify(before, before),
    }


def refusal(unit: str, scope: UnitScope) -> str:
    try:
        patch_of(unit, scope).check()
    except MachineError as error:
        return error.what
    return ""


def look(scope: UnitScope, flag: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "refusals": {
            unit: refusal(unit, scope) for unit in ("steady", "nosuch", "down", "remains", "locked", "trial")
        },
        "steady": [restarted("steady", scope) for _ in range(2)],
    }
    hasty = patch_of("slow", scope, NS_PER_S)
    first = main_pid("slow", scope)
    began = CLOCK.now().raw_ns
    result = hasty.apply(began + 30 * NS_PER_S)
    took = CLOCK.now().raw_ns - began
    seen["slow"] = {"ok": result.ok, "why": result.why, "took_ns": took}
    subprocess.run(["systemctl", f"--{scope}", "start", "slow"], check=True)  # waits: systemd goes on with it
    seen["slow"]["undone"] = hasty.undo()
    seen["slow"]["pids"] = [first, main_pid("slow", scope)]
    flag.unlink()
    fragile = patch_of("fragile", scope)
    before = fragile.version("")
    result = fragile.apply(CLOCK.now().raw_ns + 30 * NS_PER_S)
    seen["fragile"] = {
        "ok": result.ok,
        "why": result.why,
        "verdict": fragile.verify(before, fragile.version("")),
        "refusal": refusal("fragile", scope),
    }
    try:
        fragile.undo()
    except MachineError as error:
        seen["fragile"]["not undone"] = str(error)
    flag.touch()
    seen["fragile"]["undone"] = fragile.undo()
    seen["fragile"]["runs"] = bool(fragile.version(""))
    seen["fragile"]["undone twice"] = fragile.undo()
    return seen


report(lambda: look(UnitScope(sys.argv[1]), Path(sys.argv[3])))
