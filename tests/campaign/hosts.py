"""Runs over hosts, broken on purpose: `python -m tests.campaign.hosts [PATTERN]`.

Each scene is a run of real guests on hosts that are namespaces (tests.host.ssh_hosts): cells or a fleet. At a
step of it a link is cut, or a process killed or interrupted. What is left on the hosts afterwards is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psutil

from lab.record.journal import EVENTS
from tests.campaign.hosts_scenes import (
    FAULTS,
    FROZEN_S,
    HANDLERS,
    LOOK_S,
    RUN_S,
    STEP_S,
    STEPS,
    Scene,
    Stage,
    scenes,
)
from tests.campaign.hosts_truth import down_together, untold, untrue
from tests.host.ssh_hosts import NamespaceHost, SshHosts, in_namespace

SLOW_S = 20.0
"""What hosts need longer for until nothing is left on them is looked at."""


def played(scene: Scene, width: int = 100) -> dict[str, Any]:
    """Play a scene. What was seen."""
    with tempfile.TemporaryDirectory(prefix="fl-h-") as folder, SshHosts(Path(folder)) as lab:
        lab.folder.chmod(0o755)  # so that only freezelab's own folders hide what is in them
        for number in range(1, scene.hosts + 1):
            first = number == 1
            lab.add(
                f"rack-{number}",
                ahead_s=scene.ahead_s if first else 0,
                real_ahead_s=scene.real_ahead_s if first else 0,
            )
        book = lab.folder / "book" / "p.yaml"
        book.parent.mkdir()
        book.write_text(scene.playbook)
        for handler in HANDLERS:
            shutil.copy(handler, book.parent)
        if scene.at == "send":
            (book.parent / "large").write_bytes(os.urandom(20 << 20))
        began = time.monotonic()
        controller = subprocess.Popen(
            lab.argv("run", str(book), "--hosts", str(lab.file()), "--json", *scene.options),
            env=lab.environment(COLUMNS=str(width)),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        stage = Stage(lab, scene, lab.hosts[0], controller)
        assert controller.stdout is not None and controller.stderr is not None
        out: list[str] = []
        readers = [
            threading.Thread(target=lambda to=to, of=of: to.extend(of), daemon=True)
            for to, of in ((stage.said, controller.stderr), (out, controller.stdout))
        ]
        for reader in readers:
            reader.start()
        frozen = _Frozen(stage)
        frozen.start()
        fault = threading.Thread(target=_do, args=(stage, began), daemon=True)
        fault.start()
        found: dict[str, Any] = {"scene": scene.label}
        try:
            found["exit"] = controller.wait(RUN_S)
        except subprocess.TimeoutExpired:
            controller.kill()
            found["exit"] = "hangs"
        found["seconds"] = round(time.monotonic() - began, 1)
        found["done at"] = round(stage.done_s, 1)
        fault.join(40)
        for reader in readers:
            reader.join(5)
        found["shown"] = [*stage.shown, *(line for line in stage.could if not line.startswith("tried"))]
        found["tried"] = [line.split(", /")[0] for line in stage.could if line.startswith("tried")]
        found["said"] = "".join(stage.said).strip().splitlines()[-12:]
        found["record"] = _record(out, lab)
        found["untrue"] = [*untrue(lab), *untold(lab)]
        found["down together"] = down_together(lab) if "rollout" in scene.kind else []
        settled = time.monotonic()
        while _left(stage) and time.monotonic() < settled + scene.settle_s:
            time.sleep(0.2)
        found["settled after"] = round(time.monotonic() - settled, 1)
        found["left"] = _left(stage)
        if found["settled after"] > SLOW_S:
            found["at last"] = [line for host in lab.hosts for line in _last_events(host, stage.done_ns)]
        frozen.over = True
        frozen.join()
        found["frozen"] = frozen.longest
        for host in lab.hosts:
            host.wire.is_cut, host.wire.loss, host.wire.there_s, host.wire.back_s = False, 0.0, 0.0, 0.0
        if found["left"]:
            done = lab.run("hosts", "recover", str(lab.folder / "hosts.yaml"), timeout_s=300)
            found["recover"] = [done.returncode, *done.stdout.splitlines(), *done.stderr.splitlines()]
            found["left then"] = _left(stage)
        parts = list((lab.folder / "controller-state/runs").glob(".2*/parts/*/"))
        if parts:  # of a controller that was killed
            done = lab.run("merge", *map(str, parts))
            found["merged"] = [done.returncode, *done.stdout.splitlines()[:3], *done.stderr.splitlines()]
        if scene.resumes:
            found["resumed"] = _resumed(stage, book)
            found["left then"] = [*found.get("left then", ()), *_left(stage)]
        for process in stage.there():
            with suppress(psutil.Error):
                process.kill()
        found["wrong"] = _wrong(scene, found)
        return found


def _last_events(host: NamespaceHost, since_ns: int) -> list[str]:
    """What a host has recorded last, with the seconds after the fault."""
    lines = [line for path in sorted(host.state.glob(f"runs/*/{EVENTS}")) for line in path.open()]
    events = [json.loads(line) for line in lines[-6:]]
    return [
        f"{host.name}: {event['kind']} {(event['real_ns'] - host.real_ahead_ns - since_ns) / 1e9:+.1f} s"
        for event in events
    ]


def _wrong(scene: Scene, found: dict[str, Any]) -> list[str]:
    wrong = []
    if found["exit"] not in scene.exits:
        wrong.append(f"exit {found['exit']}, not {scene.exits}")
    if found.get("left then") or (found["left"] and scene.settle_s):
        wrong.append("something is left")
    wrong += [*found["untrue"], *found["down together"]]
    wrong += [line for line in found.get("resumed", ()) if line.startswith("WRONG")]
    wrong += [line for line in found["said"] if line.startswith("CAMPAIGN")]
    if found["shown"]:
        wrong.append("something is shown to others")
    if not re.search(scene.why, "\n".join([*found["said"], *found["record"].get("why", ())])):
        wrong.append(f"no word of {scene.why!r}")
    budget_s = float(dict(scene.book).get("budget", "30s").removesuffix("s"))
    late = [name for name, span in found["frozen"].items() if float(span) > budget_s + FROZEN_S]
    if late and scene.what != "kill-all":
        wrong.append(f"frozen beyond the budget: {late}")
    last = [number for number, line in enumerate(found["said"]) if line.startswith("freezelab: ")]
    if found["exit"] == 4 and len(found["said"]) - (last or [0])[-1] > 2:
        wrong.append("an error of more than two lines")
    return wrong


def _do(stage: Stage, began: float) -> None:
    end = time.monotonic() + STEP_S
    step = STEPS[stage.scene.at]
    while not step(stage):
        if time.monotonic() > end or (stage.controller.poll() is not None):
            return
        time.sleep(LOOK_S)
    stage.done_s, stage.done_ns = time.monotonic() - began, time.time_ns()
    stage.shown = _shown(stage)
    try:
        FAULTS[stage.scene.what](stage)
    except (AssertionError, OSError) as error:
        stage.said.append(f"CAMPAIGN: {error}\n")


def _shown(stage: Stage) -> list[str]:
    """What listens beyond a loopback, but for sshd, and what of the playbook another user can read."""
    found = []
    for pid in (stage.lab.controller, *(host.process.pid for host in stage.lab.hosts)):
        table = subprocess.run(
            [*in_namespace(pid), "ss", "-Hltun"], capture_output=True, text=True, check=False
        ).stdout
        places = [line.split()[4] for line in table.splitlines()]
        found += [
            f"{pid}: {place}"
            for place in places
            if not place.startswith(("127.", "[::1]")) and ":22" not in place
        ]
    for host in stage.lab.hosts:
        there = ["nsenter", f"--mount=/proc/{host.process.pid}/ns/mnt", "--"]
        read = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "find"]
        other = subprocess.run(
            [*there, *read, str(host.state / "runs"), "/tmp", "-name", "p.yaml", "-o", "-name", "dask.*"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found += [path for path in other.stdout.splitlines() if "/book/" not in path]
    return found


class _Frozen(threading.Thread):
    """Looks at the CPU time of the hosts' QEMUs. longest: for each, the longest time in which it used none,
    in seconds, and whether it ended so."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self._stage, self.over, self.longest = stage, False, dict[str, str]()

    def run(self) -> None:
        since: dict[int, tuple[float, float]] = {}
        spans: dict[int, float] = {}
        names: dict[int, str] = {}
        while not self.over:
            now = time.monotonic()
            for process in self._stage.there():
                with suppress(psutil.Error):
                    line = " ".join(process.cmdline())
                    if "qemu-system" not in line.partition(" ")[0]:
                        continue
                    used = sum(process.cpu_times()[:2])
                    names[process.pid] = next(iter(re.findall(r"rack-\d", line)), "?")
                    last, at = since.get(process.pid, (used, now))
                    if used > last:
                        at = now
                    since[process.pid] = used, at
                    spans[process.pid] = max(spans.get(process.pid, 0.0), now - at)
            time.sleep(0.3)
        self.longest = {
            f"{names[pid]} {pid}": f"{span:.1f}" for pid, span in spans.items() if span > FROZEN_S
        }


def _resumed(stage: Stage, book: Path) -> list[str]:
    """Go on with the cells that the run lacks. What became of it, in lines."""
    lab = stage.lab
    (first,) = (lab.folder / "controller-state/runs").glob("2*")
    lacks = {
        one["cell"]
        for one in json.loads((first / "run.json").read_text())["findings"]
        if one["outcome"] != "passed"
    }
    given = ["run", str(book), "--hosts", str(lab.folder / "hosts.yaml"), "--json", "--resume", first.name]
    done = lab.run(*given, timeout_s=RUN_S)
    if not done.stdout:
        return [f"WRONG: exit {done.returncode}: {done.stderr}"]
    run = json.loads(done.stdout)
    parts = {part["cells"][0]: part for part in run["parts"]}
    again = sorted(cell for cell, part in parts.items() if not part["run"].startswith(first.name))
    found = [
        f"exit {done.returncode}, {run['outcome']}; run again: {', '.join(again)}",
        *(f"{cell}: {part['run']} on {part['host']['details']['host']}" for cell, part in parts.items()),
        *(f"{one['cell']}: {one['why']}" for one in run["findings"] if one["outcome"] != "passed"),
    ]
    if done.returncode not in (0, 3):
        found.append("WRONG: its exit code")
    if not set(again) <= lacks:
        found.append(f"WRONG: run again, and not lacking: {set(again) - lacks}")
    found += [
        f"WRONG: {guest['cell']} has no pause, or several"
        for guest in run["guests"]
        if [cycle["pause"] is not None for cycle in guest["cycles"]] != [True]
    ]
    if len(run["guests"]) != len(run["cells"]) or len(parts) != len(run["cells"]):
        found.append(f"WRONG: {len(run['guests'])} guests in {len(parts)} parts")
    return found


def _record(out: Sequence[str], lab: SshHosts) -> dict[str, Any]:
    """The essentials of the run's record."""
    text = "".join(out)
    if not text:
        path = next(iter((lab.folder / "controller-state/runs").glob("2*/run.json")), None)
        if path is None:
            return {"none": [p.name for p in (lab.folder / "controller-state").glob("runs/.2*")]}
        text = path.read_text()
    run = json.loads(text)
    hosts = [part["host"]["details"] for part in run["parts"]]
    return {
        "outcome": run["outcome"],
        "cells": {cell["id"]: cell["outcome"] for cell in run["cells"]},
        "why": sorted(
            {f"{one['cell']}: {one['why']}" for one in run["findings"] if one["outcome"] != "passed"}
        ),
        "hosts": [host.get("host") for host in hosts],
        "cut_off": [host["fleet"]["cut_off"] for host in hosts if "fleet" in host],
        "pauses": {
            f"{guest['cell']}/{guest['name']}": [
                round(cycle["pause"]["value_ns"] / 1e9, 2) if cycle["pause"] else None
                for cycle in guest["cycles"]
            ]
            for guest in run["guests"]
        },
        "offsets": {
            f"{guest['cell']}/{guest['name']}": [
                [_bounds(cycle["offset"][at]) for at in ("before", "at_resume", "final")]
                for cycle in guest["cycles"]
            ]
            for guest in run["guests"]
        },
        "took": f"{run['started'][11:19]} to {run['ended'][11:19]}",
    }


def _bounds(offset: dict[str, int] | None) -> str:
    """In milliseconds."""
    return f"{offset['low_ns'] / 1e6:+.1f}…{offset['high_ns'] / 1e6:+.1f}" if offset else "none"


def _left(stage: Stage) -> list[str]:
    """What a run has left on the hosts."""
    found = [" ".join(process.cmdline())[:160] for process in _alive(stage)]
    for host in stage.lab.hosts:
        links = subprocess.run(
            [*in_namespace(host.process.pid), "ip", "-o", "link"], capture_output=True, text=True, check=False
        ).stdout
        names = re.findall(r"(?m)^\d+: ([\w-]+)", links)
        found += [f"{host.name}: interface {name}" for name in names if name not in ("lo", "eth0")]
        found += [
            f"{host.name}: /tmp/{path.name}"
            for path in host.tmp.iterdir()
            if path.name != stage.lab.folder.name
        ]
        for pattern in ("guests/*", "runs/.*", "agents/*", "ram/*"):
            found += [f"{host.name}: {path.relative_to(host.state)}" for path in host.state.glob(pattern)]
    return found


def _alive(stage: Stage) -> Iterator[psutil.Process]:
    for process in stage.there():
        with suppress(psutil.Error):
            process.cmdline()
            yield process


def _tell(found: dict[str, Any]) -> None:
    for key, value in found.items():
        if isinstance(value, list) and len(value) > 1:
            print(f"  {key}:", *value, sep="\n      ", flush=True)
        else:
            print(f"  {key}: {value}" if key != "scene" else f"== {value}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.hosts", description=__doc__)
    parser.add_argument("only", nargs="*", default=["*"], metavar="PATTERN", help="such as 'fleet/cut*'")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=3, help="scenes side by side")
    parser.add_argument("--width", type=int, default=100)
    asked = parser.parse_args()
    chosen = [scene for only in asked.only for scene in scenes() if fnmatch(scene.label, only)]
    if asked.list:
        print(*(scene.label for scene in chosen), sep="\n")
        return 0
    bad = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for done in as_completed([pool.submit(played, scene, asked.width) for scene in chosen]):
            found = done.result()
            bad += bool(found["wrong"])
            _tell(found)
    print(f"{len(chosen)} scenes, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
