"""The instant at which a host of a fleet freezes its guests: agreed on with the controller, which may be on
another machine, in lines on this process's standard output and input.

    freezelab-about JSON   here: what this host is; asked for before anything is begun
    go                     there: begin
    freezelab-ready N      here: cycle N, from 1, is ready to freeze; asked for just before the freeze
    wait                   there: others are not ready yet
    freeze RAW             there: freeze at RAW of this machine's CLOCK_MONOTONIC_RAW, in nanoseconds
    off WHY                there: do not
    freezelab-over N WHY   here: cycle N, a wave of a rollout, is over: its guests on this host are back and
                           their gates hold, or WHY not. A host without a guest in it says so at once
    go                     there: it is over on all hosts, and the next may begin
    stop WHY               there: the rollout stops after this wave

With announcements, whose metadata service is the controller's:

    freezelab-guests JSON  here: what the service has to know of the guests on this host
    serve PORT JSON        there: it listens for them at this port of the loopback; what a connection of each
                           begins with
    freezelab-announce N   here: cycle N can be announced
    go                     there: it was, and its guests may be frozen
    cancelled              there: it was, and they are not
    freezelab-back N       here: its guests on this host are back and in time, or given up

Until the instant has come nothing is frozen, and a controller that is silent for SILENT_S, or gone, means
that nothing will be. From the instant on the controller is not needed: this process freezes, patches and
resumes, and its guard and dead-man are beside the guests. So a link that is cut leaves no guest frozen. No
wave begins before it is known of every host that the one before is over there.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict

from lab.core.quantities import format_magnitude
from lab.core.scheduled.instance import InstanceInfo
from lab.errors import MachineError
from lab.ports import Clock

ABOUT, READY, OVER = "freezelab-about", "freezelab-ready", "freezelab-over"
GUESTS, ANNOUNCE, BACK = "freezelab-guests", "freezelab-announce", "freezelab-back"
GO, WAIT, FREEZE, OFF, STOP = "go", "wait", "freeze", "off", "stop"
SERVE, CANCELLED = "serve", "cancelled"
LACKS = "lacks"
"""The member of what a host says of itself with what stands in the way of its guests there."""

SILENT_S = 20.0
_WHERE = "controller"


class Rendezvous:
    """A controller.meeting.Meeting. lines, answers: the descriptors."""

    def __init__(self, clock: Clock, lines: int = 0, answers: int = 1) -> None:
        self._clock, self._lines, self._answers = clock, lines, answers
        self._cycles, self._unread = 0, b""

    def introduce(self, about: Mapping[str, str]) -> None:
        """Say what this host is, and return when the run may begin here. MachineError when it may not."""
        self._say(f"{ABOUT} {json.dumps(about)}")
        if self._order("start") != GO:
            raise MachineError("the run was called off", where=_WHERE)

    def __call__(self) -> None:
        """Return at the next instant. MachineError when there is none: the guests must not be frozen."""
        self._cycles += 1
        self._say(f"{READY} {self._cycles}")
        word, _, rest = self._order("freeze").partition(" ")
        if word != FREEZE or not rest.isdigit():
            raise _called_off("freeze", word, rest)
        instant = int(rest)
        late = self._clock.now().raw_ns - instant
        if late > 0:
            what = f"the instant of the freeze came {format_magnitude(late)} late, so there was none"
            raise MachineError(what, where=_WHERE, hint="the link was too slow, or cut for a while")
        self._clock.sleep_until(instant)

    def over(self, index: int, why: str) -> str:
        """See Meeting."""
        self._cycles = index + 1
        try:
            self._say(f"{OVER} {self._cycles} {' '.join(why.split())}".rstrip())
            word, _, rest = self._order("next domain").partition(" ")
        except MachineError as error:
            return why or str(error).split("\n")[0]
        return "" if word == GO else rest or "the controller stops it"

    def serve(self, instances: Sequence[InstanceInfo]) -> tuple[int, Mapping[str, str]]:
        """See Meeting."""
        self._say(f"{GUESTS} {json.dumps([asdict(about) for about in instances])}")
        word, _, rest = self._order("metadata service").partition(" ")
        port, _, secrets = rest.partition(" ")
        if word != SERVE:
            raise _called_off("metadata service", word, rest)
        return int(port), json.loads(secrets)

    def announced(self) -> bool:
        """See Meeting."""
        self._say(f"{ANNOUNCE} {self._cycles + 1}")
        word, _, rest = self._order("freeze").partition(" ")
        if word not in (GO, CANCELLED):
            raise _called_off("freeze", word, rest)
        return word == GO

    def back(self) -> None:
        """See Meeting."""
        with suppress(MachineError):
            self._say(f"{BACK} {self._cycles}")

    def _say(self, line: str) -> None:
        try:
            os.write(self._answers, f"{line}\n".encode())
        except OSError as error:
            raise MachineError("gone", where=_WHERE) from error

    def _order(self, of: str) -> str:
        """The next line that is not WAIT. of: what it is about. MachineError when none comes."""
        while (order := self._next(of)) == WAIT:
            pass
        return order

    def _next(self, of: str) -> str:
        deadline = time.monotonic() + SILENT_S
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._lines], [], [], left)[0]:
                raise MachineError(f"silent for {SILENT_S:.0f} s, so there was no {of}", where=_WHERE)
            data = os.read(self._lines, 4096)
            if not data:
                raise MachineError(f"gone before the {of}, so there was none", where=_WHERE)
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode("utf-8", "replace").strip()


def _called_off(what: str, word: str, why: str) -> MachineError:
    told = f": {why}" if word == OFF and why else ""
    return MachineError(f"the {what} was called off{told}", where=_WHERE)
