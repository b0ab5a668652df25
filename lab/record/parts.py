"""Runs that had parts of one playbook's cells, and the history that is made of them.

A merged history is judged as any other. Its cells are those of the playbook, so that one that no run had is
told; the times of a part are those of its own host, and figures of different hosts are not pooled.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lab.core.clock import Interval, Stamp
from lab.core.fleet_clocks import FleetClocks
from lab.core.fleet_placement import placed_hosts
from lab.core.history import (
    SCHEMA,
    CellReached,
    HistoryEvent,
    Host,
    PartMerged,
    RunEnded,
    RunStarted,
    ToleranceTried,
)
from lab.core.history.encoding import line_of
from lab.core.offsets import Sample
from lab.core.plan import Plan
from lab.errors import MachineError, UsageError
from lab.record import EVENTS
from lab.record.events import Entry, UnknownEvent
from lab.record.journal import History
from lab.record.model import PartRecord

MACHINE = "machine"
"""The member of a host's details that tells machines apart."""

FLEET = "fleet"
"""The member with what a fleet's controller knows of a host: `cut_off`; `stops`; `clock`, the samples of its
MONOTONIC_RAW minus the controller's, each [from, to, low, high], ns; from and to are the controller's; and
`apart`, the controller's own REALTIME minus its MONOTONIC_RAW at the end, ns."""


def whole_plan(histories: Sequence[History]) -> Plan:
    """The plan of which the runs have parts. UsageError when there is no such plan, or a cell is in two."""
    of: dict[str, str] = {}
    first = histories[0].start
    for history in histories:
        start = history.start
        if start.whole is None:
            hint = "parts are made by freezelab run --shard or --cell"
            raise UsageError("it is no run of a part of a playbook", where=start.id, hint=hint)
        if start.whole != first.whole:
            why = f"it is of another playbook than {first.id}, or has other counts of cycles"
            raise UsageError(why, where=start.id)
        if any(isinstance(entry.event, UnknownEvent) for entry in history.entries):
            raise UsageError("a newer freezelab has made it", where=start.id, hint="use that one to merge it")
        for cell in start.plan.cells:
            if cell.id in of:
                raise UsageError(f"its cell {cell.id} is also in {of[cell.id]}", where=start.id)
            of[cell.id] = start.id
    assert first.whole is not None  # noqa: S101 - for the type checker
    return first.whole


def write_merged(
    histories: Sequence[History],
    plan: Plan,
    run_id: str,
    folder: Path,
    own: Sequence[tuple[HistoryEvent, Stamp]] = (),
    span: tuple[Stamp, Stamp] | None = None,
) -> None:
    """Write the history that is made of these runs into `folder`. plan: their whole_plan(). own: events of
    none of them, with their times. span: when the run began and ended, by the clock of who made it; None: by
    those of its parts. MachineError when it cannot be written."""
    order = {cell.id: number for number, cell in enumerate(plan.cells)}
    parts = sorted(histories, key=lambda one: order[one.start.plan.cells[0].id])
    path = folder / EVENTS
    try:
        with path.open("x", encoding="utf-8", errors="replace") as file:
            for line in _lines(parts, plan, run_id, own, span):
                file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
            folder.rmdir()
        raise MachineError(f"the history cannot be written: {error.strerror}", where=str(path)) from error


def _lines(
    parts: Sequence[History],
    plan: Plan,
    run_id: str,
    own: Sequence[tuple[HistoryEvent, Stamp]],
    span: tuple[Stamp, Stamp] | None,
) -> Iterator[str]:
    starts = [part.start for part in parts]
    tags = tuple(dict.fromkeys(tag for start in starts for tag in start.tags))
    began, ended = span or (
        min((part.began for part in parts), key=lambda at: at.real_ns),
        max((part.ended for part in parts), key=lambda at: at.real_ns),
    )
    machines = {_machine(start.host) for start in starts}
    calibration = starts[0].calibration if len(machines) == 1 else None
    sequence, cycles, at_once = 0, 0, bool(placed_hosts(plan))

    def line(event: Any, at: Stamp) -> str:
        nonlocal sequence
        sequence += 1
        return line_of(event, sequence - 1, at)

    yield line(RunStarted(SCHEMA, run_id, plan, _shared(starts), calibration, tags), began)
    for made, at in own:
        yield line(made, at)
    for part in parts:
        start = part.start
        yield line(
            PartMerged(start.id, start.host, start.calibration, part.ended.real_ns, part.damage), part.began
        )
        most = -1
        for entry in part.entries:
            event: Any = entry.event
            if isinstance(event, RunStarted):
                continue
            # A try of an earlier run, which this one went on from, keeps the number it had there.
            of_other = isinstance(event, ToleranceTried) and event.of_run
            if not of_other and (cycle := getattr(event, "cycle", None)) is not None:
                most = max(most, cycle)
                event = replace(event, cycle=cycle + cycles)
            yield line_of(event, None, entry.at) if entry.seq is None else line(event, entry.at)
        if not at_once:  # a cycle of a fleet over hosts is one of all hosts
            cycles += most + 1
    yield line(RunEnded(interrupted=False, failure=""), ended)


def _machine(host: Host) -> str:
    return str(host.details.get(MACHINE, "")) or f"{host.cpu} {host.memory_bytes}"


def _shared(starts: Sequence[RunStarted]) -> Host:
    """What the hosts of all parts have in common. Of several machines, the machine is which cell was on
    which: figures of two merged runs are only compared when each was measured where it was before."""
    hosts = [start.host for start in starts]

    def common(values: Sequence[Any], otherwise: Any) -> Any:
        return values[0] if all(value == values[0] for value in values) else otherwise

    names = set.intersection(*(set(host.details) for host in hosts))
    shared = {name: common([host.details[name] for host in hosts], None) for name in sorted(names)}
    shared = {name: value for name, value in shared.items() if value is not None}
    if len({_machine(host) for host in hosts}) > 1:
        where = sorted((cell.id, _machine(start.host)) for start in starts for cell in start.plan.cells)
        shared[MACHINE] = hashlib.sha256(repr(where).encode()).hexdigest()[:16]
    members = {
        one.name: common([getattr(host, one.name) for host in hosts], one.default)
        for one in fields(Host)
        if one.name != "details"
    }
    return Host(**members, details=shared)


def parts_of(history: History) -> list[tuple[PartMerged, History]]:
    """The parts of a merged history; [] for any other."""
    found: list[tuple[PartMerged, list[Entry]]] = []
    for entry in history.entries:
        if isinstance(entry.event, PartMerged):
            found.append((entry.event, [entry]))
        elif found:
            found[-1][1].append(entry)
    return [(part, replace(history, entries=tuple(entries))) for part, entries in found]


def machines_of(parts: Sequence[PartRecord]) -> Mapping[str, str]:
    """The machine of each cell; of cells of one machine nothing is said."""
    known = {cell: _machine(part.host) for part in parts for cell in part.cells}
    return known if len(set(known.values())) > 1 else {}


def fleet_clocks(history: History) -> FleetClocks:
    """The clocks of the hosts of a fleet, as its controller has measured them."""
    samples: dict[str, list[Sample]] = {}
    apart_ns = None
    for part in history.of(PartMerged):
        details = part.host.details
        known = details.get(FLEET) or {}
        apart_ns = known.get("apart", apart_ns)
        samples[str(details.get("host", ""))] = [
            Sample(first, last, Interval(low, high)) for first, last, low, high in known.get("clock", ())
        ]
    return FleetClocks(samples, apart_ns)


def part_record(part: PartMerged, history: History, iso: Callable[[int], str]) -> PartRecord:
    """The entry in run.json. history: the part's own. iso: formats a time, nanoseconds of REALTIME."""
    cells = dict.fromkeys(event.id for event in history.of(CellReached))
    began, ended = iso(history.began.real_ns), iso(part.ended_real_ns)
    return PartRecord(part.run, began, ended, part.host, tuple(cells), not part.damage)
