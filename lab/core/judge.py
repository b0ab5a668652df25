"""Measures one guest's cycle from its observation and compares it with the expectations. Pure, so an old run
can be judged again from its history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lab.core import clocksource
from lab.core.audit import Truth, audit
from lab.core.boots import Boots, of_first_boot
from lab.core.clock import GuestClock, Interval
from lab.core.clock_disturbance import HOST_STEP_NS, host_step, moved
from lab.core.cross_timestamps import cross_timestamps
from lab.core.method import WallClock
from lab.core.offsets import (
    HOST_SLEW_PPM,
    SLEW_PPM,
    Rate,
    Sample,
    ageing_ns,
    apart,
    host_apart,
    offset_at,
    real_samples,
    samples,
    smoothed,
)
from lab.core.pause import measure_pause
from lab.core.plan import Cell, CycleSpec, Expectations, Plan, Regime, ResyncMechanism
from lab.core.rates import is_slewed, known_rates, last_drift, steady_rates
from lab.core.reboot import rebooted
from lab.core.rescue import (
    AT_ONCE,
    BY_DEADMAN,
    BY_OTHERS,
    CUT_OFF,
    RAN,
    again_by_deadman,
    as_resumed,
    by_deadman,
    not_by_deadman,
)
from lab.core.result import CycleResult as CycleResult
from lab.core.resync import Watched, measure_resync, runs_wild, since_earlier
from lab.core.steps import Part, dated, first_sign, parts
from lab.core.timeline import Call, ClockStep, Observation, Reading, SamplerReport
from lab.core.timesync import rules
from lab.core.timesync.forecast import Forecast
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_S
from lab.core.witnesses import COLD_NS, LATE_NS, Witness, before_and_after


def _looked_before(step: ClockStep, sampler: SamplerReport) -> int:
    """The guest's MONOTONIC_RAW at the sample before the one that recorded the step."""
    for hole in sampler.holes:
        if hole.to_raw_ns == step.at_raw_ns:
            return hole.from_raw_ns
    return step.at_raw_ns - sampler.floor_ns


def _steps_after(obs: Observation, resume_guest_raw: Interval | None) -> list[ClockStep] | None:
    """Steps of the guest's REALTIME after the resume; None when no sampler ran."""
    if obs.sampler is None or resume_guest_raw is None or obs.sampler.first_raw_ns > resume_guest_raw.low_ns:
        return None
    return [s for s in obs.sampler.steps if s.at_raw_ns >= resume_guest_raw.low_ns]


def _stepped(
    steps: Sequence[ClockStep], sampler: SamplerReport, raw: Interval, resumed_raw_ns: int, phi_ppm: float
) -> list[Interval]:
    """The time of each step, on the host's clock since the resume. raw: MONOTONIC_RAW's offset at that
    time."""
    found = []
    for step in steps:
        since = Interval(_looked_before(step, sampler), step.at_raw_ns).shifted(-resumed_raw_ns) - raw
        found.append(since.widened(ageing_ns(since.largest_ns, phi_ppm)))
    return found


def _unseen_ns(sampler: SamplerReport | None, resume_guest: Interval | None) -> int:
    """The largest step after the resume that the sampler may have taken for a slew."""
    if sampler is None or resume_guest is None:
        return 0
    after = [hole.length_ns for hole in sampler.holes if hole.to_raw_ns >= resume_guest.low_ns]
    return sampler.unseen_step_ns(max(after, default=sampler.floor_ns))


def _watched(
    sampler: SamplerReport | None,
    steps: Sequence[ClockStep] | None,
    stepped: Sequence[Interval] | None,
    raw: Interval | None,
    resumed_raw_ns: int,
    phi_ppm: float,
) -> Watched | None:
    """The sampler's record of the time between readings; None where it did not run, or its record is
    incomplete. raw: MONOTONIC_RAW's offset at the resume.

    Between two samples REALTIME either moves by less than the sampler's step floor, or the move is recorded
    as a step. The assumption is that no program sets the clock and sets it back between two samples.
    """
    if sampler is None or steps is None or stepped is None or raw is None or not sampler.steps_complete:
        return None
    until = Interval(sampler.last_raw_ns, sampler.last_raw_ns).shifted(-resumed_raw_ns) - raw
    until = until.widened(ageing_ns(until.largest_ns, phi_ppm))
    share = 1 / sampler.step_share + sampler.step_floor_ns / sampler.period_ns
    fastest = share * (1e6 + phi_ppm) + HOST_SLEW_PPM + phi_ppm
    by = tuple(step.by_ns for step in steps)
    return Watched(until.low_ns, tuple(stepped), by, fastest, sampler.step_floor_ns)


def _foreseen(
    obs: Observation,
    mechanism: ResyncMechanism,
    pause: Interval,
    spec: CycleSpec | None,
    before: Interval | None,
) -> Forecast | None:
    """The forecast of the set-up found in the guest for such a pause. For a history from before set-ups were
    recorded it is that of the lab's own configuration."""
    if not obs.frozen:
        return None
    setup = obs.setup or Setup(mechanism, config=mechanism.config())
    if obs.predicts.wall_clock is WallClock.NEARLY:
        return rules.slept(setup)
    stopped = obs.predicts.regime is Regime.RESUMED
    facts, lost = obs.facts_before, None
    if facts is not None:
        lost = clocksource.lost(facts.clocksource, pause, facts.kernel)
        if obs.method.traits.sends_rest_stopped and not obs.called_off:
            less = clocksource.lost_in_migration(facts.clocksource, pause)
            stopped, lost = stopped and less is None, less or lost
    if stopped and (late := clocksource.ran_on(obs)).high_ns:
        stopped, lost = False, Interval(max(0, pause.low_ns - late.high_ns), max(0, pause.high_ns))
    watch_ns = spec.watch_ns if spec is not None else None
    migrated = not obs.method.keeps_process and not obs.called_off
    return rules.forecast(setup, pause, stopped, watch_ns, lost, before, cut=obs.cut, migrated=migrated)


def _still_there(
    direct: Interval,
    carried: Interval,
    steps: Sequence[ClockStep],
    sampler: SamplerReport,
    first: Reading,
    resume: Call,
) -> bool:
    """True when the first reading after the resume found REALTIME where it was extrapolated to. Then the
    steps, each of which is too large to be missed, came after that reading."""
    since = max(0, first.t4.raw_ns - resume.called.raw_ns)
    slack = sampler.unseen_step_ns(since)
    room = direct.half_width_ns + carried.half_width_ns + slack
    later = all(abs(s.by_ns) > 2 * room and s.at_raw_ns > first.t3[GuestClock.RAW] for s in steps)
    return later and direct.meets(carried.widened(slack))


def _at_resume(
    early: Sequence[Reading],
    late: Sequence[Reading],
    raw_at_resume: Interval | None,
    lag: Interval | None,
    after: Sequence[Sample],
    obs: Observation,
    steps: Sequence[ClockStep] | None,
    resume_guest: Interval | None,
    closure: Interval | None,
) -> tuple[Interval | None, str]:
    """The offset at the resume, before anything corrected it: extrapolated over the pause, and also read
    directly where no step came before the first reading. When the two contradict each other, that is reported
    and the direct one is used.

    A step in the hole that the pause made may have come before the stop or after the resume. If it left less
    than a tenth of the extrapolated offset, it is regarded as a repair after the resume: before the stop, its
    size would have had to anticipate the length of the pause. Otherwise nothing is concluded. A second,
    smaller step in the milliseconds between the sampler's last sample and the stop is not seen.

    closure: that of the pause. Where lag and gap exceed what the calls explain, another program stopped the
    guest as well, and its clock may have lost all of the lag after the resume.
    """
    stop, resume, sampler = obs.stop, obs.resume, obs.sampler
    if stop is None or resume is None or sampler is None or steps is None or not late:
        return None, ""  # nobody watched for steps: the first reading may be of a repaired clock
    direct = after[0].offset
    carried = None
    if early and raw_at_resume is not None and lag is not None and resume_guest is not None:
        # guest REAL - host REAL = (guest REAL - guest RAW) + (guest RAW - host RAW) - (host REAL - host RAW):
        # the first as it was before, the others as they are now. Only the second has a network in it.
        by_others = closure is not None and closure.high_ns < 0
        stood = 0 if by_others else max(0, lag.low_ns)
        ran = resume.returned.raw_ns - early[-1].t1.raw_ns - stood
        within = apart(early[-1]).widened(ageing_ns(max(0, ran), SLEW_PPM))
        carried = within + raw_at_resume - host_apart(resume.called, resume.returned)
        if by_others:
            carried = Interval(carried.low_ns, carried.high_ns + max(0, lag.high_ns))
        last = early[-1].t2[GuestClock.RAW]
        unclear = [
            s
            for s in sampler.steps
            if s.at_raw_ns > last and _looked_before(s, sampler) <= resume_guest.high_ns
        ]
        repaired = direct.largest_ns * 10 <= carried.smallest_ns
        only_after = all(s.at_raw_ns >= resume_guest.low_ns for s in unclear)
        if unclear and obs.frozen and _still_there(direct, carried, unclear, sampler, late[0], resume):
            return min(direct, carried, key=lambda interval: interval.half_width_ns), ""
        if unclear and not (obs.frozen and repaired and only_after):
            carried = None
    if any(late[0].t3[GuestClock.RAW] > _looked_before(s, sampler) for s in steps):
        return carried, ""
    if carried is None:
        return direct, ""
    # A slew, or a step too small for the sampler to tell from one, may lie between the two.
    since = max(0, late[0].t4.raw_ns - resume.called.raw_ns)
    if direct.meets(carried.widened(sampler.unseen_step_ns(since))):
        return min(direct, carried, key=lambda interval: interval.half_width_ns), ""
    then, now = host_apart(resume.called, resume.returned), host_apart(late[0].t1, late[0].t4)
    if abs(now.mid_ns - then.mid_ns) > HOST_STEP_NS:
        return carried, ""  # the host's own clock was stepped in between, which is told elsewhere
    return direct, "the guest's REALTIME moved by itself between stop and resume"


def _rebooted(boots: Boots) -> str:
    """The problem text for a guest that was observed in another boot."""
    resume, when = boots.observation.resume, boots.when
    text = "the guest rebooted by itself"
    if resume is not None and when is not None:
        since = when.shifted(-resume.returned.raw_ns)
        if since.low_ns >= 0:
            text += f", {since.low_ns / NS_PER_S:.1f} to {since.high_ns / NS_PER_S:.1f} s after the resume"
    return f"{text}: later data belong to another boot"


def measure(
    obs: Observation,
    mechanism: ResyncMechanism,
    expect: Expectations,
    known: Rate | None = None,
    spec: CycleSpec | None = None,
) -> CycleResult:
    """The measured result of one guest's cycle. known: the rate of its MONOTONIC_RAW, from other cycles."""
    if obs.method.boots_anew:
        return rebooted(obs, mechanism, expect, spec)
    rescued, again, boots = by_deadman(obs), again_by_deadman(obs), of_first_boot(as_resumed(obs))
    obs = boots.observation
    problems = [*filter(None, [rescued, again, not_by_deadman(obs)]), *obs.problems]
    if boots.another:
        problems.append(_rebooted(boots))
    at_once = next((problem for problem in obs.problems if problem.startswith(AT_ONCE)), "")
    disturbed = rescued or again or at_once or (CUT_OFF if obs.unfinished else "")
    resumed_by = BY_DEADMAN if rescued else ""
    stop, resume = obs.stop, obs.resume
    if stop is None or resume is None:
        why = tuple(problems) or ("the guest was not frozen and resumed",)
        return CycleResult(
            obs, mechanism, why, spec=spec, disturbed=disturbed, resumed_by=resumed_by,
            another_boot=boots.another,
        )  # fmt: skip
    early, late = before_and_after(obs.readings, stop, resume)
    problems += host_step(obs)
    raw_early, raw_late = samples(early, GuestClock.RAW), samples(late, GuestClock.RAW)
    pair = steady_rates(obs, raw_early, raw_late, known)
    phi = max(rate.largest_ppm for rate in pair)
    late_ns = LATE_NS if obs.method.keeps_process else COLD_NS
    # A guest that goes to sleep by itself is silent, and its clocks stand still, before its machine is.
    asleep = obs.method.sleeps
    pause = measure_pause(
        obs.readings, obs.beats, obs.sampler, stop, resume, obs.frozen, pair, obs.cut or asleep, late_ns,
        clocksource.ran_on(obs),
    )  # fmt: skip
    if asleep:
        pause = replace(pause, stamps=None)
    if pause.ran and not rescued:
        disturbed, resumed_by = RAN, BY_OTHERS
        problems.insert(0, RAN)
    lag = pause.witnesses.get(Witness.LAG)

    smooth_early, smooth_late = smoothed(raw_early, pair[0]), smoothed(raw_late, pair[1])
    for smooth, when in ((smooth_early, "before"), (smooth_late, "after")):
        if smooth is None:
            problems.append(f"the guest's MONOTONIC_RAW contradicts itself {when} the freeze: it lost time")
    real_early, real_late = real_samples(early, smooth_early), real_samples(late, smooth_late)
    crossed = cross_timestamps(((early, pair[0]), (late, pair[1])), [*real_early, *real_late])
    if crossed is not None and crossed.problem:
        problems.append(crossed.problem)
    if moved(early):
        problems.append("the guest's clock was stepped during the measurement before the freeze")
    before = real_early[-1].offset if real_early else None
    final = real_late[-1].offset if real_late else None
    drift_before = last_drift(real_early)
    if drift_before is not None and runs_wild(drift_before):
        fast = f"{abs(drift_before.ppm) / 1e4:.0f} % {'fast' if drift_before.ppm > 0 else 'slow'}"
        problems.append(f"the guest's clock ran {fast}: its kernel has its counter's frequency wrong")

    raw_at_resume = offset_at(raw_late, resume.returned.raw_ns, rate=pair[1])
    stop_guest, resume_guest = pause.edges.stop, pause.edges.resume
    steps = _steps_after(obs, resume_guest)
    carried_from: Sequence[Reading] = early
    if obs.predicts.wall_clock is WallClock.NEARLY:
        # The guest's kernel sets its own clock when it wakes: that is the method's doing, not a repair.
        carried_from = ()
        if steps and obs.sampler is not None and resume_guest is not None:
            steps = [s for s in steps if _looked_before(s, obs.sampler) > resume_guest.high_ns]
    if pause.ran:
        steps = None  # nor is it known which of them came after the resume
    at_resume, text = _at_resume(
        carried_from, late, raw_at_resume, lag, real_late, obs, steps, resume_guest, pause.closure
    )
    problems += filter(None, [text])

    stepped = None
    if steps is not None and obs.sampler is not None and raw_at_resume is not None:
        stepped = _stepped(steps, obs.sampler, raw_at_resume, resume.returned.raw_ns, phi)
    resync = measure_resync(
        real_late, resume.returned.raw_ns, at_resume, final, steps, expect.tolerance_ns, expect.hold_ns,
        stepped, _unseen_ns(obs.sampler, resume_guest),
        _watched(obs.sampler, steps, stepped, raw_at_resume, resume.returned.raw_ns, phi),
        drift_before,
    )  # fmt: skip
    if pause.ran:
        resync = since_earlier(resync, resume.returned.raw_ns - stop.called.raw_ns - pause.pause.low_ns)
    settled = resume.returned.raw_ns
    if steps and raw_at_resume is not None:
        settled = max(settled, max(s.at_raw_ns for s in steps) - raw_at_resume.low_ns)
    elif resync.time is not None:
        settled += resync.time.high_ns
    drift_after = last_drift(real_late, settled)
    sign = None
    where: tuple[Part, ...] = ()
    truth = Truth(early, late, pair, stop_guest, resume_guest)
    if obs.frozen and stop_guest is not None:
        sign = first_sign(obs.beats, late, stop_guest.high_ns, resume.called.raw_ns)
    if obs.frozen and not obs.stop_inferred:
        where = parts(obs, sign, dated(sign, raw_late, pair[1]))
    return CycleResult(
        observation=obs,
        mechanism=mechanism,
        problems=tuple(problems),
        phi_ppm=phi,
        pause=pause,
        before=before,
        at_resume=at_resume,
        final=final,
        forecast=None if pause.ran else _foreseen(obs, mechanism, pause.pause, spec, before),
        resync=resync,
        drift_before=drift_before,
        drift_after=drift_after,
        spec=spec,
        steps=where,
        resumed_guest=resume_guest,
        audits=() if pause.ran else audit(obs.claims, truth, stop, resume, obs.frozen),
        disturbed=disturbed,
        resumed_by=resumed_by,
        another_boot=boots.another,
        cross_timestamps=crossed,
    )


def cells_of(plan: Plan) -> dict[str, Cell]:
    """The plan's cells by their ids; "" for a plan without a matrix."""
    return {cell.id: cell for cell in plan.parts}


def measure_each(observations: Sequence[Observation], plan: Plan) -> Iterator[CycleResult]:
    """The results of all cycles, each by its own cell's plan, with the rate of the guest's clock known from
    its other cycles. Each has its readings unpacked, so that its findings do not make them once more;
    `repacked` takes them from it. KeyError when the plan has no such cell."""
    first = [of_first_boot(as_resumed(obs)).observation for obs in observations if not is_slewed(obs)]
    known = known_rates(first) if len(observations) > 1 else {}
    cells = cells_of(plan)
    for obs in observations:
        cell, rate = cells[obs.cell], None
        if obs.facts_before is not None:
            rate = known.get((obs.cell, obs.guest, obs.facts_before.boot_id))
        own = replace(obs, readings=tuple(obs.readings), beats=tuple(obs.beats))
        yield measure(own, cell.resync, cell.expectations, rate, cell.cycle)


def repacked(result: CycleResult, obs: Observation) -> CycleResult:
    """The result of an observation, with that one's own readings and heartbeats where it has all of them."""
    own = result.observation
    readings = obs.readings if len(own.readings) == len(obs.readings) else own.readings
    beats = obs.beats if len(own.beats) == len(obs.beats) else own.beats
    return replace(result, observation=replace(own, readings=readings, beats=beats))
