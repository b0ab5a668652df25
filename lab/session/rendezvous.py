"""The instant at which a host of a fleet freezes its guests: agreed on with the controller, which may be on
another machine, in lines on this process's standard output and input.

    freezelab-about JSON   here: what this host is; asked for before anything is begun
    go                     there: begin
    freezelab-ready N      here: cycle N, from 1, is ready to freeze; asked for just before the freeze
    wait                   there: others are not ready yet
    freeze RAW             there: freeze at RAW of this machine's CLOCK_MONOTONIC_RAW, in nanoseconds
    off                    there: do not

Until the instant has come nothing is frozen, and a controller that is silent for SILENT_S, or gone, means
that nothing will be. From the instant on the controller is not needed: this process freezes, patches and
resumes, and its guard and dead-man are beside the guests. So a link that is cut leaves no guest frozen.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from lab.controller import CycleGuest
from lab.core.quantities import format_magnitude
from lab.errors import MachineError
from lab.ports import Clock

ABOUT, READY = "freezelab-about", "freezelab-ready"
GO, WAIT, FREEZE, OFF = "go", "wait", "freeze", "off"
SILENT_S = 20.0
_WHERE = "controller"


class Rendezvous:
    """Waits for the instants of one run after another. lines, answers: the descriptors."""

    def __init__(self, clock: Clock, lines: int = 0, answers: int = 1) -> None:
        self._clock, self._lines, self._answers = clock, lines, answers
        self._cycles, self._unread = 0, b""

    def introduce(self, about: Mapping[str, str]) -> None:
        """Say what this host is, and return when the run may begin here. MachineError when it may not."""
        self._say(f"{ABOUT} {json.dumps(about)}")
        if self._order() != GO:
            raise MachineError("the run was called off", where=_WHERE)

    def __call__(self) -> None:
        """Return at the next instant. MachineError when there is none: the guests must not be frozen."""
        self._cycles += 1
        self._say(f"{READY} {self._cycles}")
        word, _, instant = self._order().partition(" ")
        if word != FREEZE or not instant.isdigit():
            raise MachineError("the freeze was called off", where=_WHERE)
        late = self._clock.now().raw_ns - int(instant)
        if late > 0:
            what = f"the instant of the freeze came {format_magnitude(late)} late, so there was none"
            raise MachineError(what, where=_WHERE, hint="the link was too slow, or cut for a while")
        self._clock.sleep_until(int(instant))

    def _say(self, line: str) -> None:
        os.write(self._answers, f"{line}\n".encode())

    def _order(self) -> str:
        """The next line that is not WAIT."""
        while (order := self._next()) == WAIT:
            pass
        return order

    def _next(self) -> str:
        """The next line. MachineError when none comes."""
        deadline = time.monotonic() + SILENT_S
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._lines], [], [], left)[0]:
                raise MachineError(f"silent for {SILENT_S:.0f} s, so there was no freeze", where=_WHERE)
            data = os.read(self._lines, 4096)
            if not data:
                raise MachineError("gone before the freeze, so there was none", where=_WHERE)
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode("utf-8", "replace").strip()


def agreed(subjects: Mapping[str, CycleGuest], instant: Callable[[], None] | None) -> dict[str, CycleGuest]:
    """The guests of a cell. With `instant`, it is called before each of their freezes, after all that they do
    before it."""
    found = dict(subjects)
    if instant is not None and found:
        name, last = list(found.items())[-1]
        own = last.before_freeze

        def before_freeze() -> None:
            if own is not None:
                own()
            instant()

        found[name] = replace(last, before_freeze=before_freeze)
    return found
