"""run.json: the result of a run, for other programs. lab.record.model has its members."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core import plan as planned
from lab.core.clocksource import option_findings
from lab.core.findings import findings
from lab.core.history import DeadManActed, PartMerged, RunEnded
from lab.core.judge import cells_of, measure_each, repacked
from lab.core.plan import GuestSpec
from lab.core.repeatability import again
from lab.core.rescue import RESUMED
from lab.core.result import CycleResult
from lab.core.timeline import Observation
from lab.core.verdict import Finding, Outcome, worst
from lab.errors import MachineError, RecordError
from lab.record.cells import CellHistory, cell_findings, cell_histories, cell_of, comparisons
from lab.record.cycle import cycle_of
from lab.record.event_timelines import (
    event_of,
    event_timelines,
    handlers_of,
    judged,
    marked,
    service_findings,
)
from lab.record.fleet import FleetFindings
from lab.record.journal import History
from lab.record.model import ApartRecord as ApartRecord
from lab.record.model import AuditRecord as AuditRecord
from lab.record.model import Calibration as Calibration
from lab.record.model import CellRecord as CellRecord
from lab.record.model import Clocksource as Clocksource
from lab.record.model import Comparison as Comparison
from lab.record.model import CycleRecord as CycleRecord
from lab.record.model import DomainRecord as DomainRecord
from lab.record.model import Drifts as Drifts
from lab.record.model import EffectsRecord as EffectsRecord
from lab.record.model import EventRecord as EventRecord
from lab.record.model import ForecastRecord as ForecastRecord
from lab.record.model import GuestRecord as GuestRecord
from lab.record.model import Host as Host
from lab.record.model import LeftOutRecord as LeftOutRecord
from lab.record.model import Limits as Limits
from lab.record.model import Measure as Measure
from lab.record.model import MemberRecord as MemberRecord
from lab.record.model import Memory as Memory
from lab.record.model import Moment as Moment
from lab.record.model import Moved as Moved
from lab.record.model import Offsets as Offsets
from lab.record.model import OneAtATime as OneAtATime
from lab.record.model import PartRecord as PartRecord
from lab.record.model import Playbook as Playbook
from lab.record.model import PointRecord as PointRecord
from lab.record.model import Predicted as Predicted
from lab.record.model import ResyncRecord as ResyncRecord
from lab.record.model import RolloutRecord as RolloutRecord
from lab.record.model import Run as Run
from lab.record.model import Statistic as Statistic
from lab.record.model import StepRecord as StepRecord
from lab.record.model import WaveRecord as WaveRecord
from lab.record.model import Witnesses as Witnesses
from lab.record.network import network_of
from lab.record.parts import machines_of, part_record, parts_of
from lab.record.rebuild import observations_of, plan_of
from lab.record.statistics import statistics as statistics
from lab.record.workloads import JudgedWorkload, workloads_of

SCHEMA = "freezelab.run/1"
SCHEMA_ID = "urn:freezelab:schema:run:1"
"""The $id of its JSON schema; docs/formats.md says what may change while it stays the same."""

RUN = "run.json"


def _iso(real_ns: int) -> str:
    return datetime.fromtimestamp(real_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _run_findings(history: History) -> list[Finding]:
    found: list[Finding] = []
    if not history.complete:
        why = history.damage
        if acted := [event for event in history.of(DeadManActed) if event.act == RESUMED]:
            why = f"{why}: {acted[-1].why}"
        found.append(Finding("", -1, "history", "complete", history.damage, Outcome.INCONCLUSIVE, why))
    for part in history.of(PartMerged):
        if part.damage:
            why = f"run {part.run}: {part.damage}"
            found.append(Finding("", -1, "history", "complete", part.damage, Outcome.INCONCLUSIVE, why))
    for end in history.of(RunEnded):
        if end.failure:
            why = end.failure.splitlines()[0]
            found.append(Finding("", -1, "run", "runs to its end", "stopped", Outcome.INCONCLUSIVE, why))
    return found


def _calibration(given: Mapping[str, Any] | None) -> Calibration | None:
    """The last calibration as recorded in run-start. Members that this program does not know are omitted."""
    if given is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Calibration).validate_json(json.dumps(dict(given)), strict=True)
    except ValidationError:
        return None  # of another version of this program


def _damaged(history: History, obs: Observation) -> RecordError:
    return RecordError(
        f"cycle {obs.cycle} of {obs.guest} names the cell {obs.cell!r}, which the plan has not",
        where=str(history.folder),
    )


def _guest_of(
    spec: GuestSpec, boot: dict[str, Any], cycles: tuple[CycleRecord, ...], cell: str
) -> GuestRecord:
    """A guest's entry. How large a domain of the user's own is was seen at its start."""
    vcpus, memory = spec.vcpus, spec.memory_bytes
    if spec.is_own:
        vcpus, memory = int(boot.get("vcpus", 0)), int(boot.get("memory_bytes", 0))
    image = "" if spec.is_own else spec.image
    return GuestRecord(
        spec.name, image, vcpus, memory, spec.fault_domain, spec.update_domain, boot, cycles, cell,
        spec.availability_set, spec.is_peer,
    )  # fmt: skip


def _is_of(result: CycleResult, cell: str, guest: str) -> bool:
    return result.observation.cell == cell and result.observation.guest == guest


def _with_event(cycle: CycleRecord, guest: str, of_events: Mapping[str, Sequence[Finding]]) -> CycleRecord:
    """The cycle, its outcome combined with its event's findings about this guest: one verdict for one
    freeze."""
    cell_history = (
        [f.outcome for f in of_events.get(cycle.event, ()) if f.guest == guest] if cycle.event else []
    )
    return replace(cycle, outcome=worst([cycle.outcome, *cell_history]))


def _turned(expect: planned.Expectations, found: list[Finding]) -> list[Finding]:
    """The findings of a negative control with inverted outcomes; any others unchanged."""
    return found if expect.must_fail is None else expect.must_fail.judged(found)


def judge(history: History) -> tuple[Run, list[CycleResult]]:
    """Measure and judge a run from its history alone. RecordError when the history is damaged."""
    plan = plan_of(history)
    observations = observations_of(history)
    known_cells = cells_of(plan)
    for obs in observations:
        if obs.cell not in known_cells:
            raise _damaged(history, obs)
    results: list[CycleResult] = []
    found: list[list[Finding]] = []
    made: list[CycleRecord] = []
    for obs, result in zip(observations, measure_each(observations, plan), strict=True):
        expect = known_cells[obs.cell].expectations
        found.append(_turned(expect, findings(result, expect)))
        made.append(cycle_of(result, found[-1], expect))
        results.append(repacked(result, obs))
    own = _run_findings(history)
    fleet = FleetFindings(history, plan, results)
    timelines = event_timelines(history, results, fleet.clocks)
    whose = [result.observation.guest for result in results]
    histories = cell_histories(history)
    by_cell_events: dict[str, dict[str, list[Finding]]] = {cell.id: {} for cell in plan.parts}
    for cell in fleet.announced:
        of_cell = [r for r in results if cell.id in ("", r.observation.cell)]
        by_cell_events[cell.id] = {
            name: _turned(cell.expectations, given)
            for name, given in judged(timelines, cell, of_cell).items()
        }
    of_events = {name: given for events in by_cell_events.values() for name, given in events.items()}
    events_of = [event_of(one, of_events.get(one.event.id, ())) for one in timelines]
    marks = marked(list(zip(whose, made, strict=True)), timelines, fleet.waves)
    cycles = [_with_event(cycle, guest, of_events) for guest, cycle in zip(whose, marks, strict=True)]
    guests: list[GuestRecord] = []
    cells: list[CellRecord] = []
    by_cell: dict[str, list[CycleRecord]] = {}
    workloads: list[JudgedWorkload] = []
    for cell in plan.parts:
        here, cell_history = [c for c in cycles if c.cell == cell.id], histories.get(cell.id, CellHistory())
        by_cell[cell.id] = here
        of_cell = [r for r in results if r.observation.cell == cell.id]
        of_workloads = workloads_of(history, cell, of_cell)
        over_all = cell_findings(cell, cell_history, len(here), fleet.rollouts)
        if not here and any(one.is_known for one in of_workloads):
            over_all = []  # all of its search is an earlier run's
        expect = cell.expectations
        over_all += (finding for given in by_cell_events[cell.id].values() for finding in given)
        over_all += _turned(expect, handlers_of(history, cell.id))
        over_all += service_findings(history, cell.id)
        over_all += option_findings(cell.guests, [r.observation for r in of_cell], cell.id)
        over_all += _turned(expect, fleet.findings(cell, of_cell))
        for spec in cell.guests:
            of_guest = [r for r in results if _is_of(r, cell.id, spec.name)]
            over_all += _turned(expect, again(of_guest, expect))
        workloads += of_workloads
        # Why nothing of a cell was run is told already.
        told = [one for one in of_workloads if one.was_started or not over_all]
        over_all += _turned(expect, [finding for one in told for finding in one.findings])
        if expect.must_fail is not None:
            of_cycles = [f for given in found for f in given if f.cell == cell.id]
            over_all += expect.must_fail.missing([*over_all, *of_cycles], cell.id)
        own += over_all
        guests += (
            _guest_of(
                spec,
                cell_history.boots.get(spec.name, {}),
                tuple(
                    c for c, r in zip(cycles, results, strict=True)
                    if _is_of(r, cell.id, spec.name)
                ),
                cell.id,
            )
            for spec in cell.guests
        )  # fmt: skip
        if plan.cells:
            announced = [event for event in events_of if event.cell == cell.id]
            cells.append(cell_of(cell, cell_history, here, over_all, announced))
    own += _turned(plan.expectations, fleet.over_hosts())
    own += (finding for given in (by_cell_events.get("", {}) if cells else {}).values() for finding in given)
    everything = [*own, *(f for given in found for f in given)]
    start, host = history.start, history.start.host
    parts = tuple(
        replace(part_record(part, own_history, _iso), calibration=_calibration(part.calibration))
        for part, own_history in parts_of(history)
    )
    for end in history.of(RunEnded) if not parts else ():
        if end.host is not None:  # load and steal once more: what the measurement had to live with
            host = replace(host, details={**host.details, "after": end.host})
    run = Run(
        schema=SCHEMA,
        id=start.id,
        playbook=Playbook(plan.name, plan.digest),
        started=_iso(history.began.real_ns),
        ended=_iso(history.ended.real_ns),
        outcome=worst(f.outcome for f in everything),
        complete=history.complete,
        interrupted=any(end.interrupted for end in history.of(RunEnded)),
        host=host,
        guests=tuple(guests),
        findings=tuple(everything),
        # Over cells that differ there is nothing to take a median of.
        statistics=() if cells else statistics(cycles),
        cells=tuple(cells),
        comparisons=comparisons(cells, by_cell, machines_of(parts)),
        calibration=_calibration(start.calibration),
        left_out=tuple(LeftOutRecord(dict(one.values), one.why) for one in plan.left_out),
        events=tuple(events_of),
        rollouts=fleet.members(list(zip(whose, cycles, strict=True)), events_of, everything),
        one_at_a_time=fleet.one_at_a_time(),
        network=network_of(history),
        workloads=tuple(one.record for one in workloads),
        tolerances=tuple(one.tolerance for one in workloads if one.tolerance is not None),
        tags=start.tags,
        of_cells=len(start.whole.cells) if start.whole is not None else None,
        parts=parts,
    )
    return run, results


def schema() -> dict[str, Any]:
    """The JSON schema of run.json (draft 2020-12)."""
    from pydantic import TypeAdapter

    made = TypeAdapter(Run).json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **made,
        "title": SCHEMA,
    }


def json_pieces(run: Run) -> Iterator[str]:
    """The text of run.json, piece by piece: the whole of it takes more memory than the run."""
    encoder = json.JSONEncoder(indent=1, ensure_ascii=False, check_circular=False, default=_members)
    yield from encoder.iterencode(run)
    yield "\n"


def _members(value: object) -> dict[str, Any]:
    if not is_dataclass(value):
        raise TypeError(f"no JSON: {type(value).__name__}")
    return {field.name: getattr(value, field.name) for field in fields(value)}


def to_json(run: Run) -> str:
    return "".join(json_pieces(run))


def load(path: Path) -> Run:
    """A run.json, as it was judged when it was written. RecordError when it is none that is known here."""
    from pydantic import TypeAdapter, ValidationError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
    try:
        run = TypeAdapter(Run).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RecordError(f"is no run.json: {place or 'the file'}: {first['msg']}", where=str(path)) from None
    if run.schema != SCHEMA:
        raise RecordError(
            f"its schema is {run.schema!r}, and this freezelab reads {SCHEMA}: use the one that made it",
            where=str(path),
        )
    return run


def write(run: Run, folder: Path) -> Path:
    """Write run.json, whole or not at all. MachineError when it cannot be written."""
    path, draft = folder / RUN, folder / f".{RUN}.new"
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(json_pieces(run))
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise MachineError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            hint=f"the history is complete: freezelab report {folder.name}",
        ) from error
    return path
