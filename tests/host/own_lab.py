"""The command over a domain of a user's own, for the programs that run in namespaces (own_inside.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.host.own_machine import OwnMachine

ROOT = Path(__file__).parents[2]
SYSTEM, SESSION = "qemu:///system", "qemu:///session"
PLACE = Path("/run/own")
HOME = PLACE / "fl"
WAIT_S = 90.0

PLAYBOOK = """
name: own
guests: [{entry}]
resync: {resync}
cycle: {{method: {method}, patch: {{hold: {hold}}}, before: 2s, watch: {watch}{keys}}}
"""

Act = Callable[[subprocess.Popen[str]], object]


class Lab:
    """The command, over one domain. home: its state folder."""

    def __init__(self, machine: OwnMachine, uri: str, home: Path = HOME) -> None:
        self.machine, self.uri, self.home = machine, uri, home

    def start(
        self, *arguments: str, connect: bool = True, program: tuple[str, ...] = ("lab.cli.main",)
    ) -> subprocess.Popen[str]:
        uri = ["--connect", self.uri] if connect else []
        return subprocess.Popen(
            [sys.executable, "-m", *program, *arguments, *uri],
            cwd=ROOT,
            env={**os.environ, "FREEZELAB_HOME": str(self.home), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """A command's status, and the last lines that it printed."""
        return self.ended(self.start(*arguments))

    def ended(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        out, err = process.communicate(timeout=WAIT_S * 2)
        said = [line for line in err.splitlines() if not line.startswith("   ")]
        return {"status": process.returncode, "said": said, "out": out}

    def playbook(
        self,
        method: str = "suspend",
        resync: str = "none",
        hold: str = "2s",
        entry: str = "",
        more: str = "",
        watch: str = "4s",
        keys: str = "",
    ) -> str:
        """keys: of the cycle, beside the usual ones."""
        path = PLACE / "own.yaml"
        entry = entry or self.machine.entry()
        text = PLAYBOOK.format(entry=entry, method=method, resync=resync, hold=hold, watch=watch, keys=keys)
        path.write_text(text + more)
        return str(path)

    def run(self, method: str = "suspend", **more: str) -> dict[str, Any]:
        """One run over the domain, and whether the domain is as before."""
        before = self.machine.look()
        done = self("run", "--json", self.playbook(method, **more))
        after = self.machine.look()
        record = json.loads(done["out"]) if done["out"].startswith("{") else {}
        cycles = [cycle for guest in record.get("guests", []) for cycle in guest["cycles"]]
        return {
            "status": done["status"],
            "said": done["said"],
            "outcome": record.get("outcome"),
            "boot": record["guests"][0]["boot"] if record else {},
            "cycles": cycles,
            "pauses": [cycle["pause"]["value_ns"] for cycle in cycles if cycle.get("pause")],
            "differs": {key: [before[key], after[key]] for key in before if before[key] != after[key]},
            "left": self.left(),
        }

    def left(self) -> list[str]:
        return sorted(
            str(path) for name in ("own", "saved", "guests") for path in self.home.glob(f"{name}/*")
        )

    def history(self) -> str:
        """That of the latest run."""
        return "".join(path.read_text() for path in sorted(self.home.glob("runs/*/events.jsonl"))[-1:])

    def during(
        self, kind: str, act: Act, method: str, resync: str = "none", entry: str = "", watch: str = "4s"
    ) -> dict[str, Any]:
        """A run in which something happens a second after its first event of this kind."""
        before = len(list(self.home.glob("runs/*")))
        hold = "6s" if kind == "freeze" else "1s"
        process = self.start("run", self.playbook(method, resync, hold, entry, watch=watch))
        begun = f'"kind":"{kind}"'
        until(
            lambda: (
                process.poll() is not None
                or (len(list(self.home.glob("runs/*"))) > before and begun in self.history())
            )
        )
        if process.poll() is not None:
            raise AssertionError(self.ended(process))
        time.sleep(1)
        act(process)
        return {**self.ended(process), "state": self.machine.state(), "left": self.left()}


def until(holds: Callable[[], object], within_s: float = WAIT_S, told: Callable[[], str] = str) -> None:
    """Wait until it holds. told: what explains that it does not."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"it did not come true in time {told()[-2000:]}")
        time.sleep(0.02)


def works(plan: str) -> set[str]:
    """The methods that work on the domain, as its plan says; without host-sleep, which needs a cgroup."""
    return set(plan.partition("works: ")[2].partition(";")[0].split(", ")) - {"host-sleep"}


def in_a_line(done: dict[str, Any]) -> str:
    return " ".join(done["out"].split())
