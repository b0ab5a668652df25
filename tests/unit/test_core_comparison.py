"""Runs compared: simulated runs of one kind differ in no more than 5 of 100 comparisons, runs with a known
shift do, and nothing that the bounds do not show is called a difference."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from math import inf, sqrt

import pytest

from lab.core.benchmark import Bounded
from lab.core.comparison import (
    ACCELERATOR,
    Change,
    FigureKey,
    FigureKind,
    RunFigures,
    RunMachine,
    VerdictKey,
    compare_runs,
)
from lab.core.verdict import Outcome

P, U, F = Outcome.PASSED, Outcome.INCONCLUSIVE, Outcome.FAILED
KINDS = (
    FigureKind.PAUSE,
    FigureKind.OFFSET_AT_RESUME,
    FigureKind.FINAL_OFFSET,
    FigureKind.IN_TIME,
    FigureKind.DRIFT,
)
PAUSE = FigureKey("", FigureKind.PAUSE)
MACHINE = RunMachine("a1", "EPYC", 2, 24)


def run(
    name: str, figures: dict[FigureKey, Sequence[Bounded]] | None = None, **changes: object
) -> RunFigures:
    made = RunFigures(
        name, "first-freeze", "d1", "2026-11-29T01:00:00+00:00", P, MACHINE, {ACCELERATOR: "tcg"}
    )
    cells = {key.cell: P for key in figures or {}} or {"": P}
    return replace(made, figures=figures or {}, **{"cells": cells, **changes})  # type: ignore[arg-type]


def bounded(values: Sequence[float], side: float = 0.0) -> list[Bounded]:
    return [(max(0.0, value - side), value, value + side) for value in values]


def drawn(
    r: random.Random, cycles: int, factor: float = 1.0, cells: Sequence[str] = ("",)
) -> dict[FigureKey, Sequence[Bounded]]:
    """Skewed values, each cell of its own size."""
    return {
        FigureKey(cell, kind): bounded(
            [10.0 ** (at % 4) * factor * (1 + r.expovariate(5)) for _ in range(cycles)]
        )
        for kind in KINDS
        for at, cell in enumerate(cells)
    }


def changes(before: Sequence[RunFigures], after: RunFigures) -> dict[FigureKey, Change]:
    return {one.key: one.change for one in compare_runs(before, after).figures if not one.is_factor}


MORE = {Change.WORSE, Change.BETTER}


@pytest.mark.parametrize(("cycles", "cells"), [(6, ("",)), (12, ("",)), (3, ("a", "b", "c"))])
def test_runs_that_are_alike_differ_in_no_more_than_five_of_a_hundred(
    cycles: int, cells: Sequence[str]
) -> None:
    r, alarms, rounds = random.Random(17), 0, 500
    for _ in range(rounds):
        one, other = (run(name, drawn(r, cycles, cells=cells)) for name in "ab")
        alarms += any(figure.change in MORE for figure in compare_runs([one], other).figures)
    assert alarms / rounds <= 0.05 + 3 * sqrt(0.05 * 0.95 / rounds)
    assert alarms, "a test that never rejects shows nothing"


def test_a_shift_is_found() -> None:
    """Half as much again, over a spread of a fifth: in all of 100 pairs of runs with 12 cycles each."""
    r = random.Random(3)
    for _ in range(100):
        one, other = run("a", drawn(r, 12)), run("b", drawn(r, 12, 1.8))
        assert set(changes([one], other).values()) == {Change.WORSE}
        assert set(changes([other], one).values()) == {Change.BETTER}


def test_a_shift_of_all_cells_is_found_where_no_cell_has_enough_cycles() -> None:
    r, cells = random.Random(4), [f"cell-{n}" for n in range(72)]
    one, other = run("a", drawn(r, 1, cells=cells)), run("b", drawn(r, 1, 1.3, cells=cells))
    found = compare_runs([one], other)
    assert {figure.change for figure in found.figures if figure.is_factor} == {Change.WORSE}
    single = [figure for figure in found.figures if not figure.is_factor]
    assert {figure.change for figure in single} == {Change.TOO_FEW}
    assert found.tests == len(KINDS)
    assert {figure.needed for figure in single} == {5}  # 2 of 252 is below 1 %


def test_what_the_bounds_do_not_show_is_no_difference() -> None:
    before = [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
    after = [value + 20 for value in before]
    found = [
        changes([run("a", {PAUSE: bounded(before, side)})], run("b", {PAUSE: bounded(after, side)}))[PAUSE]
        for side in (1.0, 7.0, 20.0)
    ]
    assert found == [Change.WORSE, Change.WORSE, Change.BOUNDS]


@pytest.mark.parametrize("cycles", [1, 2, 3])
def test_few_cycles_show_nothing_and_say_so(cycles: int) -> None:
    one, other = run("a", {PAUSE: bounded([1.0] * cycles)}), run("b", {PAUSE: bounded([9.0] * cycles)})
    (figure,) = compare_runs([one], other).figures
    assert (figure.change, figure.needed, figure.p) == (Change.TOO_FEW, 4, None)


def test_more_tolerance_is_better() -> None:
    key = FigureKey("", FigureKind.TOLERANCE, "nats")
    one, other = run("a", {key: bounded([3.0] * 5)}), run("b", {key: bounded([9.0] * 5)})
    assert changes([one], other)[key] is Change.BETTER
    assert changes([other], one)[key] is Change.WORSE


def test_a_clock_that_never_came_back_is_worse() -> None:
    key = FigureKey("", FigureKind.IN_TIME)
    quick = [(0.0, v, v) for v in (1.0, 2.0, 3.0, 4.0, 5.0)]
    one, other = run("a", {key: quick}), run("b", {key: [(8.0, inf, inf)] * 5})
    assert changes([one], other)[key] is Change.WORSE


def baseline(r: random.Random, runs: int, spread: float) -> list[RunFigures]:
    """Runs whose cycles have a level of their own: what a boot or a day is."""
    levels = [100 + r.uniform(-spread, spread) for _ in range(runs)]
    return [
        run(f"n{at}", {PAUSE: bounded([v + r.uniform(-1, 1) for _ in range(5)])})
        for at, v in enumerate(levels)
    ]


def test_a_run_within_the_spread_of_the_baselines_runs_is_no_regression() -> None:
    r, kinds = random.Random(7), list[Change]()
    for _ in range(300):
        *before, after = baseline(r, 8, 20)
        kinds.append(changes(before, after)[PAUSE])
    assert kinds.count(Change.RUNS) > 30, "cycles alone would have called these a difference"
    # Of 8 runs that are alike the last is the largest or smallest in a quarter; no more can be false.
    assert sum(kind in MORE for kind in kinds) / 300 <= 0.25 + 3 * sqrt(0.25 * 0.75 / 300)


def test_all_cells_of_a_matrix_together_share_the_level_of_a_run() -> None:
    """Each run's cells are all longer by its own factor: within the runs' spread that is no regression."""
    r, cells = random.Random(14), [f"cell-{n}" for n in range(30)]

    def size(at: int) -> float:
        return float(10 ** (at % 4))

    def of(name: str, factor: float) -> RunFigures:
        return run(
            name,
            {
                FigureKey(cell, FigureKind.PAUSE): bounded(
                    [10.0 ** (at % 4) * factor * r.uniform(0.99, 1.01)]
                )
                for at, cell in enumerate(cells)
            },
        )

    def together(before: Sequence[RunFigures], after: RunFigures) -> Change:
        return next(one.change for one in compare_runs(before, after).figures if one.is_factor)

    before = [of(f"n{at}", factor) for at, factor in enumerate((0.9, 1.0, 1.02, 1.3, 0.95))]
    assert together(before, of("new", 1.25)) is Change.RUNS
    assert together(before, of("new", 1.5)) is Change.WORSE
    assert together(before, of("new", 0.7)) is Change.BETTER
    assert together(before[:1], of("new", 1.25)) is Change.WORSE


def test_a_run_beyond_all_of_the_baseline_is_one() -> None:
    r = random.Random(8)
    before = baseline(r, 7, 3)
    assert changes(before, run("new", {PAUSE: bounded([130.0, 131.0, 132.0])}))[PAUSE] is Change.WORSE
    assert changes(before, run("new", {PAUSE: bounded([70.0, 71.0, 72.0])}))[PAUSE] is Change.BETTER


def test_other_machines_are_never_pooled() -> None:
    r = random.Random(9)
    here, there = run("a", drawn(r, 6)), run("b", drawn(r, 6, 3.0), machine=replace(MACHINE, id="b2"))
    kvm = run("c", drawn(r, 6), setting={ACCELERATOR: "kvm"})
    other = run("d", drawn(r, 6), playbook="another", digest="d9")
    found = compare_runs([here, there, kvm, other], run("new", drawn(r, 6)))
    assert found.baseline == ("a",)
    assert dict(found.left_out) == {
        "b": "another machine",
        "c": "another accelerator",
        "d": "another playbook",
    }
    assert {figure.before.count for figure in found.figures if figure.before} == {6}


def test_side_by_side_with_another_machine_nothing_is_a_regression() -> None:
    r = random.Random(10)
    one, other = run("a", drawn(r, 12)), run("b", drawn(r, 12, 3.0), machine=replace(MACHINE, id="b2"))
    found = compare_runs([one], other)
    assert not found.same_machine
    assert {figure.change for figure in found.figures} == {Change.WORSE}
    assert found.regressed == ()
    assert len(compare_runs([one], replace(other, machine=MACHINE)).regressed) == len(KINDS)


def test_a_machine_without_an_id_is_told_by_its_hardware() -> None:
    assert MACHINE.is_same(replace(MACHINE, id=""))
    assert not MACHINE.is_same(replace(MACHINE, id="b2"))
    assert not MACHINE.is_same(replace(MACHINE, id="", cpus=4))


def test_the_setting_that_differs_is_named() -> None:
    one, other = (
        run("a", setting={ACCELERATOR: "kvm", "qemu": "7.2"}),
        run("b", setting={ACCELERATOR: "kvm", "qemu": "10.0"}),
    )
    assert compare_runs([one], other).differs == ("qemu: 7.2, then 10.0",)


def test_nothing_in_common() -> None:
    with pytest.raises(ValueError, match="no run of the same playbook"):
        compare_runs([run("a", playbook="x", digest="1")], run("b", playbook="y", digest="2"))
    with pytest.raises(ValueError, match="no run of the same playbook"):
        compare_runs([], run("b"))


def test_cells_of_other_playbooks_with_the_same_id_are_compared() -> None:
    r = random.Random(12)
    one = run("a", drawn(r, 5, cells=("x", "y")), playbook="long", digest="1")
    other = run("b", drawn(r, 5, cells=("y", "z")), playbook="short", digest="2")
    found = compare_runs([one], other)
    assert {figure.key.cell for figure in found.figures} == {"y"}
    assert (found.only_before, found.only_after) == (("x",), ("z",))


CHECK = VerdictKey("", "web-0", "in time", "within 3 s")


def verdict_changes(
    before: Sequence[Sequence[Outcome]], after: Sequence[Outcome], same: bool = True
) -> list[bool]:
    """Whether it changed for the worse, in a list; empty when it did not change."""
    olds = [
        run(str(at), verdicts={CHECK: outcomes} if outcomes else {}) for at, outcomes in enumerate(before)
    ]
    new = run("new", verdicts={CHECK: after} if after else {}, digest="d1" if same else "d2")
    return [one.worse for one in compare_runs(olds, new).verdicts]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([[P, P]], [P, F], [True]),
        ([[P, P]], [U], [True]),
        ([[U]], [F], [True]),
        ([[F]], [P], [False]),
        ([[F]], [U], [False]),
        ([[P]], [P, P], []),
        ([[P, F]], [F], []),
        ([[P]], [], [True]),
        ([[]], [P], []),
        ([[]], [F], [True]),
        ([[]], [U], [True]),
        ([[U]], [], [False]),
        ([[P], [F]], [F], []),
        ([[P], [U]], [F], [True]),
        ([[P], [P]], [F], [True]),
        ([[P], []], [], []),
    ],
)
def test_verdicts_that_changed(before: list[list[Outcome]], after: list[Outcome], found: list[bool]) -> None:
    assert verdict_changes(before, after) == found


def test_a_check_that_another_playbook_has_not_is_no_change() -> None:
    assert verdict_changes([[P]], [], same=False) == []
    assert verdict_changes([[P]], [F], same=False) == [True]


def test_how_often_each_outcome_came() -> None:
    olds = [run("a", verdicts={CHECK: [P, P]}), run("b", verdicts={CHECK: [P, U, P]})]
    (change,) = compare_runs(olds, run("c", verdicts={CHECK: [P, F, F]})).verdicts
    assert change.before == {U: 1, P: 4}
    assert change.after == {F: 2, P: 1}
    assert list(change.after) == [F, P]
