"""What is compared of a run, taken from its record; and its form in the index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any

from lab.core.benchmark import Bounded
from lab.core.comparison import ACCELERATOR, FigureKey, FigureKind, RunFigures, RunMachine, VerdictKey
from lab.core.history import Host
from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.record.model import CycleRecord, Measure, Run, ToleranceRecord
from lab.record.model_workload import WorkloadCycleRecord

GIB = 1 << 30
_MOST = 1 << 62


def figures_of(run: Run) -> RunFigures:
    """The figures and verdicts of a run. RecordError when a figure is none that can be measured."""
    figures: dict[FigureKey, list[Bounded]] = {}
    for key, value in (*_of_guests(run), *_of_workloads(run)):
        if not _is_measured(value):
            raise RecordError(f"damaged: {key.kind} has a value that nothing can measure", where=run.id)
        figures.setdefault(key, []).append(value)
    verdicts: dict[VerdictKey, list[Outcome]] = {}
    for one in run.findings:
        check = VerdictKey(one.cell, one.guest, one.metric, str(one.expectation))
        verdicts.setdefault(check, []).append(one.outcome)
    return RunFigures(
        run.id,
        run.playbook.name,
        run.playbook.digest,
        run.started,
        run.outcome,
        _machine(run.host),
        _setting(run.host),
        figures,
        verdicts,
        {cell.id: cell.outcome for cell in run.cells} or {"": run.outcome},
        run.complete and not run.interrupted,
    )


def _is_measured(value: Bounded) -> bool:
    """False for NaN, for bounds that are none, and for more than a hundred years."""
    low, middle, high = value
    return 0 <= low <= middle <= high and low < _MOST and (high < _MOST or high == inf)


def _machine(host: Host) -> RunMachine:
    known = host.details
    name, cpus = known.get("machine", ""), known.get("cpus", 0)
    return RunMachine(
        name if isinstance(name, str) else "",
        host.cpu,
        cpus if isinstance(cpus, int) else 0,
        round(host.memory_bytes / GIB),
    )


def _setting(host: Host) -> dict[str, str]:
    governor = host.details.get("governor", "")
    return {
        ACCELERATOR: host.accelerator,
        "kernel": host.kernel,
        "qemu": host.qemu,
        "libvirt": host.libvirt,
        "governor": governor if isinstance(governor, str) else "",
    }


def _of_guests(run: Run) -> Iterator[tuple[FigureKey, Bounded]]:
    """The worst guest's figures of each cycle that went as planned. A search for a tolerance has another
    pause in each cycle: of its cycles nothing is compared."""
    searched = {one.cell for one in run.tolerances}
    cycles: dict[tuple[str, int], list[CycleRecord]] = {}
    for guest in run.guests:
        for cycle in guest.cycles:
            if guest.cell not in searched and _as_planned(cycle):
                cycles.setdefault((guest.cell, cycle.index), []).append(cycle)
    for (cell, _), together in cycles.items():
        for kind, figure in _FIGURES.items():
            known = [value for cycle in together if (value := figure(cycle)) is not None]
            if known:
                yield FigureKey(cell, kind), _worst(known)


def _as_planned(cycle: CycleRecord) -> bool:
    unplanned = cycle.called_off or cycle.disturbed or cycle.resumed_by
    return not (cycle.control or cycle.cancelled or unplanned)


def _worst(values: Sequence[Bounded]) -> Bounded:
    """The largest of values that are each known within bounds."""
    lows, middles, highs = zip(*values, strict=True)
    return max(lows), max(middles), max(highs)


def _of_measure(measure: Measure | None) -> Bounded | None:
    return None if measure is None else _magnitude(measure.low_ns, measure.value_ns, measure.high_ns)


def _magnitude(low: float, value: float, high: float) -> Bounded:
    least = 0 if low <= 0 <= high else min(abs(low), abs(high))
    return least, abs(value), max(abs(low), abs(high))


def _exact(ns: int | None) -> Bounded | None:
    return None if ns is None else (ns, ns, ns)


def _in_time(cycle: CycleRecord) -> Bounded | None:
    """A clock that did not come back within the watch may do so later: it is known only that it takes longer
    than the watch. Undecided is unknown."""
    resync = cycle.resync
    if resync is None:
        return None
    if resync.time_ns is not None:
        return resync.time_low_ns or 0, resync.time_ns, resync.time_ns
    if resync.outcome != "not synced" or not resync.curve:
        return None
    return resync.curve[-1].at_ns, inf, inf


def _drift(cycle: CycleRecord) -> Bounded | None:
    after = cycle.drift.after
    return None if after is None else _magnitude(after.low, after.ppm, after.high)


_FIGURES: dict[FigureKind, Callable[[CycleRecord], Bounded | None]] = {
    FigureKind.PAUSE: lambda cycle: _of_measure(cycle.pause) if cycle.frozen else None,
    FigureKind.OUTAGE: lambda cycle: _exact(cycle.outage_ns),
    FigureKind.OFFSET_AT_RESUME: lambda cycle: _of_measure(cycle.offset.at_resume),
    FigureKind.FINAL_OFFSET: lambda cycle: _of_measure(cycle.offset.final),
    FigureKind.IN_TIME: _in_time,
    FigureKind.DRIFT: _drift,
}

_OF_WORKLOADS: dict[FigureKind, Callable[[WorkloadCycleRecord], Bounded | None]] = {
    FigureKind.WORKLOAD_OUTAGE: lambda cycle: _of_measure(cycle.outage),
    FigureKind.WORKLOAD_RECOVERY: lambda cycle: _exact(cycle.recovery_ns),
    FigureKind.WORKLOAD_LATENCY: lambda cycle: _exact(cycle.latencies.p99_ns) if cycle.latencies else None,
}


def _of_workloads(run: Run) -> Iterator[tuple[FigureKey, Bounded]]:
    searched = {one.cell for one in run.tolerances}
    for workload in run.workloads:
        for cycle in workload.cycles:
            if cycle.control or workload.cell in searched:
                continue
            for kind, figure in _OF_WORKLOADS.items():
                if (value := figure(cycle)) is not None:
                    yield FigureKey(workload.cell, kind, workload.name), value
    for tolerance in run.tolerances:
        if (found := _tolerance(tolerance)) is not None:
            yield FigureKey(tolerance.cell, FigureKind.TOLERANCE, tolerance.workload), found


def _tolerance(found: ToleranceRecord) -> Bounded | None:
    """The shortest pause that fails is longer than any that passed. None before the search has ended."""
    if not found.complete:
        return None
    low, high = found.longest_passed_ns or 0, found.shortest_failed_ns
    return (low, inf, inf) if high is None else (low, (low + high) // 2, high)


def to_text(figures: RunFigures) -> str:
    """The form in the index."""
    machine = figures.machine
    return json.dumps(
        [
            *(figures.id, figures.playbook, figures.digest, figures.started, figures.outcome),
            [machine.id, machine.cpu, machine.cpus, machine.memory_gib],
            dict(figures.setting),
            [[k.cell, k.kind, k.subject, *map(list, values)] for k, values in figures.figures.items()],
            [
                [k.cell, k.guest, k.metric, k.expectation, *outcomes]
                for k, outcomes in figures.verdicts.items()
            ],
            dict(figures.cells),
            figures.complete,
        ],
        separators=(",", ":"),
    )


def from_text(text: str) -> RunFigures:
    """The reverse. ValueError when the text is damaged."""
    try:
        return _figures(json.loads(text))
    except (TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"damaged: {error}") from error


def _figures(data: Any) -> RunFigures:
    run, playbook, digest, started, outcome, machine, setting, figures, verdicts, cells, complete = data
    return RunFigures(
        *(run, playbook, digest, started),
        Outcome(outcome),
        RunMachine(*machine),
        setting,
        {
            FigureKey(cell, FigureKind(kind), subject): [(low, value, high) for low, value, high in values]
            for cell, kind, subject, *values in figures
        },
        {VerdictKey(*key[:4]): [Outcome(one) for one in key[4:]] for key in verdicts},
        {cell: Outcome(one) for cell, one in cells.items()},
        complete,
    )
