"""Runs over hosts, broken on purpose: `python -m tests.campaign.hosts [PATTERN]`.

Each scene is a run of real guests on hosts that are namespaces (tests.host.ssh_hosts): cells or a fleet. At a
step of it a link is cut, or a process killed or interrupted. What is left on the hosts afterwards is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psutil

from lab.hosts.cell_server import NAME
from tests.host.ssh_hosts import NamespaceHost, SshHosts, in_namespace

RUN_S, SETTLE_S, STEP_S, LOOK_S = 420.0, 100.0, 120.0, 0.01
FROZEN_S = 1.0

FLEET = """
name: fleet
hosts: [{hosts}]
guests: [{guests}]
resync: none
repeat: {repeat}
cycle: {{patch: {{hold: {hold}}}, budget: {budget}, settle: 0s, before: 1s, watch: {watch}}}
"""
CELLS = """
name: cells
resync: none
repeat: {repeat}
matrix: {{memory: [192MiB, 256MiB, 320MiB]}}
cycle: {{patch: {{hold: {hold}}}, budget: {budget}, settle: 0s, before: 1s, watch: {watch}}}
"""
BOOKS = {"fleet": FLEET, "cells": CELLS}


@dataclass(frozen=True)
class Scene:
    """kind: of the run. at: a step of STEPS. what: a fault of FAULTS. book: what the playbook has beside the
    usual. why: a pattern for a reason in the record, or in what the controller says. options: of `run`.
    settle_s: how long hosts may take until nothing is left on them; 0: something is left for `recover`."""

    kind: str
    at: str
    what: str
    why: str = ""
    book: tuple[tuple[str, Any], ...] = ()
    hosts: int = 2
    options: tuple[str, ...] = ()
    settle_s: float = SETTLE_S

    @property
    def label(self) -> str:
        return f"{self.kind}/{self.what} at {self.at}"

    @property
    def exits(self) -> tuple[int, ...]:
        """The exit codes that are right."""
        early = self.at in ("connect", "send", "child")
        if self.what == "kill-controller":
            return (-signal.SIGKILL,)
        if self.what.startswith("interrupt"):
            return (130, 0, 3) if self.at in ("record", "fetch", "merge") else (130,)
        if self.what.startswith("cut") or self.what in ("slow", "lossy"):
            return (0, 3, 4) if early else (1,) if dict(self.book).get("hold") == "12s" else (0, 3)
        return (0, 3, 4) if self.what.startswith("kill") else (0, 3)

    @property
    def playbook(self) -> str:
        of = {"hold": "3s", "watch": "3s", "repeat": 1, "budget": "30s"}
        of["guests"] = f"{{name: web, count: {self.hosts}}}"
        of["hosts"] = ", ".join(f"rack-{number}" for number in range(1, self.hosts + 1))
        return BOOKS[self.kind].format(**{**of, **dict(self.book)})


@dataclass
class Stage:
    """What is going on. victim: the host that it is done to. said: what the controller has said so far."""

    lab: SshHosts
    scene: Scene
    victim: NamespaceHost
    controller: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    done_s: float = 0.0
    shown: list[str] = field(default_factory=list)

    def there(self, host: NamespaceHost | None = None) -> list[psutil.Process]:
        """The processes of freezelab and QEMU on a host, or on all."""
        place = str(host.state if host else self.lab.folder) + ("" if host else "/rack-")
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            words, environ = process.info["cmdline"] or [], process.info["environ"] or {}
            if environ.get("FREEZELAB_HOME", "").startswith(place) or any(place in word for word in words):
                aside = words and (words[0].startswith(("sshd", "unshare", "setpriv")) or "host" in words)
                found += [process] if words and not aside else []
        return found

    def find(self, *words: str) -> psutil.Process | None:
        """The first process on the victim whose command has all the words; "--run-id" is a cell's."""
        for process in self.there(self.victim):
            with suppress(psutil.Error):
                line = process.cmdline() + (["--run-id"] if process.name() == NAME else [])
                if all(word in line for word in words) and line[0] != "sh":
                    return process
        return None

    def child(self) -> psutil.Process | None:
        """The process on the victim that has the guests: one of its own in a fleet, a fork for a cell."""
        for process in self.there(self.victim):
            with suppress(psutil.Error):
                if process.name() == NAME:
                    return process
        return self.find("--run-id")

    def told(self, kind: str, at_least: int = 1) -> bool:
        return len(self.victim.told(kind)) >= at_least

    def logins(self) -> int:
        return (self.victim.folder / "sshd.log").read_text().count("Starting session: command")

    def has_said(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in self.said)


def _after(kind: str, seconds: float) -> Callable[[Stage], bool]:
    def over(stage: Stage) -> bool:
        events = stage.victim.told(kind)
        return bool(events) and time.time_ns() - events[0]["real_ns"] > seconds * 1e9

    return over


STEPS: dict[str, Callable[[Stage], bool]] = {
    "start": lambda _: True,
    "connect": lambda stage: "Connection from" in (stage.victim.folder / "sshd.log").read_text(),
    "send": lambda stage: stage.logins() > 0,
    "child": lambda stage: stage.child() is not None,
    "boot": lambda stage: stage.told("run-start"),
    "booted": lambda stage: stage.told("boot"),
    "before": lambda stage: stage.told("cycle"),
    "order": lambda stage: stage.has_said("freeze at one instant"),
    "freeze": lambda stage: stage.told("freeze"),
    "patch": _after("freeze", 1.0),
    "resume": lambda stage: stage.told("resume"),
    "watch": _after("resume", 1.5),
    "between cycles": lambda stage: stage.told("cycle-end"),
    "record": lambda stage: stage.told("cycle-end"),
    "fetch": lambda stage: stage.told("run-end"),
    "merge": lambda stage: bool(list((stage.lab.folder / "controller-state/runs").glob(".*/parts/*"))),
}


def _kill_child(stage: Stage) -> None:
    child = stage.child()
    assert child is not None, "no child"
    child.kill()


def _kill_server(stage: Stage) -> None:
    """The process that forks cells: the parent of one."""
    child = stage.child()
    assert child is not None, "no child"
    os.kill(child.ppid(), signal.SIGKILL)


def _kill(stage: Stage, *words: str) -> None:
    process = stage.find(*words)
    assert process is not None, f"no process {words}"
    process.kill()


def _keep_killing(stage: Stage, for_s: float) -> None:
    """The guest does not boot, however often it is started."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        for process in stage.there(stage.victim):
            with suppress(psutil.Error, IndexError):
                if "qemu-system" in process.cmdline()[0]:
                    process.kill()
        time.sleep(LOOK_S)


def _cut(stage: Stage, for_s: float = 0.0) -> None:
    stage.victim.wire.is_cut = True
    if for_s:
        time.sleep(for_s)
        stage.victim.wire.is_cut = False


def _slow(stage: Stage) -> None:
    stage.victim.wire.there_s = stage.victim.wire.back_s = 0.2


def _interrupt(stage: Stage, times: int, gap_s: float = 0.5) -> None:
    for _ in range(times):
        if stage.controller.poll() is None:
            stage.controller.send_signal(signal.SIGINT)
        time.sleep(gap_s)


def _all_dead(stage: Stage) -> None:
    """The child, its dead-man and the worker: nobody is left to resume the guests."""
    for process in stage.there(stage.victim):
        with suppress(psutil.Error):
            if "qemu" not in " ".join(process.cmdline()[:1]):
                process.kill()


def _cut_and_stop(stage: Stage) -> None:
    """The link, and the child for longer than the budget: the dead-man alone is left to act."""
    stage.victim.wire.is_cut = True
    child = stage.child()
    assert child is not None
    child.suspend()
    time.sleep(8)
    child.resume()
    time.sleep(15)
    stage.victim.wire.is_cut = False


FAULTS: dict[str, Callable[[Stage], None]] = {
    "nothing": lambda _: None,
    "cut": _cut,
    "cut-8s": lambda stage: _cut(stage, 8),
    "cut-30s": lambda stage: _cut(stage, 30),
    "cut-and-stop": _cut_and_stop,
    "slow": _slow,
    "lossy": lambda stage: setattr(stage.victim.wire, "loss", 0.2),
    "kill-child": _kill_child,
    "kill-qemu": lambda stage: _keep_killing(stage, 20),
    "kill-server": _kill_server,
    "kill-worker": lambda stage: _kill(stage, "hosts", "worker"),
    "kill-all": _all_dead,
    "kill-controller": lambda stage: stage.controller.kill(),
    "interrupt": lambda stage: _interrupt(stage, 1),
    "interrupt-twice": lambda stage: _interrupt(stage, 2),
    "interrupt-often": lambda stage: _interrupt(stage, 8, 0.1),
}


ALWAYS = ("cut", "cut-8s", "cut-30s", "interrupt", "interrupt-twice", "kill-controller")
SHORT = (("budget", "3s"), ("hold", "12s"))
ALONE = Scene("fleet", "freeze", "cut-and-stop", "resumed by the dead-man: the budget was over", SHORT, 1)
ALL_KILLED = Scene(
    "fleet", "patch", "kill-all", "the run was cut off", (("hold", "20s"),), 1, settle_s=0.0
)  # fmt: skip


def scenes() -> list[Scene]:
    found = [ALONE, ALL_KILLED]
    steps = ("connect", "send", "child", "boot", "booted", "order", "freeze", "patch", "resume", "watch")
    for kind in BOOKS:
        for step in (*steps, "record", "fetch"):
            if step == "order" and kind == "cells":
                continue
            found += [Scene(kind, step, what) for what in ALWAYS]
            if step not in ("connect", "send"):
                found.append(Scene(kind, step, "kill-child"))
            if kind == "cells" and step != "connect":
                found.append(Scene(kind, step, "kill-worker", settle_s=0.0))
            if kind == "cells" and step not in ("connect", "send"):
                found.append(Scene(kind, step, "kill-server"))
        found += [Scene(kind, "start", what) for what in ("nothing", "slow", "lossy")]
        found += [Scene(kind, step, "interrupt-often") for step in ("child", "freeze", "fetch")]
        found += [Scene(kind, "merge", what) for what in ("interrupt", "kill-controller")]
        found += [Scene(kind, "freeze", what, "", SHORT) for what in ("cut-30s", "cut", "cut-and-stop")]
        three = (("repeat", 3),)
        between = ("cut-30s", "cut-8s", "cut", "interrupt")
        found += [Scene(kind, "between cycles", what, "", three) for what in between]
    found.append(Scene("fleet", "before", "nothing", "", three, 3, ("--control", "1")))
    found.append(Scene("fleet", "boot", "kill-qemu", "has ended", hosts=3))
    return found


def played(scene: Scene, width: int = 100) -> dict[str, Any]:
    """Play a scene. What was seen."""
    with tempfile.TemporaryDirectory(prefix="fl-h-") as folder, SshHosts(Path(folder)) as lab:
        lab.folder.chmod(0o755)  # so that only freezelab's own folders hide what is in them
        for number in range(1, scene.hosts + 1):
            lab.add(f"rack-{number}")
        book = lab.folder / "book" / "p.yaml"
        book.parent.mkdir()
        book.write_text(scene.playbook)
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
        found["shown"] = stage.shown
        found["said"] = "".join(stage.said).strip().splitlines()[-12:]
        found["record"] = _record(out, lab)
        settled = time.monotonic()
        while _left(stage) and time.monotonic() < settled + scene.settle_s:
            time.sleep(0.2)
        found["settled after"] = round(time.monotonic() - settled, 1)
        found["left"] = _left(stage)
        frozen.over = True
        frozen.join()
        found["frozen"] = frozen.longest
        for host in lab.hosts:
            host.wire.is_cut, host.wire.loss, host.wire.there_s, host.wire.back_s = False, 0.0, 0.0, 0.0
        if found["left"]:
            done = lab.run("hosts", "recover", str(lab.folder / "hosts.yaml"), timeout_s=300)
            found["recover"] = [done.returncode, *done.stdout.splitlines(), *done.stderr.splitlines()]
            found["left then"] = _left(stage)
        for process in stage.there():
            with suppress(psutil.Error):
                process.kill()
        found["wrong"] = _wrong(scene, found)
        return found


def _wrong(scene: Scene, found: dict[str, Any]) -> list[str]:
    wrong = []
    if found["exit"] not in scene.exits:
        wrong.append(f"exit {found['exit']}, not {scene.exits}")
    if found.get("left then") or (found["left"] and scene.settle_s):
        wrong.append("something is left")
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
    stage.done_s = time.monotonic() - began
    stage.shown = _shown(stage)
    try:
        FAULTS[stage.scene.what](stage)
    except (AssertionError, OSError) as error:
        stage.said.append(f"CAMPAIGN: {error}\n")


def _shown(stage: Stage) -> list[str]:
    """What listens beyond a loopback, but for sshd, and what of the playbook another user can read."""
    found = []
    for pid in (stage.controller.pid, *(host.process.pid for host in stage.lab.hosts)):
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
    }


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
