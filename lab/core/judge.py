"""From what was observed to what is claimed: one guest's cycle measured, then held against the
expectations. Pure, so an old run can be judged again from its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import PHI_PPM, GuestClock, Interval, intersect
from lab.core.drift import Drift, drift
from lab.core.offsets import Sample, offset_at, samples
from lab.core.pause import Pause, Witness, before_and_after, measure_pause
from lab.core.plan import Expectations, Plan, Regime, ResyncMechanism
from lab.core.resync import ResyncResult, measure_resync, predict
from lab.core.timeline import ClockStep, Observation
from lab.core.units import NS_PER_MS, NS_PER_S

UNKNOWN_DRIFT_PPM = 500.0
"""Where the readings give no drift: the kernel's limit of frequency correction (adjtimex(2))."""

HOST_STEP_NS = 5 * NS_PER_MS
"""The host's REALTIME may move this far against its MONOTONIC_RAW in a cycle: NTP slews at up to
500 ppm (adjtimex(2)); what is more was a step, and offsets mean nothing across it."""


@dataclass(frozen=True)
class CycleResult:
    """One guest's cycle, measured. None where it could not be.

    before, at_resume, final: guest REALTIME minus host REALTIME at the stop, at the resume before
    anything repaired it, and at the end of the watch.
    drift_before, drift_after: of REALTIME. phi_ppm: the drift bound that the widening used.
    """

    observation: Observation
    phi_ppm: float
    pause: Pause | None
    before: Interval | None
    at_resume: Interval | None
    final: Interval | None
    mechanism: ResyncMechanism
    predicted: str
    resync: ResyncResult | None
    drift_before: Drift | None
    drift_after: Drift | None
    problems: tuple[str, ...]

    @property
    def boot_id_unchanged(self) -> bool | None:
        first, last = self.observation.facts_before, self.observation.facts_after
        return None if first is None or last is None else first.boot_id == last.boot_id


def _bound_ppm(seen: Drift | None) -> float:
    return UNKNOWN_DRIFT_PPM if seen is None else max(PHI_PPM, seen.largest_ppm)


def _steps_after(obs: Observation, resume_guest_raw: Interval | None) -> list[ClockStep] | None:
    """Steps of the guest's REALTIME after the resume; None when nobody watched."""
    if obs.sampler is None or resume_guest_raw is None:
        return None
    return [s for s in obs.sampler.steps if s.at_raw_ns >= resume_guest_raw.low_ns]


def _at_resume(
    before: Interval | None,
    lag: Interval | None,
    after: Sequence[Sample],
    untouched_until_raw: int,
    at_raw_ns: int,
    phi_ppm: float,
) -> tuple[Interval | None, str]:
    """The offset at the resume: carried over the pause (before minus lag) and read directly before
    the first step, intersected. The second wins a contradiction, and the contradiction is told."""
    carried = before - lag if before is not None and lag is not None else None
    early = [s for s in after if s.to_raw_ns < untouched_until_raw]
    direct = offset_at(early, at_raw_ns, phi_ppm)
    if carried is None or direct is None:
        return direct if carried is None else carried, ""
    both = intersect((carried, direct))
    if both is None:
        return direct, "the guest's REALTIME moved by itself between stop and resume"
    return both, ""


def _last_straight(given: Sequence[Sample], from_raw_ns: int) -> tuple[list[Sample], Drift | None]:
    """The longest late part of the samples from `from_raw_ns` on that one line explains."""
    part = [s for s in given if s.from_raw_ns >= from_raw_ns]
    while len(part) >= 4:
        found = drift(part)
        if found is not None:
            return part, found
        part = part[len(part) // 2 :]
    return part, None


def measure(obs: Observation, mechanism: ResyncMechanism, expect: Expectations) -> CycleResult:
    """All that can be said of one guest's cycle."""
    problems = list(obs.problems)
    stop, resume = obs.stop, obs.resume
    if stop is None or resume is None:
        why = "" if problems else "the guest was not frozen and resumed"
        return CycleResult(
            obs, PHI_PPM, None, None, None, None, mechanism, "", None, None, None, (*problems, *filter(None, [why]))
        )
    if abs(obs.host_step_ns) > HOST_STEP_NS:
        problems.append(f"the host's REALTIME was stepped by {obs.host_step_ns / NS_PER_MS:.1f} ms in the cycle")

    early, late = before_and_after(obs.readings, stop, resume)
    phi = _bound_ppm(drift(samples(early, GuestClock.RAW)))
    pause = measure_pause(obs.readings, obs.beats, obs.sampler, stop, resume, phi, obs.frozen)

    real_early, real_late = samples(early, GuestClock.REAL), samples(late, GuestClock.REAL)
    quiet, drift_before = _last_straight(real_early, 0)
    if quiet and len(quiet) < len(real_early):
        problems.append("the guest's clock was moved while it was measured before the freeze")
    phi_real = _bound_ppm(drift_before)
    before = offset_at(quiet, stop.called.raw_ns, phi_real)

    raw_at_resume = offset_at(samples(late, GuestClock.RAW), resume.returned.raw_ns, phi)
    resume_guest = None if raw_at_resume is None else raw_at_resume.shifted(resume.called.raw_ns)
    steps = _steps_after(obs, resume_guest)
    lag = pause.witnesses.get(Witness.LAG)
    first_step = min((s.at_raw_ns for s in steps), default=None) if steps is not None else None
    if steps is None:
        untouched = 0
    elif first_step is None or raw_at_resume is None:
        untouched = resume.returned.raw_ns + NS_PER_S // 4
    else:
        untouched = first_step - raw_at_resume.high_ns - (obs.sampler.floor_ns if obs.sampler else 0)
    at_resume, said = _at_resume(before, lag, real_late, untouched, resume.returned.raw_ns, phi_real)
    problems += filter(None, [said])

    first_try = measure_resync(
        real_late, resume.returned.raw_ns, at_resume, None, steps, expect.tolerance_ns, expect.hold_ns
    )
    settled = resume.returned.raw_ns
    if steps and raw_at_resume is not None:
        settled = max(settled, max(s.at_raw_ns for s in steps) - raw_at_resume.low_ns)
    elif first_try.time is not None:
        settled += first_try.time.high_ns
    straight, drift_after = _last_straight(real_late, settled)
    last = real_late[-1] if real_late else None
    final = None
    if last is not None:
        final = offset_at(straight, last.to_raw_ns, _bound_ppm(drift_after)) if drift_after else last.offset
    resync = measure_resync(
        real_late, resume.returned.raw_ns, at_resume, final, steps, expect.tolerance_ns, expect.hold_ns
    )
    predicted = predict(mechanism, pause.pause.mid_ns, obs.frozen and obs.method.expected_regime is Regime.RESUMED)
    return CycleResult(
        obs, phi, pause, before, at_resume, final, mechanism, predicted, resync, drift_before, drift_after,
        tuple(problems),
    )  # fmt: skip


def measure_all(observations: Sequence[Observation], plan: Plan) -> list[CycleResult]:
    return [measure(o, plan.resync, plan.expectations) for o in observations]
