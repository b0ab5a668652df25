"""How long a run takes beyond its playbook's own time, how soon golden guests answer, and how long they are
stopped together, of one or more checkouts by turns.

    .venv/bin/python -m tests.bench.start [--guests 1 8] [--pairs 20] [--no-runs] [--cycles 1] [CHECKOUT …]

Each checkout runs its own ./freezelab, with a state folder and a cache of its own, in which the images are
links to those of the user's cache: builds would remove each other's golden guests. A first round, which is
not counted, makes these. Then, in every round, once for each checkout, the first one first in every second
round:

    run         wall time of `./freezelab run` of first-freeze with a shorter cycle, from the command to its
                end, less the playbook's own time (settle, before, hold, watch). Its parts: python, until the
                run begins; guests, until they are ready; set-up, until the cycle begins; cycle, beyond the
                playbook's own time; removal, until the last event; report, until the command has ended
    probe N     `run --golden` of N guests of 512 MiB: from the start of the first until the probes of all
                have answered; SSH N: until SSH has as well, which a build without such a figure needs for the
                probe. By the history of the run
    pause N     in the same run, which suspends all guests and resumes them at once (hold 0), --cycles times:
                from QEMU's stamp of a guest's stop to that of its resume; the median guest of each cycle.
                longest N: that of the guest that was stopped longest. stops N, resumes N: from the first
                guest's stamp to the last one's

All times are seconds, those of a pause milliseconds. CHECKOUT: of freezelab, with its .venv; this one by
default. Guests should run one command at a time: nothing is measured side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.core.units import NS_PER_S
from lab.image.store import default_cache
from tests.bench.pairs import table

HERE = Path(__file__).parents[2]
PARTS = ("python", "guests", "set-up", "cycle", "removal", "report")
GOLDEN = """\
name: golden-{count}
fleet: {{guests: [{{name: web, count: {count}, memory: 512 MiB}}]}}
resync: none
repeat: {cycles}
cycle: {{method: suspend, patch: {{hold: 0s}}, settle: 0s, before: 500ms, watch: 1s}}
expect: {{regime: resumed}}
"""
SHORT = {
    "patch: {hold: 5s}": "patch: {hold: 500ms}",
    "settle: 1s": "settle: 0s",
    "before: 4s": "before: 1s",
    "watch: 8s": "watch: 3s",
    "in_time: {within: 5s, tolerance: 100ms, hold: 2s}": "in_time: {within: 2s, tolerance: 100ms, hold: 1s}",
    "pause: {at_least: 5s, at_most: 7s}": "pause: {at_least: 500ms}",
}
OF_A_PAUSE = ("pause", "longest", "stops", "resumes")
Events = list[dict[str, Any]]


class Checkout:
    """One build, with its own state folder and cache, which close() removes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = Path(tempfile.mkdtemp(prefix="fl-bench-"))
        (self.folder / "cache").mkdir()
        (self.folder / "cache" / "images").symlink_to(default_cache() / "images")
        self.environment = os.environ | {
            "FREEZELAB_HOME": str(self.folder / "home"),
            "FREEZELAB_CACHE": str(self.folder / "cache"),
        }
        self.environment.pop("PYTHONPATH", None)
        if not (root / ".venv").exists():  # a worktree that uses another's environment
            self.command = [sys.executable, "-m", "lab.cli.main"]
            self.environment["PYTHONPATH"] = str(root)
        else:
            self.command = [str(root / "freezelab")]

    def close(self) -> None:
        (self.folder / "cache" / "images").unlink()
        if (run := self.folder / "home" / "libvirt" / "run").is_symlink():
            shutil.rmtree(run.resolve(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *arguments: str) -> tuple[int, int, Events]:
        """Host CLOCK_REALTIME in ns before and after a run, and its history."""
        began = time.time_ns()
        command = [*self.command, "run", "--quiet", *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=self.root, capture_output=True, text=True, check=False
        )
        ended = time.time_ns()
        if done.returncode not in (0, 1, 3):
            raise SystemExit(f"{self.root}: {done.stderr}")
        last = max((self.folder / "home" / "runs").iterdir(), key=lambda path: path.name)
        lines = (last / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return began, ended, [json.loads(line) for line in lines]


def own_ns(plan: dict[str, Any]) -> int:
    """A playbook's own time; its patch is a hold."""
    cycle = plan["cycle"]
    once = cycle["settle_ns"] + cycle["before_ns"] + cycle["patch"]["duration_ns"] + cycle["watch_ns"]
    return int(once * plan["repeat"])


def whole_run(checkout: Checkout) -> dict[str, list[float]]:
    """The seconds of one run, beyond its own time, and of its parts."""
    text = (checkout.root / "playbooks" / "first-freeze.yaml").read_text(encoding="utf-8")
    for long, short in SHORT.items():
        assert long in text
        text = text.replace(long, short)
    playbook = checkout.folder / "first-freeze.yaml"
    playbook.write_text(text, encoding="utf-8")
    began, ended, events = checkout.run(str(playbook))
    at = {event["kind"]: event["real_ns"] for event in events}
    own = own_ns(events[0]["plan"])
    stamps = [began, at["run-start"], at["boot"], at["cycle"], at["cycle-end"], at["run-end"], ended]
    parts = [later - earlier for earlier, later in pairwise(stamps)]
    parts[PARTS.index("cycle")] -= own
    found = {"run": ended - began - own, **dict(zip(PARTS, parts, strict=True))}
    return {name: [value / NS_PER_S] for name, value in found.items()}


def golden_guests(checkout: Checkout, count: int, cycles: int) -> dict[str, list[float]]:
    """The seconds until the guests of one run answered, and the milliseconds of its cycles' pauses."""
    playbook = checkout.folder / f"golden-{count}.yaml"
    playbook.write_text(GOLDEN.format(count=count, cycles=cycles), encoding="utf-8")
    _, _, events = checkout.run(str(playbook), "--golden")
    timings = [event["timings"] for event in events if event["kind"] == "boot"]
    if cold := [one for one in timings if "from_golden_s" not in one]:
        raise SystemExit(f"{checkout.root}: {len(cold)} guests were booted")
    probe = max(one["to_probe_s"] for one in timings)
    ssh = max(one.get("to_ssh_s", one["to_probe_s"]) for one in timings)
    found = {f"probe {count}": [probe], f"SSH {count}": [ssh]}
    for cycle in range(cycles):
        stops, resumes = (
            [
                event["call"]["event_real_ns"] / 1e6
                for event in events
                if event["kind"] == kind and event["cycle"] == cycle
            ]
            for kind in ("stop", "resume")
        )
        pauses = [resume - stop for stop, resume in zip(stops, resumes, strict=True)]
        spans = (max(stops) - min(stops), max(resumes) - min(resumes)) if count > 1 else ()
        for name, value in zip(OF_A_PAUSE, (statistics.median(pauses), max(pauses), *spans), strict=False):
            found.setdefault(f"{name} {count}", []).append(value)
    return found


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[HERE])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--guests", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--no-runs", action="store_true")
    parser.add_argument("--cycles", type=int, default=1)
    asked = parser.parse_args()
    builds = [Checkout(root.resolve()) for root in asked.checkouts]
    found: dict[str, dict[str, list[float]]] = {}
    try:
        for round_ in range(asked.pairs + 1):
            for build in builds if round_ % 2 else builds[::-1]:
                times = {} if asked.no_runs else whole_run(build)
                for count in asked.guests:
                    times |= golden_guests(build, count, asked.cycles)
                shown = {name: [round(value, 2) for value in values] for name, values in times.items()}
                print(round_, build.root.name, shown, flush=True)
                for name, values in times.items() if round_ else ():
                    found.setdefault(name, {}).setdefault(str(build.root), []).extend(values)
    finally:
        for build in builds:
            build.close()
    for name, measured in found.items():
        unit = "ms" if name.split()[0] in OF_A_PAUSE else "s"
        print(table(f"{name}, {unit}", measured), end="\n\n")


if __name__ == "__main__":
    main()
