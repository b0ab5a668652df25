"""The scenes of tests.campaign.hosts: which run, what is done to it, and when."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from lab.hosts.cell_server import NAME
from tests.host.other_user import attempts, closed
from tests.host.ssh_hosts import ROOT, NamespaceHost, SshHosts, in_namespace

RUN_S, SETTLE_S, STEP_S, LOOK_S = 420.0, 100.0, 300.0, 0.01
FROZEN_S = 1.0

CYCLE = """resync: {resync}
repeat: {repeat}
cycle: {{patch: {patch}, budget: {budget}, settle: 0s, before: 1s, watch: {watch}}}
"""
FLEET = "name: fleet\nhosts: [{hosts}]\nguests: [{{name: web, count: {count}}}]\n" + CYCLE
CELLS = "name: cells\nmatrix: {{memory: [192MiB, 256MiB, 320MiB]}}\n" + CYCLE
IN_A_SET = FLEET.replace(
    "guests: [{{name: web, count: {count}}}]",
    "fleet: {{guests: [{{name: web, count: {count}}}], availability_sets: [{{name: web, guests: [web],"
    " update_domains: {count}, fault_domains: hosts}}]}}",
)
ROLLS = "rollout: {{gates: [{{command: '{gate}'}}], gate_within: 20s}}\n"
TELLS = "announce: {{notice: {notice}, handler: [{handler}]{more}}}\n"
BOOKS = {
    "fleet": FLEET,
    "cells": CELLS,
    "rollout": IN_A_SET + ROLLS,
    "announced": IN_A_SET + TELLS,
    "announced-rollout": IN_A_SET + ROLLS + TELLS,
}
USUAL: Mapping[str, Any] = {
    "resync": "none",
    "repeat": 1,
    "hold": "3s",
    "patch": "{{hold: {hold}}}",
    "budget": "30s",
    "watch": "3s",
    "gate": "true",
    "notice": "8min",
    "handler": "./drain.py",
    "more": "",
}
HANDLERS = (ROOT / "examples/drain.py", ROOT / "tests/host/acknowledge_for_others.py")
"""What is put beside the playbook of an announcement."""

UNANSWERED = ("handler", "./drain.py, --watch-only")
AGENT = ("resync", "agent")
LONG = ("hold", "20s")
BY_OTHERS = ("handler", "./acknowledge_for_others.py")
CANCELLED = ("more", ", cancel_after: 3min")
REBOOTS = ("patch", "{command: ['true'], deadline: 5s, impact: reboot}")


@dataclass(frozen=True)
class Scene:
    """kind: of the run. at: a step of STEPS. what: a fault of FAULTS. book: what the playbook has beside the
    usual. why: a pattern for a reason in the record, or in what the controller says. options: of `run`.
    settle_s: how long hosts may take until nothing is left on them; 0: something is left for `recover`.
    ahead_s, real_ahead_s: how far the first host's MONOTONIC clocks and its REALTIME are ahead. resumes: a
    second run goes on with the cells that the first lacks. name: tells it from others. ends: its exit codes,
    when they are others than usual."""

    kind: str
    at: str
    what: str
    why: str = ""
    book: tuple[tuple[str, Any], ...] = ()
    hosts: int = 2
    options: tuple[str, ...] = ()
    settle_s: float = SETTLE_S
    ahead_s: int = 0
    real_ahead_s: int = 0
    resumes: bool = False
    name: str = ""
    ends: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.kind}{self.name and '+'}{self.name}/{self.what} at {self.at}"

    @property
    def exits(self) -> tuple[int, ...]:
        """The exit codes that are right."""
        if self.ends:
            return self.ends
        early = self.at in ("connect", "send", "child")
        if self.what == "kill-controller":
            return (-signal.SIGKILL,)
        if self.what.startswith("interrupt"):
            return (130, 0, 3) if self.at in ("record", "fetch", "merge") else (130,)
        if self.what.startswith("cut") or self.what in ("slow", "lossy"):
            return (0, 3, 4) if early else (1, 3) if dict(self.book).get("hold") == "12s" else (0, 3)
        return (0, 3, 4) if self.what.startswith("kill") else (0, 3)

    @property
    def playbook(self) -> str:
        of: dict[str, Any] = {**USUAL, **dict(self.book), "count": self.hosts}
        of["patch"] = of["patch"].format(hold=of["hold"]) if "hold" in of["patch"] else of["patch"]
        of["hosts"] = ", ".join(f"rack-{number}" for number in range(1, self.hosts + 1))
        return BOOKS[self.kind].format(**of)


@dataclass
class Stage:
    """What is going on. victim: the host that it is done to. said: what the controller has said so far.
    could: what another user could do. done_s, done_ns: when it was done, since the begin and in REALTIME."""

    lab: SshHosts
    scene: Scene
    victim: NamespaceHost
    controller: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    done_s: float = 0.0
    done_ns: int = 0
    shown: list[str] = field(default_factory=list)
    could: list[str] = field(default_factory=list)

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

    def recover(self) -> None:
        """Free the hosts of what is not in use, while the run goes on. A host whose libvirt is in use may
        refuse."""
        done = self.lab.run("hosts", "recover", str(self.lab.folder / "hosts.yaml"))
        said = [line for line in done.stdout.splitlines() if "nothing to recover" not in line]
        assert not said, said

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
        events, now_ns = stage.victim.told(kind), time.time_ns() + stage.victim.real_ahead_ns
        return bool(events) and now_ns - events[0]["real_ns"] > seconds * 1e9

    return over


STEPS: dict[str, Callable[[Stage], bool]] = {
    "start": lambda _: True,
    "connect": lambda stage: "Connection from" in (stage.victim.folder / "sshd.log").read_text(),
    "send": lambda stage: stage.logins() > 0,
    "child": lambda stage: stage.child() is not None,
    "boot": lambda stage: stage.told("run-start"),
    "booted": lambda stage: stage.told("boot"),
    "scheduled": lambda stage: stage.has_said(r" announce "),
    "before": lambda stage: stage.told("cycle"),
    "order": lambda stage: stage.has_said("at one instant"),
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
            if is_qemu(process):
                with suppress(psutil.Error):
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
    """The child, its dead-man and the worker: nobody is left to resume the guests. All are stopped first, so
    that none hears of another's end."""
    found = [process for process in stage.there(stage.victim) if not is_qemu(process)]
    for do in (psutil.Process.suspend, psutil.Process.kill):
        for process in found:
            with suppress(psutil.Error):
                do(process)


def is_qemu(process: psutil.Process) -> bool:
    with suppress(psutil.Error, IndexError):
        return "qemu-system" in process.cmdline()[0]
    return False


def _cut_and_stop(stage: Stage) -> None:
    """The link, and the child for longer than the budget: the dead-man alone is left to act."""
    stage.victim.wire.is_cut = True
    child = stage.child()
    assert child is not None
    child.suspend()
    time.sleep(8)
    child.resume()
    time.sleep(10)
    stage.victim.wire.is_cut = False


def by_another_user(stage: Stage) -> list[str]:
    """What nobody can do on each host and on the controller's machine, while the run goes on."""
    lab = stage.lab
    begun = psutil.Process(stage.controller.pid).children(recursive=True)
    here = [stage.controller.pid, *(one.pid for one in begun)]
    with ThreadPoolExecutor() as pool:
        on_hosts = [pool.submit(attempts, host.inside(), closed(host.state)) for host in lab.hosts]
        found = attempts(in_namespace(lab.controller), closed(lab.folder / "controller-state"), here)
        return found + [line for one in on_hosts for line in one.result()]


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
    "recover": lambda stage: stage.recover(),
    "other-user": lambda stage: stage.could.extend(by_another_user(stage)),
    "interrupt": lambda stage: _interrupt(stage, 1),
    "interrupt-twice": lambda stage: _interrupt(stage, 2),
    "interrupt-often": lambda stage: _interrupt(stage, 8, 0.1),
}


ALWAYS = ("cut", "cut-8s", "cut-30s", "interrupt", "interrupt-twice", "kill-controller")
SHORT = (("budget", "2s"), ("hold", "12s"))
"""A budget that is over before the dead-man takes a stopped controller for silent (SILENT_S)."""

ALONE = Scene("fleet", "freeze", "cut-and-stop", "resumed by the dead-man: the budget was over", SHORT, 1)
ALL_KILLED = Scene(
    "fleet", "patch", "kill-all", "the run was cut off", (("hold", "20s"),), 1, settle_s=0.0
)  # fmt: skip


def scenes() -> list[Scene]:
    found = [ALONE, ALL_KILLED, replace(ALL_KILLED, kind="cells", hosts=2, why="lost while the cell ran")]
    steps = ("connect", "send", "child", "boot", "booted", "order", "freeze", "patch", "resume", "watch")
    for kind in ("fleet", "cells"):
        for step in (*steps, "record", "fetch"):
            if step == "order" and kind == "cells":
                continue
            found += [Scene(kind, step, what) for what in ALWAYS]
            if step not in ("connect", "send"):
                found.append(Scene(kind, step, "kill-child"))
            if kind == "cells" and step not in ("connect", "send"):
                found.append(Scene(kind, step, "kill-worker", settle_s=0.0))
                found.append(Scene(kind, step, "kill-server"))
        found += [Scene(kind, "start", what) for what in ("nothing", "slow", "lossy")]
        found += [Scene(kind, step, "interrupt-often") for step in ("child", "freeze", "fetch")]
        found.append(Scene(kind, "patch", "recover"))
        found += [Scene(kind, "merge", what) for what in ("interrupt", "kill-controller")]
        found += [Scene(kind, "freeze", what, "", SHORT) for what in ("cut-30s", "cut", "cut-and-stop")]
        three = (("repeat", 3),)
        between = ("cut-30s", "cut-8s", "cut", "interrupt")
        found += [Scene(kind, "between cycles", what, "", three) for what in between]
    found.append(Scene("fleet", "before", "nothing", "", three, 3, ("--control", "1")))
    broken = ("nothing", "cut-30s", "cut-8s", "kill-child", "interrupt", "kill-controller")
    found += [Scene("rollout", step, what) for step in ("freeze", "between cycles") for what in broken]
    found.append(Scene("fleet", "watch", "nothing", hosts=2, ahead_s=2))
    found.append(Scene("fleet", "boot", "kill-qemu", "cannot be started|has ended", hosts=3))
    return [*found, *_other_realtime(), *_announced(), *_resumed(), *_rebooting()]


def _other_realtime() -> list[Scene]:
    """The first host's REALTIME is two seconds ahead, or an hour behind."""
    off = Scene("fleet", "watch", "nothing", book=(AGENT,), real_ahead_s=2, name="clock")
    return [
        off,
        replace(off, kind="cells"),
        replace(off, kind="cells", real_ahead_s=-3600, name="clock-behind"),
        replace(off, kind="announced", book=(AGENT, UNANSWERED)),
        replace(off, kind="announced-rollout", at="freeze", what="cut-8s"),
    ]


def _announced() -> list[Scene]:
    """Events of one set over both hosts that nobody acknowledges; and of update domains."""
    silent, found = (AGENT, UNANSWERED), list[Scene]()
    for step in ("booted", "scheduled", "before", "freeze", "patch", "watch", "fetch"):
        found += [Scene("announced", step, what, book=silent) for what in (*ALWAYS, "kill-child")]
    for step in ("scheduled", "before", "freeze", "watch", "between cycles"):
        for what in ("cut-30s", "cut-8s", "kill-child", "interrupt", "kill-controller"):
            found.append(Scene("announced-rollout", step, what, book=(AGENT,)))
    found.append(Scene("announced", "start", "nothing", book=silent))
    found.append(Scene("announced-rollout", "start", "nothing", book=(AGENT, BY_OTHERS), name="by-others"))
    found.append(Scene("announced", "patch", "other-user", book=(AGENT, LONG)))
    for what in ("nothing", "cut-8s", "cut-30s", "kill-child", "interrupt"):
        found.append(Scene("announced", "scheduled", what, book=(*silent, CANCELLED), name="cancelled"))
    return found


def _resumed() -> list[Scene]:
    """A host is lost, and another run goes on with the cells that are missing."""
    losses = (("cut", "freeze"), ("kill-child", "freeze"), ("kill-worker", "patch"), ("cut-30s", "boot"))
    cells = [Scene("cells", at, what, resumes=True, settle_s=0.0, name="resumed") for what, at in losses]
    return [*cells, Scene("cells", "freeze", "interrupt", resumes=True, name="resumed")]


def _rebooting() -> list[Scene]:
    """Guests that are shut down and started again, and gates that fail."""
    boots, found = (AGENT, REBOOTS, ("watch", "8s")), list[Scene]()
    for kind, steps in (("fleet", ("boot", "order", "watch")), ("rollout", ("order", "between cycles"))):
        found.append(Scene(kind, "start", "nothing", book=boots, name="reboot"))
        for step in steps:
            for what in ("cut-30s", "kill-child", "interrupt", "kill-controller"):
                found.append(Scene(kind, step, what, book=boots, name="reboot"))
    first, second = (("gate", f'[ $(hostname) != "web-{number}" ]') for number in (0, 1))
    for kind in ("rollout", "announced-rollout"):
        for wave, gate in (("1", first), ("2", second)):
            why = f"the rollout stopped in wave {wave} of 2"
            found.append(Scene(kind, "start", "nothing", why, (AGENT, gate), name=f"gate-{wave}", ends=(1,)))
    return [*found, *(Scene(kind, "patch", "other-user", book=(LONG,)) for kind in ("fleet", "cells"))]
