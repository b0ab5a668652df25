"""Doing it to them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.campaign import processes
from tests.campaign.cases import Case, Target
from tests.campaign.inside import Inside
from tests.campaign.place import FOLDERS, Spoiled
from tests.campaign.processes import Life, Watch
from tests.campaign.terminal import Terminal
from tests.campaign.wire import TROUBLES, Cable, Trouble

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM, "hup": signal.SIGHUP}
_FIND_S = 3.0
_PACKETS_S = {"lost": 8.0, "late": 8.0, "cut": 3.0}


class NotThere(Exception):
    """What it was to be done to is not there: no case."""


@dataclass
class Fault:
    """One fault, done and undone. at: when it was done (MONOTONIC, s). over: when what was stopped was
    continued, or the cable was mended. pid: whom it was done to."""

    case: Case
    watch: Watch
    terminal: Terminal
    inside: Inside
    cable: Cable | None
    at: float = 0.0
    over: float = 0.0
    pid: int = 0
    _spoiled: Spoiled | None = None
    _later: list[threading.Thread] = field(default_factory=list)

    def do(self) -> None:
        """NotThere when there is nothing to do it to."""
        target, action = self.case.target, self.case.action
        if target is Target.NOTHING:
            return
        if target.is_process:
            self._signal(self._find(target), action)
        elif target.is_folder:
            self._spoiled = Spoiled(FOLDERS[target], action)
        elif target is Target.PACKETS:
            if self.cable is None:
                raise NotThere("no cable")
            self.cable.trouble = TROUBLES[action]
            self._after(_PACKETS_S[action], self._mend_cable)
        else:
            self.inside.do(target, action, self.case.stopped_s)
        self.at = self.at or time.monotonic()

    def mend(self) -> None:
        """Have everything as it was, now."""
        if self._spoiled is not None:
            self._spoiled.mend()
            self._spoiled = None
        for thread in self._later:
            thread.join()
        self._mend_cable()

    # -- processes ----------------------------------------------------------------------------------

    def _find(self, target: Target) -> int:
        end = time.monotonic() + _FIND_S
        while not (pid := self._look(target)):
            if time.monotonic() > end:
                raise NotThere(f"no {target}")
            time.sleep(0.0005)
        return pid

    def _look(self, target: Target) -> int:
        if target is Target.CONTROLLER:
            return self.terminal.process.pid
        if target is Target.DEADMAN:
            return next(iter(processes.find("lab.hypervisor.deadman")), 0)
        if target is Target.IOHELPER:
            return next(iter(processes.find("libvirt_iohelper")), 0)
        lives = sorted(self._guests(), key=lambda life: life.generation)
        if target is Target.SUCCESSOR:
            lives = [life for life in lives if life.generation > 0]
        return lives[0].pid if lives else 0

    def _guests(self) -> list[Life]:
        return [life for life in self.watch.alive if processes.state(life.pid) not in ("", "Z", "X")]

    def _signal(self, pid: int, action: str) -> None:
        self.pid = pid
        self.at = time.monotonic()
        if action == "hangup":
            self.terminal.hang_up()
            return
        with suppress(ProcessLookupError):
            os.kill(pid, _SIGNALS[action])
        if action == "stop":
            self._after(self.case.stopped_s, lambda: self._continue(pid))

    def _continue(self, pid: int) -> None:
        self.over = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _mend_cable(self) -> None:
        if self.cable is not None:
            self.cable.trouble = Trouble()
            self.over = self.over or time.monotonic()

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        def run() -> None:
            time.sleep(seconds)
            act()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._later.append(thread)
