"""run.json: what a run came to, for other programs. Schema "freezelab.run/1", kept compatible: new
members may come, none goes or changes its meaning. All times are integer nanoseconds; offsets are
guest minus host; null means that it was not measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.findings import findings, outcome_of
from lab.core.judge import CycleResult, measure_all
from lab.core.pause import Witness
from lab.core.plan import Plan
from lab.core.stats import Quantile, summary
from lab.core.verdict import Finding, Outcome, worst
from lab.record.journal import History
from lab.record.rebuild import observations_of, plan_of

SCHEMA = "freezelab.run/1"
RUN = "run.json"


@dataclass(frozen=True)
class Bounds:
    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class Measure:
    value_ns: int
    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class Playbook:
    name: str
    digest: str


@dataclass(frozen=True)
class Host:
    kernel: str = ""
    cpu: str = ""
    memory_bytes: int = 0
    qemu: str = ""
    libvirt: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Witnesses:
    hypervisor: Bounds | None = None
    lag: Bounds | None = None
    gap: Bounds | None = None
    silence: Bounds | None = None


@dataclass(frozen=True)
class Offsets:
    before: Measure | None = None
    at_resume: Measure | None = None
    final: Measure | None = None


@dataclass(frozen=True)
class Point:
    at_ns: int
    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class Resync:
    """time_low_ns to time_ns bound the time to sync; time_ns is the first instant seen in time."""

    mechanism: str
    predicted: str
    outcome: str
    time_ns: int | None
    time_low_ns: int | None
    step_ns: int | None
    correction: str | None
    backward_steps: int
    overshoot_ns: int
    area_ns_s: float
    said: str
    curve: tuple[Point, ...] = ()


@dataclass(frozen=True)
class DriftBounds:
    ppm: float
    low: float
    high: float
    window_ns: int


@dataclass(frozen=True)
class Drifts:
    before: DriftBounds | None = None
    after: DriftBounds | None = None


@dataclass(frozen=True)
class Clocksource:
    before: str
    after: str


@dataclass(frozen=True)
class Cycle:
    """closure: where hypervisor - lag - gap lies. used_ns: of the budget. disagreeing: witnesses that
    contradict the pause. noise_ns: the largest hole that the sampler saw elsewhere. at_rest: from the
    guest's last instruction before the pause to the first one after it."""

    index: int
    frozen: bool
    method: str
    patch: str
    regime: str | None
    budget_ns: int
    used_ns: int | None
    pause: Measure | None
    witnesses: Witnesses
    agreeing: tuple[str, ...]
    closure_ns: int | None
    closure: Bounds | None
    closes: bool
    offset: Offsets
    resync: Resync | None
    drift: Drifts
    boot_id_unchanged: bool | None
    kernel_stalls: tuple[str, ...]
    clocksource: Clocksource | None
    cpu_ns: int | None
    readings: int
    problems: tuple[str, ...]
    outcome: Outcome
    disagreeing: tuple[str, ...] = ()
    noise_ns: int | None = None
    at_rest: Bounds | None = None


@dataclass(frozen=True)
class Guest:
    name: str
    image: str
    vcpus: int
    memory_bytes: int
    fault_domain: int
    update_domain: int
    boot: dict[str, Any]
    cycles: tuple[Cycle, ...]


@dataclass(frozen=True)
class Limits:
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Statistic:
    """Over all guests' cycles with a freeze (or, kind "control", without one). Limits: 95 %, from
    order statistics; null where there are too few cycles for a limit."""

    kind: str
    metric: str
    unit: str
    count: int
    median: Limits
    p95: Limits
    max: float


@dataclass(frozen=True)
class Run:
    schema: str
    id: str
    playbook: Playbook
    started: str
    ended: str
    outcome: Outcome
    complete: bool
    interrupted: bool
    host: Host
    guests: tuple[Guest, ...]
    findings: tuple[Finding, ...]
    statistics: tuple[Statistic, ...] = ()


def _measure(interval: Interval | None) -> Measure | None:
    return None if interval is None else Measure(interval.mid_ns, interval.low_ns, interval.high_ns)


def _bounds(interval: Interval | None) -> Bounds | None:
    return None if interval is None else Bounds(interval.low_ns, interval.high_ns)


def _drift(seen: Drift | None) -> DriftBounds | None:
    return None if seen is None else DriftBounds(seen.ppm, seen.low, seen.high, seen.window_ns)


def _resync(result: CycleResult) -> Resync | None:
    seen = result.resync
    if seen is None:
        return None
    return Resync(
        result.mechanism,
        result.predicted,
        seen.outcome,
        None if seen.time is None else seen.time.high_ns,
        None if seen.time is None else seen.time.low_ns,
        seen.step_ns,
        seen.correction,
        seen.backward_steps,
        seen.overshoot_ns,
        seen.area_ns_s,
        result.observation.resync_said,
        tuple(Point(p.at_ns, p.offset.low_ns, p.offset.high_ns) for p in seen.curve),
    )


def _cycle(result: CycleResult, found: Sequence[Finding]) -> Cycle:
    obs, pause = result.observation, result.pause
    used = None
    if obs.stop is not None and obs.resume is not None and obs.frozen:
        used = obs.resume.returned.raw_ns - obs.stop.called.raw_ns
    first, last = obs.facts_before, obs.facts_after
    witnesses = pause.witnesses if pause is not None else {}
    return Cycle(
        index=obs.cycle,
        frozen=obs.frozen,
        method=obs.method,
        patch=obs.patch,
        regime=pause.regime if pause is not None else None,
        budget_ns=obs.budget_ns,
        used_ns=used,
        pause=_measure(pause.pause) if pause is not None else None,
        witnesses=Witnesses(**{w.value: _bounds(witnesses.get(w)) for w in Witness}),
        agreeing=tuple(pause.agreeing) if pause is not None else (),
        closure_ns=pause.closure_ns if pause is not None else None,
        closure=_bounds(pause.closure) if pause is not None else None,
        closes=pause is not None and pause.closes,
        offset=Offsets(_measure(result.before), _measure(result.at_resume), _measure(result.final)),
        resync=_resync(result),
        drift=Drifts(_drift(result.drift_before), _drift(result.drift_after)),
        boot_id_unchanged=result.boot_id_unchanged,
        kernel_stalls=tuple(last.kernel_lines or ()) if last is not None else (),
        clocksource=Clocksource(first.clocksource, last.clocksource) if first and last else None,
        cpu_ns=obs.cpu_ns,
        readings=len(obs.readings),
        problems=result.problems,
        outcome=outcome_of(list(found)),
        disagreeing=tuple(pause.disagreeing) if pause is not None else (),
        noise_ns=pause.noise_ns if pause is not None else None,
        at_rest=_bounds(pause.at_rest) if pause is not None else None,
    )


def _limits(quantile: Quantile) -> Limits:
    return Limits(quantile.value, quantile.low, quantile.high)


def statistics(cycles: Sequence[Cycle]) -> tuple[Statistic, ...]:
    """Statistics over repeated cycles; none for fewer than two of a kind."""
    found: list[Statistic] = []
    for kind, of_kind in (
        ("freeze", [c for c in cycles if c.frozen]),
        ("control", [c for c in cycles if not c.frozen]),
    ):
        columns: dict[str, list[int | None]] = {
            "pause": [c.pause.value_ns if c.pause else None for c in of_kind],
            "pause bound": [(c.pause.high_ns - c.pause.low_ns) // 2 if c.pause else None for c in of_kind],
            "|closure|": [abs(c.closure_ns) if c.closure_ns is not None else None for c in of_kind],
            "offset bound": [
                (c.offset.before.high_ns - c.offset.before.low_ns) // 2 if c.offset.before else None
                for c in of_kind
            ],
            "time to sync": [c.resync.time_ns if c.resync else None for c in of_kind],
            "|final offset|": [abs(c.offset.final.value_ns) if c.offset.final else None for c in of_kind],
        }
        if kind == "control":
            columns = {name: columns[name] for name in ("|closure|", "offset bound")}
        for metric, column in columns.items():
            values = [v for v in column if v is not None]
            if len(values) > 1:
                s = summary(values)
                found.append(
                    Statistic(kind, metric, "ns", s.count, _limits(s.median), _limits(s.p95), s.largest)
                )
    return tuple(found)


def _iso(real_ns: int) -> str:
    return datetime.fromtimestamp(real_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _run_findings(history: History, plan: Plan, results: Sequence[CycleResult]) -> list[Finding]:
    found: list[Finding] = []
    if not history.complete:
        found.append(
            Finding("", -1, "history", "complete", history.damage, Outcome.INCONCLUSIVE, history.damage)
        )
    for end in history.of("run-end"):
        if end["failure"]:
            why = end["failure"].splitlines()[0]
            found.append(Finding("", -1, "run", "runs to its end", "stopped", Outcome.INCONCLUSIVE, why))
    wanted = len(plan.guests) * (plan.repeat + plan.control)
    if len(results) < wanted:
        text = f"{len(results)} of {wanted} cycles"
        found.append(
            Finding("", -1, "cycles", f"{wanted}", text, Outcome.INCONCLUSIVE, f"only {text} were run")
        )
    return found


def judge(history: History) -> tuple[Run, list[CycleResult]]:
    """Measure and judge a run from its history alone. RecordError when the history is damaged."""
    plan = plan_of(history)
    results = measure_all(observations_of(history), plan)
    found = [findings(result, plan.expectations) for result in results]
    own = _run_findings(history, plan, results)
    cycles = [_cycle(result, given) for result, given in zip(results, found, strict=True)]
    boots = {event["guest"]: event.get("timings", {}) for event in history.of("boot")}
    first, last = history.events[0], history.events[-1]
    guests = tuple(
        Guest(
            spec.name, spec.image, spec.vcpus, spec.memory_bytes, spec.fault_domain, spec.update_domain,
            boots.get(spec.name, {}),
            tuple(c for c, r in zip(cycles, results, strict=True) if r.observation.guest == spec.name),
        )
        for spec in plan.guests
    )  # fmt: skip
    everything = [*own, *(f for given in found for f in given)]
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
        guests=guests,
        findings=tuple(everything),
        statistics=statistics(cycles),
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
