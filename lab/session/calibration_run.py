"""`freezelab calibrate`: measures the lab's error on this host.

An ordinary run with its own plan injects pauses of known length. The calibration is a function of that run's
history (core.calibration); `calibration` stores it.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.patch import HoldPatch
from lab.core.plan import Cell, CycleSpec, Expectations, GuestSpec, Plan
from lab.core.units import NS_PER_MS, format_duration
from lab.errors import UsageError
from lab.hypervisor.accelerators import AcceleratorRequest
from lab.process.signals import Signals
from lab.record.journal import read_history
from lab.session.calibration import CYCLES, Saved, judged, store
from lab.session.run import RunOptions, RunStopped, perform
from lab.session.views import Views

NAME = "calibrate"
LENGTHS_NS = tuple(ms * NS_PER_MS for ms in (5, 20, 100, 500, 2000))
SETTLE_NS, BEFORE_NS, WATCH_NS = 200 * NS_PER_MS, 1500 * NS_PER_MS, 1500 * NS_PER_MS
REPEAT = 2
CONTROLS = 10
QUICK, QUICK_CONTROLS = 6, 3
SUSPEND_EVERY = 3
"""In every third cell the pauses are QEMU's own, so that both regimes occur; in the others they are made by
signals."""


def plan_for(cycles: int, controls: int, seed: int) -> Plan:
    """The calibration's plan: `cycles` pauses and `controls` cycles without one, in cells of REPEAT pauses of
    one kind, in an order determined by `seed`. The controls are the first cycles of the cells."""
    whole, rest = divmod(cycles, REPEAT)
    repeats = [REPEAT] * whole + [rest] * (rest > 0)
    kinds: list[tuple[FreezeMethod, int, int]] = []
    for number, repeat in enumerate(repeats):
        suspend = number % SUSPEND_EVERY == SUSPEND_EVERY - 1
        # Each method takes the lengths in turn.
        turn = number // SUSPEND_EVERY if suspend else number - number // SUSPEND_EVERY
        method = FreezeMethod.SUSPEND if suspend else FreezeMethod.SIGSTOP
        kinds.append((method, LENGTHS_NS[turn % len(LENGTHS_NS)], repeat))
    random.Random(seed).shuffle(kinds)  # noqa: S311 - an order that can be had again
    guests = (GuestSpec("web-0"),)
    each, more = divmod(controls, len(kinds))
    cells = []
    for number, (method, length_ns, repeat) in enumerate(kinds):
        length = format_duration(length_ns)
        cells.append(
            Cell(
                f"{number:02d}-{method.value}-{length.replace(' ', '')}",
                (("cell", str(number)), ("method", method.value), ("pause", length)),
                guests,
                ResyncMechanism.NONE,
                CycleSpec(method, HoldPatch(length_ns), SETTLE_NS, BEFORE_NS, watch_ns=WATCH_NS),
                Expectations(),
                repeat,
                each + (number < more),
            )
        )
    first = cells[0]
    about = f"pauses of known length, seed {seed}"
    return Plan(NAME, about, "", guests, first.resync, first.cycle, first.expectations, cells=tuple(cells))


@dataclass(frozen=True)
class CalibrationOptions:
    """Options of the command line. cycles, seed: None for the defaults."""

    cycles: int | None = None
    quick: bool = False
    seed: int | None = None
    accelerator: AcceleratorRequest = AcceleratorRequest.AUTO


def make(
    home: Path, asked: CalibrationOptions, views: Views, note: Callable[[str], None]
) -> tuple[Saved, str]:
    """Run, judge and store a calibration. The result: the calibration, and why it was not stored, "" when it
    was. note: gets a line when something could not be undone after the run.

    FreezelabError when the run ended early, GuestError when no pause could be measured; then the stored
    calibration stays."""
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    plan = plan_for(*counts(asked.cycles, quick=asked.quick), seed)
    options = RunOptions(None, asked.accelerator)
    with Signals() as signals:
        try:
            with views([guest.name for guest in plan.guests]) as (view, progress):
                _run, folder = perform(plan, options, view, progress, signals.shield)
        except RunStopped as stopped:
            if not stopped.measured:
                raise stopped.failure from None
            note(str(stopped.failure))
            folder = stopped.folder
    saved = judged(read_history(folder), seed)
    return saved, store(home, saved)


def counts(cycles: int | None, *, quick: bool) -> tuple[int, int]:
    """The numbers of pauses and controls. UsageError when both options were given."""
    if quick and cycles is not None:
        raise UsageError("--quick has a number of its own", where="--cycles")
    if quick:
        return QUICK, QUICK_CONTROLS
    return (CYCLES, CONTROLS) if cycles is None else (cycles, max(1, cycles * CONTROLS // CYCLES))
