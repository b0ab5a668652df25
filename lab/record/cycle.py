"""From a measured cycle to its entry in run.json."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.findings import outcome_of
from lab.core.pause import Witness
from lab.core.predictions import held
from lab.core.result import CycleResult
from lab.core.steps import Part
from lab.core.timeline import MemoryProof, Observation
from lab.core.verdict import Finding
from lab.record.model import (
    Bounds,
    Clocksource,
    Cycle,
    DriftBounds,
    Drifts,
    Measure,
    Memory,
    Offsets,
    Point,
    Predicted,
    Resync,
    Step,
    Witnesses,
)


def measure_of(interval: Interval | None) -> Measure | None:
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


def _part(part: Part) -> Step:
    bounds = part.bounds
    return Step(
        part.name,
        part.from_ns,
        part.length_ns,
        None if bounds is None else bounds.low_ns,
        None if bounds is None else bounds.high_ns,
    )


def _patch_steps(obs: Observation) -> tuple[Step, ...]:
    if obs.stop is None:
        return ()
    began = obs.stop.called.raw_ns
    return tuple(Step(s.name, s.began_raw_ns - began, s.length_ns) for s in obs.patch_steps)


def _memory(proof: MemoryProof) -> Memory:
    return Memory(
        proof.page_bytes, proof.pages, proof.held, proof.differ, proof.before, proof.after, proof.cost_ns
    )


def cycle_of(result: CycleResult, found: Sequence[Finding]) -> Cycle:
    """The member of run.json. found: what the cycle was held against."""
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
        pause=measure_of(result.reported),
        witnesses=Witnesses(**{w.value: _bounds(witnesses.get(w)) for w in Witness}),
        agreeing=tuple(pause.agreeing) if pause is not None else (),
        closure_ns=pause.closure_ns if pause is not None else None,
        closure=_bounds(pause.closure) if pause is not None else None,
        closes=pause is not None and pause.closes,
        offset=Offsets(measure_of(result.before), measure_of(result.at_resume), measure_of(result.final)),
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
        cell=obs.cell,
        control=result.control,
        felt=measure_of(pause.pause) if pause is not None and pause.pause != result.reported else None,
        stamps=_bounds(pause.stamps) if pause is not None else None,
        steps=tuple(_part(part) for part in result.steps),
        predictions=tuple(Predicted(h.claim, h.predicted, h.measured, h.agrees) for h in held(result)),
        memory=_memory(obs.proof) if obs.proof is not None else None,
        called_off=obs.called_off,
        cut=obs.cut,
        patch_impact=obs.patch_impact,
        patch_ok=obs.patch_ok,
        patch_steps=_patch_steps(obs),
        version_before=obs.version_before,
        version_after=obs.version_after,
        outage_ns=result.outage_ns,
    )
