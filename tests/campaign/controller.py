"""`freezelab`, which stops at one of its steps until it is told to go on.

    python -m tests.campaign.controller FD_TELLS FD_HEARS STEP NTH [--cold] -- run PLAYBOOK …

A step is a name of the view's phases, of the journal's events or of a freeze's own steps
(`LibvirtHypervisor.on_step`): "phase/measure", "event/freeze", "step/state out". All are told on FD_TELLS, a
line each. At the NTH time (from 0) that STEP comes, its thread writes "at" and waits for a byte on FD_HEARS;
when nobody is there any more it goes on. --cold: an in-place exchange without an overlap, which otherwise
only patches of KVM's modules have.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from lab.cli import main
from lab.core.history import HistoryEvent
from lab.host.patches import Hold
from lab.hypervisor.context import LibvirtContext
from lab.ports import Successor
from lab.record.journal import FileJournal
from lab.session import run as session_run


class Gate:
    """tells, hears: file descriptors."""

    def __init__(self, tells: int, hears: int, step: str, nth: int) -> None:
        self._tells, self._hears = tells, hears
        self._step, self._left = step, nth
        self._lock = threading.Lock()

    def come(self, step: str) -> None:
        """A step has come."""
        with self._lock:
            here = step == self._step and self._left == 0
            if step == self._step:
                self._left -= 1
            self._tell(f"{'at' if here else 'passed'} {step}\n")
        if here:
            os.read(self._hears, 1)

    def _tell(self, line: str) -> None:
        try:
            os.write(self._tells, line.encode())
        except OSError:
            return  # nobody listens any more


class View:
    """The view that a person gets, whose phases are steps."""

    def __init__(self, view: Any, gate: Gate) -> None:
        self._view, self._gate = view, gate

    def phase(self, name: str, **more: Any) -> None:
        self._view.phase(name, **more)
        self._gate.come(f"phase/{name}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def install(gate: Gate, *, cold: bool) -> None:
    """Have the command pass its steps through the gate."""
    perform, make_context, append = session_run.perform, LibvirtContext.__init__, FileJournal.append

    def performed(plan: Any, options: Any, view: Any, progress: Any, shield: Any) -> Any:
        return perform(plan, options, View(view, gate), progress, shield)

    def made(self: LibvirtContext, *arguments: Any) -> None:
        make_context(self, *arguments)
        self.on_step = lambda _guest, step: gate.come(f"step/{step}")

    def appended(self: FileJournal, event: HistoryEvent) -> None:
        append(self, event)
        gate.come(f"event/{event.KIND}")

    session_run.perform = performed
    LibvirtContext.__init__ = made  # type: ignore[method-assign, assignment]
    FileJournal.append = appended  # type: ignore[method-assign]
    if cold:
        Hold.successor = Successor(cold=True)


def run(arguments: list[str]) -> None:
    mine, rest = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    tells, hears, step, nth = mine[:4]
    install(Gate(int(tells), int(hears), step, int(nth)), cold="--cold" in mine)
    # Where every thread stands, for one who wants to know why a case hangs.
    stacks = (Path(os.environ["FREEZELAB_HOME"]) / "stacks.txt").open("w")
    faulthandler.register(signal.SIGUSR2, file=stacks)
    sys.argv = ["freezelab", *rest]
    main.app()


if __name__ == "__main__":
    run(sys.argv[1:])
