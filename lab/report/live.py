"""Views of a running run: a live display, plain lines, or none. All are `ports.View`s and context managers.

A view must never delay the run: a guest may be frozen while the terminal is stopped with Ctrl-S. So a view's
methods only store the state, in a value that is replaced as a whole and in an unlimited queue, and a thread
of the view draws it. That thread may hang in a write; even the end of the view waits for it only GRACE_S.

Everything goes to stderr, and the live display is erased at the end; results are in the report.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lab.core.quantities import format_seconds
from lab.core.units import NS_PER_S, format_duration
from lab.ports import Clock, NullView
from lab.record.events import Entry
from lab.report.job_control import JobControl
from lab.report.live_rollout import NAME, DomainProgress, RolloutProgress, barred, domain_line, domain_lines
from lab.report.run_progress import Earlier, RunProgress
from lab.report.run_steps import next_line, overview
from lab.report.screen import Screen
from lab.report.text import ascii_only, bare, clean, names, shortened
from lab.threads import Worker

PERIOD_S = 0.1
GRACE_S = 2.0

DOING = {
    "hosts": "asking the hosts what they are and lack",
    "cells": "running cells on the hosts",
    "image": "finding or building the guests' image",
    "accelerator": "testing whether KVM boots a guest here",
    "boot": "booting, until the probe answers",
    "agent": "waiting for the guest agent",
    "chrony": "waiting for chronyd to set the clock",
    "settle": "waiting for the guests to settle",
    "measure": "measuring offset and drift",
    "freeze": "stopping the guests",
    "patch": "patching the host",
    "watch": "watching the clocks",
    "metadata service": "starting it inside the guests",
    "handler": "starting the handler in the guest",
    "announce": "waiting until the event starts",
    "gates": "checking the guests",
    "pause between domains": "waiting for the fleet to settle",
    "remove guests": "removing the guests",
}
"""Descriptions of phases; the other phases are shown by name."""

OF_A_CYCLE = ("settle", "measure", "freeze", "watch")


@dataclass(frozen=True)
class _Phase:
    name: str
    guest: str
    since_raw_ns: int
    length_ns: int | None = None
    fraction: float | None = None
    stage: str = ""

    @property
    def doing(self) -> str:
        return self.stage or DOING.get(self.name, "")


@dataclass(frozen=True)
class _Frozen:
    since_raw_ns: int
    budget_ns: int


@dataclass(frozen=True)
class _State:
    phase: _Phase | None = None
    frozen: _Frozen | None = None
    cycle: tuple[int, int] | None = None
    rollout: RolloutProgress | None = None

    @property
    def phase_name(self) -> str:
        return self.phase.name if self.phase is not None else ""


class ThreadedView(NullView):
    """A view with a thread that draws. guests: those that phases without a guest concern."""

    def __init__(self, clock: Clock, console: Console, guests: Sequence[str] = ()) -> None:
        self._clock, self._console = clock, console
        self._guests = tuple(clean(guest) for guest in guests)
        self._begun = clock.now().raw_ns
        self._state = _State()
        self._texts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the writers of _state alone; nobody draws under it
        self._stop = threading.Event()
        self._thread = Worker(target=self._run, name="view", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(GRACE_S)
        if self._thread.is_alive():
            # The terminal takes nothing now. Should it by the end, the display is still taken away.
            atexit.register(self._thread.join, GRACE_S)

    def _update(self, **changes: object) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)  # type: ignore[arg-type]

    def phase(
        self, name: str, *, guest: str = "", length_ns: int | None = None, since_raw_ns: int | None = None
    ) -> None:
        """since_raw_ns: when it began, if that was not now."""
        begun = self._clock.now().raw_ns if since_raw_ns is None else since_raw_ns
        self._update(phase=_Phase(clean(name), clean(guest), begun, length_ns))

    def note(self, text: str) -> None:
        for line in text.splitlines():
            self._texts.put(clean(line))

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None:
        self._update(frozen=_Frozen(since_raw_ns, budget_ns))

    def resumed(self) -> None:
        self._update(frozen=None)

    def cycle(self, number: int, of: int) -> None:
        self._update(cycle=(number, of))

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        here = DomainProgress(clean(label), clean(state), number, self._clock.now().raw_ns)
        known = self._state.rollout or RolloutProgress(of, 1, {})
        self._update(rollout=known.progress_of(here, of))

    def progress(self, stage: str, fraction: float | None) -> None:
        now, phase = self._clock.now().raw_ns, self._state.phase
        since = phase.since_raw_ns if phase is not None and phase.name == "image" else now
        self._update(phase=_Phase("image", "", since, None, fraction, clean(stage)))

    def happened(self, entry: Entry) -> None:
        """An event was written to the run's history."""

    def _run(self) -> None:
        """The thread. A closed terminal (EIO) does not stop the run."""
        with contextlib.suppress(OSError):
            self._work()

    def _work(self) -> None:
        raise NotImplementedError


class PlainView(ThreadedView):
    """Prints one line for each event, with the seconds since the start."""

    def _update(self, **changes: object) -> None:
        before = self._state
        super()._update(**changes)
        now, state = self._clock.now().raw_ns, self._state
        text = ""
        if "frozen" in changes:
            text = self._freeze_line(before.frozen, state.frozen, now)
        if state.rollout is not None and "rollout" in changes:
            text = domain_line(before.rollout, state.rollout)
        if state.phase is not None and "phase" in changes and self._is_news(before.phase, state.phase):
            text = self._phase_line(state)
        if text:
            self._texts.put(f"{(now - self._begun) / NS_PER_S:6.1f} s  {text}")

    @staticmethod
    def _is_news(before: _Phase | None, after: _Phase) -> bool:
        return before is None or (before.name, before.guest, before.stage) != (
            after.name,
            after.guest,
            after.stage,
        )

    @staticmethod
    def _freeze_line(before: _Frozen | None, after: _Frozen | None, now: int) -> str:
        if after is not None:
            return f"frozen, budget {format_duration(after.budget_ns)}"
        return f"resumed after {format_seconds(now - before.since_raw_ns)}" if before is not None else ""

    @staticmethod
    def _phase_line(state: _State) -> str:
        phase = state.phase
        if phase is None:
            return ""
        cycle = (
            f"cycle {state.cycle[0]} of {state.cycle[1]}: " if state.cycle and phase.name == "settle" else ""
        )
        length = f" ({format_duration(phase.length_ns)})" if phase.length_ns is not None else ""
        what = f": {phase.doing}" if phase.doing else ""
        return f"{cycle}{' '.join(filter(None, [phase.name, phase.guest]))}{what}{length}"

    def _work(self) -> None:
        while True:
            ending = self._stop.is_set()
            try:
                while True:
                    self._write(self._texts.get(timeout=0 if ending else PERIOD_S))
            except queue.Empty:
                if ending:
                    return

    def _write(self, line: str) -> None:
        utf = self._console.encoding.lower().startswith("utf")
        self._console.print(
            Text(bare(line) if utf else ascii_only(bare(line))), soft_wrap=True, highlight=False
        )


class LiveView(ThreadedView):
    """Shows the present state on a terminal, ten times a second: how far the run is, the phase, what comes
    next, and a line for each guest. earlier: see RunProgress."""

    def __init__(
        self, clock: Clock, console: Console, guests: Sequence[str] = (), earlier: Earlier | None = None
    ) -> None:
        super().__init__(clock, console, guests)
        self._screen = Screen(console)
        self._events: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._run_progress = RunProgress(earlier)  # the thread's
        self._job = JobControl()

    def __enter__(self) -> Self:
        self._job.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self._job.__exit__(*raised)

    def happened(self, entry: Entry) -> None:
        self._events.put(entry)

    def _work(self) -> None:
        try:
            while not self._stop.wait(PERIOD_S):
                self._job.give_way(self._screen)
                self._draw()
        finally:
            self._screen.erase(self._notes())

    def _draw(self) -> None:
        while not self._events.empty():
            self._run_progress.add(self._events.get())
        self._screen.draw(self._lines(), self._notes())

    def _notes(self) -> list[str]:
        notes = []
        while not self._texts.empty():
            notes.append(self._texts.get())
        return notes

    def _lines(self) -> list[Text]:
        state, now = self._state, self._clock.now().raw_ns
        width = max(20, self._console.width - 1)
        progress = self._run_progress
        lines = [overview(progress, state.cycle, state.phase_name, now, width)] if progress.plan else []
        if state.phase is not None:
            lines.append(self._phase(state, now, width))
        if state.frozen is not None:
            lines.append(_budget(state.frozen, now, width))
        elif state.phase is not None and state.phase.fraction is not None:
            lines.append(barred("", state.phase.fraction, "cyan", f"{state.phase.fraction:.0%}", width))
        if progress.plan is not None and state.phase is not None:
            lines.append(next_line(progress.plan, state.phase.name, state.cycle, width))
        if state.rollout is not None:
            lines += domain_lines(state.rollout, now, width)
        return [*lines, *progress.lines(now, width, self._console.height - len(lines) - 2)]

    def _phase(self, state: _State, now: int, width: int) -> Text:
        """ "measure   web-0 · measuring offset and drift   2.1 s of 4 s"."""
        phase = state.phase
        if phase is None:
            return Text()
        passed = (now - phase.since_raw_ns) / NS_PER_S
        time = f"{passed:.1f} s"
        if phase.length_ns is not None:
            time += f" of {format_duration(phase.length_ns)}"
        cycle = ""
        if state.cycle is not None and state.cycle[1] > 1 and phase.name in OF_A_CYCLE:
            cycle = f"cycle {state.cycle[0]} of {state.cycle[1]}"
        name = "frozen" if state.frozen is not None else phase.name
        about = self._about(state)
        room = width - max(NAME, len(name)) - len(time) - 4
        # Guests that have lines of their own are not named again.
        alone = not self._run_progress.guests
        who = phase.guest or (names(self._guests, 3) if alone and phase.name in OF_A_CYCLE else "")
        middle = " · ".join(filter(None, [cycle, who, about]))
        if cell_len(middle) > room:
            middle = shortened(" · ".join(filter(None, [cycle, who])) or about, room)
        line = Text(no_wrap=True, overflow="crop")
        line.append(name.ljust(NAME), "bold cyan" if state.frozen is None else "bold blue")
        line.append("  " + middle + " " * max(1, room - cell_len(middle) + 2))
        line.append(time, "dim")
        return line

    @staticmethod
    def _about(state: _State) -> str:
        if state.frozen is not None:
            return "patching the host"
        return state.phase.doing if state.phase is not None else ""


def _budget(frozen: _Frozen, now: int, width: int) -> Text:
    """ "budget      ███████░░░░░░░░░░  5.2 s used, 24.8 s left"."""
    used = max(0, now - frozen.since_raw_ns)
    left = (frozen.budget_ns - used) / NS_PER_S
    text = f"{used / NS_PER_S:.1f} s used, {f'{left:.1f} s left' if left >= 0 else f'{-left:.1f} s OVER'}"
    share = used / max(1, frozen.budget_ns)
    style = "red" if share > 1 else "yellow" if share > 0.8 else "cyan"
    return barred("budget", share, style, text, width)


class StderrConsole(Console):
    """A console that leaves nothing on the terminal, however the process ends."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002 - rich's signature
        """Do not change the cursor. rich hides it for a live display, and a program that is killed, or that
        ends while the terminal is stopped, could not restore it."""
        return False

    def on_broken_pipe(self) -> None:
        """Write nothing more. rich would end the program and redirect its stdout to /dev/null."""
        self.quiet = True


def stderr_console() -> Console:
    """stderr on a descriptor of its own: a drawing thread that hangs in a write must not hold the lock
    of sys.stderr, which the interpreter takes when it ends."""
    try:
        own = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
    except (OSError, ValueError, AttributeError):
        return StderrConsole(stderr=True, highlight=False, markup=False, emoji=False)
    return StderrConsole(file=own, highlight=False, markup=False, emoji=False)


def view(
    clock: Clock, guests: Sequence[str] = (), *, quiet: bool = False, earlier: Earlier | None = None
) -> NullView:
    """The view for this stderr: live on a terminal that can move its cursor, lines elsewhere. earlier: see
    RunProgress."""
    if quiet:
        return NullView()
    console = stderr_console()
    utf = console.encoding.lower().startswith("utf")
    if console.is_terminal and not console.is_dumb_terminal and utf:
        return LiveView(clock, console, guests, earlier)
    return PlainView(clock, console, guests)
