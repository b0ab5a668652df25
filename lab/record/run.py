"""run.json: what a run came to, for other programs. lab.record.model has its members."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core.again import again
from lab.core.findings import findings
from lab.core.judge import cells_of, measure_all
from lab.core.result import CycleResult
from lab.core.timeline import Observation
from lab.core.verdict import Finding, Outcome, worst
from lab.errors import RecordError
from lab.record.cells import Told, cell_findings, cell_of, comparisons, told_of
from lab.record.cycle import cycle_of
from lab.record.journal import History
from lab.record.model import Audit as Audit
from lab.record.model import Backward as Backward
from lab.record.model import Bounds as Bounds
from lab.record.model import Calibration as Calibration
from lab.record.model import Cell as Cell
from lab.record.model import Clocksource as Clocksource
from lab.record.model import Comparison as Comparison
from lab.record.model import Cycle as Cycle
from lab.record.model import DriftBounds as DriftBounds
from lab.record.model import Drifts as Drifts
from lab.record.model import Effects as Effects
from lab.record.model import Forecast as Forecast
from lab.record.model import Guest as Guest
from lab.record.model import Host as Host
from lab.record.model import LeftOut as LeftOut
from lab.record.model import Limits as Limits
from lab.record.model import Measure as Measure
from lab.record.model import Memory as Memory
from lab.record.model import Moved as Moved
from lab.record.model import Offsets as Offsets
from lab.record.model import Playbook as Playbook
from lab.record.model import Point as Point
from lab.record.model import Predicted as Predicted
from lab.record.model import Reached as Reached
from lab.record.model import Resync as Resync
from lab.record.model import Run as Run
from lab.record.model import Statistic as Statistic
from lab.record.model import Step as Step
from lab.record.model import TimerFleet as TimerFleet
from lab.record.model import Witnesses as Witnesses
from lab.record.rebuild import observations_of, plan_of
from lab.record.statistics import statistics as statistics

SCHEMA = "freezelab.run/1"
RUN = "run.json"


def _iso(real_ns: int) -> str:
    return datetime.fromtimestamp(real_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _run_findings(history: History) -> list[Finding]:
    found: list[Finding] = []
    if not history.complete:
        found.append(
            Finding("", -1, "history", "complete", history.damage, Outcome.INCONCLUSIVE, history.damage)
        )
    for end in history.of("run-end"):
        if end["failure"]:
            why = end["failure"].splitlines()[0]
            found.append(Finding("", -1, "run", "runs to its end", "stopped", Outcome.INCONCLUSIVE, why))
    return found


def _calibration(given: dict[str, Any] | None) -> Calibration | None:
    """What run-start says of the last calibration. Members that this program does not know are left out."""
    if given is None:
        return None
    known = {name: value for name, value in given.items() if name in Calibration.__dataclass_fields__}
    try:
        return Calibration(**known)
    except TypeError:
        return None  # of another version of this program


def _damaged(history: History, obs: Observation) -> RecordError:
    return RecordError(
        f"cycle {obs.cycle} of {obs.guest} names the cell {obs.cell!r}, which the plan has not",
        where=str(history.folder),
    )


def _is_of(result: CycleResult, cell: str, guest: str) -> bool:
    return result.observation.cell == cell and result.observation.guest == guest


def judge(history: History) -> tuple[Run, list[CycleResult]]:
    """Measure and judge a run from its history alone. RecordError when the history is damaged."""
    plan = plan_of(history)
    observations = observations_of(history)
    known_cells = cells_of(plan)
    for obs in observations:
        if obs.cell not in known_cells:
            raise _damaged(history, obs)
    results = measure_all(observations, plan)
    found = [findings(r, known_cells[r.observation.cell].expectations) for r in results]
    own = _run_findings(history)
    cycles = [
        cycle_of(result, given, known_cells[result.observation.cell].expectations)
        for result, given in zip(results, found, strict=True)
    ]
    told = told_of(history)
    guests: list[Guest] = []
    cells: list[Cell] = []
    by_cell: dict[str, list[Cycle]] = {}
    for cell in plan.parts:
        here, said = [c for c in cycles if c.cell == cell.id], told.get(cell.id, Told())
        by_cell[cell.id] = here
        over_all = cell_findings(cell, said, len(here))
        for spec in cell.guests:
            over_all += again([r for r in results if _is_of(r, cell.id, spec.name)], cell.expectations)
        own += over_all
        guests += (
            Guest(
                spec.name, spec.image, spec.vcpus, spec.memory_bytes, spec.fault_domain, spec.update_domain,
                said.boots.get(spec.name, {}),
                tuple(
                    c for c, r in zip(cycles, results, strict=True)
                    if _is_of(r, cell.id, spec.name)
                ),
                cell.id,
            )
            for spec in cell.guests
        )  # fmt: skip
        if plan.cells:
            cells.append(cell_of(cell, said, here, over_all))
    everything = [*own, *(f for given in found for f in given)]
    first, last = history.events[0], history.events[-1]
    known = {name: value for name, value in first["host"].items() if name in Host.__dataclass_fields__}
    for end in history.of("run-end"):
        if "host" in end:  # load and steal once more: what the measurement had to live with
            known["details"] = {**known.get("details", {}), "after": end["host"]}
    run = Run(
        schema=SCHEMA,
        id=first["id"],
        playbook=Playbook(plan.name, plan.digest),
        started=_iso(first["real_ns"]),
        ended=_iso(last["real_ns"]),
        outcome=worst(f.outcome for f in everything),
        complete=history.complete,
        interrupted=any(end["interrupted"] for end in history.of("run-end")),
        host=Host(**known),
        guests=tuple(guests),
        findings=tuple(everything),
        # Over cells that differ there is nothing to take a median of.
        statistics=() if cells else statistics(cycles),
        cells=tuple(cells),
        comparisons=comparisons(cells, by_cell),
        calibration=_calibration(first.get("calibration")),
        left_out=tuple(LeftOut(dict(one.values), one.why) for one in plan.left_out),
    )
    return run, results


def schema() -> dict[str, Any]:
    """The JSON schema of run.json (draft 2020-12)."""
    from pydantic import TypeAdapter

    made = TypeAdapter(Run).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": SCHEMA}


def to_json(run: Run) -> str:
    return json.dumps(asdict(run), indent=1, ensure_ascii=False) + "\n"


def write(run: Run, folder: Path) -> Path:
    """Write run.json, whole or not at all."""
    path, draft = folder / RUN, folder / f".{RUN}.new"
    draft.write_text(to_json(run), encoding="utf-8")
    draft.replace(path)
    return path
