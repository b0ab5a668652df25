"""Converts a measured cycle to its entry in run.json."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core import claims, effects
from lab.core.brown_out import brown_out
from lab.core.clock import GuestClock, Interval
from lab.core.clock_disturbance import cpu_wait_share
from lab.core.findings import outcome_of
from lab.core.kernel_log import sorted_out
from lab.core.plan import Expectations
from lab.core.predictions import compared, prediction_checks
from lab.core.result import CycleResult
from lab.core.steps import Part
from lab.core.timeline import MemoryProof, Observation, ProbeFacts
from lab.core.timesync import forecast as core
from lab.core.verdict import Finding
from lab.core.witnesses import Witness
from lab.record.model import (
    AuditRecord,
    Clocksource,
    CycleRecord,
    Drifts,
    EffectsRecord,
    ForecastRecord,
    Measure,
    Memory,
    Moved,
    Offsets,
    PointRecord,
    Predicted,
    ResyncRecord,
    StallRecord,
    StepRecord,
    Witnesses,
)


def measure_of(interval: Interval | None) -> Measure | None:
    return None if interval is None else Measure.of(interval)


def _forecast(result: CycleResult) -> ForecastRecord | None:
    forecast = result.forecast
    if forecast is None:
        return None
    agrees, verdict = compared(result)
    return ForecastRecord(
        forecast.repaired,
        forecast.correction,
        forecast.within,
        _left_at(result, forecast),
        forecast.text,
        forecast.sources,
        agrees,
        f"surprise: {verdict}" if agrees is False else verdict,
    )


def _left_at(result: CycleResult, forecast: core.Forecast) -> Interval | None:
    """The forecast offset: a part that is not corrected stays where it was before, minus what the clock
    lost."""
    if forecast.repaired is not False or forecast.residual is None or result.before is None:
        return forecast.residual
    return forecast.residual + result.before


def _rtc_set(result: CycleResult) -> Interval | None:
    """How far the guest's RTC was certainly moved over the cycle."""
    first, last = result.observation.facts_before, result.observation.facts_after
    if first is None or last is None or result.before is None or result.final is None:
        return None
    if first.rtc_minus_real_ns is None or last.rtc_minus_real_ns is None:
        return None
    setup, stood = result.observation.setup, None
    if setup is not None and setup.rtc_stops and result.pause is not None:
        stood = result.pause.pause
    # The RTC was read before the first reading, and the clock may have been stepped until the freeze.
    began = result.observation.readings[0].offset(GuestClock.REAL)
    before = Interval(min(began.low_ns, result.before.low_ns), max(began.high_ns, result.before.high_ns))
    return effects.rtc_set(first.rtc_minus_real_ns, last.rtc_minus_real_ns, before, result.final, stood)


def _moved(result: CycleResult) -> tuple[Moved, ...] | None:
    """The steps of REALTIME since the resume; times are on the guest's MONOTONIC_RAW, which differs from the
    host's by at most some milliseconds over a watch of minutes."""
    sampler, resumed = result.observation.sampler, result.resumed_guest
    if sampler is None or resumed is None or sampler.first_raw_ns > resumed.low_ns:
        return None
    return tuple(
        Moved(max(0, step.at_raw_ns - resumed.mid_ns), step.by_ns)
        for step in sampler.steps
        if step.at_raw_ns >= resumed.low_ns
    )


def _resync(result: CycleResult, expect: Expectations) -> ResyncRecord | None:
    resync, setup = result.resync, result.observation.setup
    if resync is None:
        return None
    return ResyncRecord(
        result.mechanism,
        result.predicted,
        resync.outcome,
        None if resync.time is None else resync.time.high_ns,
        None if resync.time is None else resync.time.low_ns,
        resync.step_ns,
        resync.correction,
        resync.backward_steps,
        resync.overshoot_ns,
        resync.area_ns_s,
        result.observation.resync_report,
        tuple(PointRecord(p.at_ns, p.offset.low_ns, p.offset.high_ns) for p in resync.curve),
        _forecast(result),
        resync.reached,
        resync.slew_ppm,
        setup.program if setup is not None else "",
        setup.config if setup is not None else "",
        expect.tolerance_ns,
        _moved(result),
    )


def _audit(audit: claims.Audit) -> AuditRecord:
    return AuditRecord(
        audit.source,
        audit.claims,
        audit.judged,
        audit.wrong,
        audit.wrong_ns.low_ns,
        audit.wrong_ns.high_ns,
        audit.worst_ns,
        audit.unsynced_ns.high_ns,
        audit.example,
    )


def _rtc(look: effects.RtcLook | None) -> Measure | None:
    if look is None:
        return None
    value, bound = look.rtc_minus_real_ns, look.bound_ns
    return Measure(value, value - bound, value + bound)


def _effects(result: CycleResult) -> EffectsRecord | None:
    """The other effects of the pause. The readings of the RTC are the last one before the pause and the last
    of all."""
    effects, resumed = result.observation.effects, result.resumed_guest
    if effects is None:
        return None
    before = [look for look in effects.rtc if resumed is not None and look.raw_ns < resumed.low_ns]
    after = [look for look in effects.rtc if resumed is not None and look.raw_ns > resumed.high_ns]
    return EffectsRecord(
        effects.timers,
        sum(b.looks for b in effects.backward),
        sum(b.backward for b in effects.backward),
        max((b.worst_ns for b in effects.backward), default=0),
        _rtc(before[-1] if before else None),
        _rtc(after[-1] if after else None),
        effects.boot_minus_mono_ns,
        effects.backward,
    )


def _part(part: Part) -> StepRecord:
    bounds = part.bounds
    return StepRecord(
        part.name,
        part.from_ns,
        part.length_ns,
        None if bounds is None else bounds.low_ns,
        None if bounds is None else bounds.high_ns,
    )


def _patch_steps(obs: Observation) -> tuple[StepRecord, ...]:
    if obs.stop is None:
        return ()
    began = obs.stop.called.raw_ns
    return tuple(StepRecord(s.name, s.began_raw_ns - began, s.length_ns) for s in obs.patch_steps)


def _stall(result: CycleResult) -> StallRecord | None:
    stall, writes, steps = result.stall, result.observation.writes, result.observation.steps
    if stall is None:
        return None
    began = min(step.began_raw_ns for step in steps)
    return StallRecord(
        stall.calls,
        measure_of(stall.felt),
        0 if writes is None else writes.count,
        0 if writes is None else writes.usual_ns,
        0 if writes is None else writes.thawed,
        tuple(StepRecord(s.name, s.began_raw_ns - began, s.length_ns) for s in steps),
    )


def _memory(proof: MemoryProof) -> Memory:
    return Memory(
        proof.page_bytes,
        proof.pages,
        proof.held,
        proof.differ,
        proof.before,
        proof.after,
        proof.cost_ns,
        proof.rewritten,
    )


def _stolen(first: ProbeFacts | None, last: ProbeFacts | None) -> int | None:
    """What a guest that has not been rebooted has counted as stolen over the cycle."""
    if first is None or last is None or first.boot_id != last.boot_id:
        return None
    if first.steal_ns is None or last.steal_ns is None:
        return None
    return max(0, last.steal_ns - first.steal_ns)


def cycle_of(result: CycleResult, found: Sequence[Finding], expect: Expectations) -> CycleRecord:
    """The cycle's entry in run.json. found: its findings, for the expectations `expect`."""
    obs, pause = result.observation, result.pause
    used = result.used
    first, last = obs.facts_before, obs.facts_after
    trouble, notes, unknown = sorted_out(last.kernel_lines or () if last is not None else ())
    witnesses = pause.witnesses if pause is not None else {}
    return CycleRecord(
        index=obs.cycle,
        frozen=obs.frozen,
        method=obs.method,
        patch=obs.patch,
        regime=pause.regime if pause is not None else None,
        budget_ns=obs.budget_ns,
        used_ns=None if used is None else used.high_ns,
        pause=measure_of(result.reported),
        witnesses=Witnesses(**{w.value: witnesses.get(w) for w in Witness}),
        agreeing=tuple(pause.agreeing) if pause is not None else (),
        closure_ns=pause.closure_ns if pause is not None else None,
        closure=pause.closure if pause is not None else None,
        closes=pause is not None and pause.closes,
        offset=Offsets(measure_of(result.before), measure_of(result.at_resume), measure_of(result.final)),
        resync=_resync(result, expect),
        drift=Drifts(result.drift_before, result.drift_after),
        boot_id_unchanged=result.boot_id_unchanged,
        kernel_stalls=trouble + unknown,
        kernel_notes=notes,
        rtc_moved=measure_of(_rtc_set(result)),
        clocksource=Clocksource(first.clocksource, last.clocksource) if first and last else None,
        cpu_ns=obs.cpu_ns,
        readings=len(obs.readings),
        problems=result.problems,
        outcome=outcome_of(list(found)),
        disagreeing=tuple(pause.disagreeing) if pause is not None else (),
        noise_ns=pause.noise_ns if pause is not None else None,
        at_rest=pause.at_rest if pause is not None else None,
        cell=obs.cell,
        control=result.control,
        felt=measure_of(pause.pause) if pause is not None and pause.pause != result.reported else None,
        stamps=pause.stamps if pause is not None else None,
        steps=tuple(_part(part) for part in result.steps),
        predictions=tuple(
            Predicted(h.claim, h.predicted, h.measured, h.agrees) for h in prediction_checks(result)
        ),
        memory=_memory(obs.proof) if obs.proof is not None else None,
        called_off=obs.called_off,
        cut=obs.cut,
        patch_impact=obs.patch_impact,
        patch_ok=obs.patch_ok,
        patch_steps=_patch_steps(obs),
        version_before=obs.version_before,
        version_after=obs.version_after,
        outage_ns=result.outage_ns,
        audits=tuple(_audit(resync) for resync in result.audits),
        effects=_effects(result),
        disturbed=result.disturbed,
        resumed_by=result.resumed_by,
        cpu_wait_share=cpu_wait_share(obs),
        stall=_stall(result),
        migration=obs.migration,
        brown_out=brown_out(obs, pause),
        cross_timestamps=result.cross_timestamps,
        steal_ns=_stolen(first, last),
    )
