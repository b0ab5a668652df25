"""Runs to compare, made up: their figures and verdicts, each with a value for every cycle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

from lab.core.benchmark import Bounded
from lab.core.comparison import (
    ACCELERATOR,
    FigureKey,
    FigureKind,
    RunComparison,
    RunFigures,
    RunMachine,
    VerdictKey,
    compare_runs,
)
from lab.core.units import NS_PER_MS
from lab.core.verdict import Outcome

MACHINE = RunMachine("a1b2c3d4e5f60708", "AMD EPYC 7763", 2, 24)
OTHER = RunMachine("ffff00001111", "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz", 64, 256)
IN_TIME = VerdictKey("", "web-0", "in time", "within 5 s, ± 100 ms")
HOSTILE = "[red]x[/red]\x1b[31m\x07\r\n\u202egnp.exe<script>alert(1)</script>" + "y" * 90


def compared_run(
    name: str = "20261129-220118-in-place-vs-save-edc1",
    figures: dict[FigureKey, Sequence[Bounded]] | None = None,
    **changes: Any,
) -> RunFigures:
    """A run that passed."""
    given = figures or {}
    made = RunFigures(
        *(name, "in-place-vs-save", "d1", "2026-11-29T22:01:18.000+00:00", Outcome.PASSED, MACHINE),
        {ACCELERATOR: "kvm", "qemu": "7.2.22"},
        given,
        {IN_TIME: [Outcome.PASSED] * 4},
        {key.cell: Outcome.PASSED for key in given} or {"": Outcome.PASSED},
    )
    return replace(made, **changes)


def of_ms(values: Sequence[float], side: float = 0.0) -> list[Bounded]:
    """Values in milliseconds, each ± side."""
    return [(max(0.0, v - side) * NS_PER_MS, v * NS_PER_MS, (v + side) * NS_PER_MS) for v in values]


def measured(
    seed: int, cycles: int, pause: float = 12.0, cells: Sequence[str] = ("",)
) -> dict[FigureKey, Sequence[Bounded]]:
    """Figures of every kind but an outage, in each cell; some cycles' clocks are never in time."""
    r, found = random.Random(seed), dict[FigureKey, Sequence[Bounded]]()
    for cell in cells:
        pauses = [pause + r.expovariate(1) for _ in range(cycles)]
        found |= {
            FigureKey(cell, FigureKind.PAUSE): of_ms(pauses, 0.4),
            FigureKey(cell, FigureKind.OFFSET_AT_RESUME): of_ms(pauses, 0.9),
            FigureKey(cell, FigureKind.FINAL_OFFSET): of_ms([r.uniform(0, 0.3) for _ in pauses], 1.2),
            FigureKey(cell, FigureKind.IN_TIME): [
                (8e9, inf, inf) if r.random() < 0.2 else value
                for value in of_ms([r.uniform(90, 200) for _ in pauses], 30)
            ],
            FigureKey(cell, FigureKind.DRIFT): [(0.0, abs(r.gauss(0, 4)), 60.0) for _ in pauses],
            FigureKey(cell, FigureKind.WORKLOAD_RECOVERY, "redis-sentinel"): of_ms(
                [r.uniform(12, 17) for _ in pauses]
            ),
        }
    return found


F, P = Outcome.FAILED, Outcome.PASSED
BASE = compared_run(figures=measured(1, 10))
CELLS = [f"memory-{n}GiB-save-restore-to-/var/tmp" for n in range(8)]
PAUSE = FigureKey("", FigureKind.PAUSE)

PAIRS: dict[str, list[RunFigures]] = {
    "alike": [BASE, compared_run("b", measured(2, 10))],
    "worse": [BASE, compared_run("b", measured(2, 10, 20.0), verdicts={IN_TIME: [F, P, P, P]})],
    "better": [compared_run("b", measured(2, 10, 20.0)), BASE],
    "another-machine": [BASE, compared_run("b", measured(2, 10, 20.0), machine=OTHER)],
    "another-setting": [BASE, replace(BASE, id="b", setting={"qemu": "10.0.2"}, digest="d2")],
    "few": [compared_run("a", measured(1, 2)), compared_run("b", measured(2, 3), complete=False)],
    "bounds": [
        compared_run("a", {PAUSE: of_ms(range(10, 16), 9)}),
        compared_run("b", {PAUSE: of_ms(range(20, 26), 9)}),
    ],
    "never": [
        compared_run("a", {FigureKey("", FigureKind.IN_TIME): of_ms([1, 2, 3, 4])}),
        compared_run("b", {FigureKey("", FigureKind.IN_TIME): [(8e9, inf, inf)] * 4}),
    ],
    "nothing": [compared_run("a"), compared_run("b")],
    "cells": [
        compared_run("a", measured(1, 1, cells=CELLS)),
        compared_run("b", measured(2, 1, 20, CELLS[2:])),
    ],
    "three": [BASE, compared_run("b", measured(2, 10)), compared_run("c", measured(3, 9), machine=OTHER)],
    "hostile": [
        compared_run(HOSTILE, measured(1, 5), playbook=HOSTILE),
        compared_run(
            HOSTILE,
            {**measured(2, 5, 20.0), FigureKey("", FigureKind.WORKLOAD_OUTAGE, HOSTILE): of_ms([1.0])},
            playbook=HOSTILE,
            machine=replace(OTHER, cpu=HOSTILE),
            setting={"qemu": HOSTILE},
            verdicts={VerdictKey(HOSTILE, HOSTILE, HOSTILE, HOSTILE): [F]},
            cells={HOSTILE: F, "": P},
        ),
    ],
}


def beside(runs: Sequence[RunFigures]) -> list[RunComparison]:
    """Each run but the first beside the first."""
    return [compare_runs([runs[0]], run) for run in runs[1:]]
