"""The comparison of runs as JSON, for other programs.

The schema "freezelab.comparison/1" stays compatible: members may be added, none is removed or changes its
meaning. Figures are magnitudes in nanoseconds, a drift is in ppm.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from lab.core.comparison import (
    FigureChange,
    Level,
    RunComparison,
    RunFigures,
    RunMachine,
    VerdictChange,
)
from lab.core.shift import ALPHA
from lab.core.verdict import Outcome

COMPARISON_SCHEMA = "freezelab.comparison/1"


@dataclass(frozen=True)
class ComparedRun:
    """A run that was compared. machine: its host, by which runs are told apart; setting: what may differ on
    one machine, by name. complete: False for a run that was interrupted or cut off, or that has not ended."""

    id: str
    playbook: str
    digest: str
    started: str
    outcome: Outcome
    complete: bool
    machine: RunMachine
    setting: dict[str, str]


@dataclass(frozen=True)
class LevelRecord:
    """The median over `count` cycles of a figure. low, high: the bounds of its 95 % limits or, with too few
    cycles for limits, of all cycles. null: longer than the cycles were watched, without a known end."""

    count: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class FigureRecord:
    """A figure of a cell ("" without a matrix) that both runs have. figure: "pause", "in-time" and so on;
    subject: a workload, "" for a figure of guests. unit: of all values, "ns" or "ppm"; where all cells are
    taken together (all_cells), before and after are null, and difference is a factor with unit "".

    difference: the median of the differences (factors) of all pairs of cycles; low, high: its 95 % interval,
    with the bounds of each value, not corrected for the number of tests; null: too few cycles for a limit, or
    without a known end. change: "worse" and "better": more than noise; "noise"; "within bounds": the values
    differ by more than noise, but their bounds do not exclude that the true ones do not; "within runs": a run
    of the baseline is as far off; "too few": these numbers of cycles cannot show any difference, `needed` of
    each run could. p: the probability that noise alone makes such a difference, corrected for the number of
    tests; null: not tested."""

    cell: str
    figure: str
    subject: str
    unit: str
    all_cells: bool
    before: LevelRecord | None
    after: LevelRecord | None
    difference: float | None
    low: float | None
    high: float | None
    change: str
    p: float | None
    needed: int


@dataclass(frozen=True)
class VerdictRecord:
    """A check whose worst outcome changed. before, after: how many cycles had each outcome; empty: it was not
    checked."""

    cell: str
    guest: str
    metric: str
    expectation: str
    before: dict[str, int]
    after: dict[str, int]
    worse: bool


@dataclass(frozen=True)
class RunComparisonRecord:
    """A run beside the baseline. same_machine: False: what differs may be the machines'. same_playbook: by
    its digest. differs: of the setting, in words. only_before, only_after: cells that one of the two has not.
    tests: the number of figures that were tested. worse: a figure is worse, on the same machine, or a verdict
    is."""

    baseline: tuple[str, ...]
    run: str
    worse: bool
    same_machine: bool
    same_playbook: bool
    differs: tuple[str, ...]
    figures: tuple[FigureRecord, ...]
    verdicts: tuple[VerdictRecord, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    tests: int


@dataclass(frozen=True)
class ComparisonRecord:
    """The whole of `freezelab compare --json`. runs: the baseline first. comparisons: of each other run with
    it. alpha: the tolerated probability of a false alarm in one of the comparisons."""

    schema: str
    alpha: float
    runs: tuple[ComparedRun, ...]
    comparisons: tuple[RunComparisonRecord, ...]


def comparison_of(runs: Sequence[RunFigures], comparisons: Sequence[RunComparison]) -> ComparisonRecord:
    """The record of comparisons of runs."""
    return ComparisonRecord(
        COMPARISON_SCHEMA, ALPHA, tuple(map(_run, runs)), tuple(map(_comparison, comparisons))
    )


def comparison_text(record: ComparisonRecord) -> str:
    """The record as JSON."""
    return json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def comparison_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12)."""
    from pydantic import TypeAdapter

    made = TypeAdapter(ComparisonRecord).json_schema(mode="serialization")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:freezelab:schema:comparison:1",
    }
    return {**head, **made, "title": COMPARISON_SCHEMA}


def _run(run: RunFigures) -> ComparedRun:
    about = run.id, run.playbook, run.digest, run.started, run.outcome, run.complete
    return ComparedRun(*about, run.machine, dict(run.setting))


def _comparison(one: RunComparison) -> RunComparisonRecord:
    return RunComparisonRecord(
        one.baseline,
        one.run,
        one.is_worse,
        one.same_machine,
        one.same_playbook,
        one.differs,
        tuple(map(_figure, one.figures)),
        tuple(map(_verdict, one.verdicts)),
        one.only_before,
        one.only_after,
        one.tests,
    )


def _figure(one: FigureChange) -> FigureRecord:
    key, difference = one.key, one.difference
    return FigureRecord(
        cell=key.cell,
        figure=key.kind.value,
        subject=key.subject,
        unit="" if one.is_factor else key.kind.unit,
        all_cells=one.is_factor,
        before=_level(one.before),
        after=_level(one.after),
        difference=_known(difference.value),
        low=_known(difference.low),
        high=_known(difference.high),
        change=one.change.value,
        p=one.p,
        needed=one.needed,
    )


def _level(level: Level | None) -> LevelRecord | None:
    if level is None:
        return None
    return LevelRecord(level.count, _known(level.value), _known(level.low), _known(level.high))


def _known(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _verdict(one: VerdictChange) -> VerdictRecord:
    before, after = (
        {outcome.value: count for outcome, count in part.items()} for part in (one.before, one.after)
    )
    key = one.key
    return VerdictRecord(key.cell, key.guest, key.metric, key.expectation, before, after, one.worse)
