"""From what was observed to what is claimed: one guest's cycle measured, then held against the
expectations. Pure, so an old run can be judged again from its history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.core.clock import PHI_PPM, GuestClock, Interval
from lab.core.drift import Drift, drift
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
from lab.core.pause import Pause, Witness, before_and_after, measure_pause
from lab.core.plan import Expectations, Plan, Regime, ResyncMechanism
from lab.core.resync import ResyncResult, measure_resync, predict
from lab.core.timeline import ClockStep, Observation, Reading, SamplerReport
from lab.core.units import NS_PER_MS

UNKNOWN_DRIFT_PPM = 500.0
"""How far an undisciplined clock may be off, where the readings do not tell better: crystals are good to
100 ppm, a guest's calibration of its clock to some hundred."""

HOST_STEP_NS = 1 * NS_PER_MS
"""What the host's REALTIME moved against its MONOTONIC_RAW in a cycle beyond this, and beyond what NTP may
slew it by, was a step: offsets before and after it do not compare."""

STEP_FLOOR_NS = NS_PER_MS // 2
STEP_SHARE = 8
"""STEP_FLOOR_NS and STEP_SHARE of lab/guest/payload.py: smaller steps look like slews to the sampler."""


@dataclass(frozen=True)
class CycleResult:
    """One guest's cycle, measured. None where it could not be.

    before, at_resume, final: guest REALTIME minus host REALTIME at the last reading before the stop, at
    the resume (or the first reading after it, where that is known better) before anything repaired it,
    and at the last reading of the watch.
    drift_before, drift_after: of REALTIME. phi_ppm: the drift bound that the widening used.
    """

    observation: Observation
    mechanism: ResyncMechanism
    problems: tuple[str, ...]
    phi_ppm: float = PHI_PPM
    pause: Pause | None = None
    before: Interval | None = None
    at_resume: Interval | None = None
    final: Interval | None = None
    predicted: str = ""
    resync: ResyncResult | None = None
    drift_before: Drift | None = None
    drift_after: Drift | None = None

    @property
    def boot_id_unchanged(self) -> bool | None:
        first, last = self.observation.facts_before, self.observation.facts_after
        return None if first is None or last is None else first.boot_id == last.boot_id


def _rate(given: Sequence[Sample]) -> Rate | None:
    """The rate of an offset that nobody steps or slews; None when the samples do not tell it."""
    free = smoothed(given, Rate.within(UNKNOWN_DRIFT_PPM + PHI_PPM))
    seen = drift(free) if free else None
    if seen is None or seen.low > UNKNOWN_DRIFT_PPM or seen.high < -UNKNOWN_DRIFT_PPM:
        return None
    return Rate(max(seen.low, -UNKNOWN_DRIFT_PPM), min(seen.high, UNKNOWN_DRIFT_PPM))


def _rates(early: Sequence[Sample], late: Sequence[Sample], known: Rate | None = None) -> tuple[Rate, Rate]:
    """The rates of the guest's MONOTONIC_RAW before and after the pause. An oscillator keeps its rate
    over a pause, so both windows bound it together, and with them what is `known` from other cycles;
    PHI is for what it wanders."""
    unknown = Rate.within(UNKNOWN_DRIFT_PPM)
    one, two = _rate(early) or unknown, _rate(late) or unknown
    if together := _common(one, two):
        one = two = together
    if known is not None:
        one, two = _common(one, known) or one, _common(two, known) or two
    return (
        Rate(one.low_ppm - PHI_PPM, one.high_ppm + PHI_PPM),
        Rate(two.low_ppm - PHI_PPM, two.high_ppm + PHI_PPM),
    )


def _common(one: Rate, two: Rate) -> Rate | None:
    low, high = max(one.low_ppm, two.low_ppm), min(one.high_ppm, two.high_ppm)
    return Rate(low, high) if low <= high else None


def _looked_before(step: ClockStep, sampler: SamplerReport) -> int:
    """The guest's MONOTONIC_RAW at the look before the one that saw the step."""
    for hole in sampler.holes:
        if hole.to_raw_ns == step.at_raw_ns:
            return hole.from_raw_ns
    return step.at_raw_ns - sampler.floor_ns


def _steps_after(obs: Observation, resume_guest_raw: Interval | None) -> list[ClockStep] | None:
    """Steps of the guest's REALTIME after the resume; None when nobody watched."""
    if obs.sampler is None or resume_guest_raw is None:
        return None
    return [s for s in obs.sampler.steps if s.at_raw_ns >= resume_guest_raw.low_ns]


def _moved(readings: Sequence[Reading]) -> bool:
    """Whether the guest's REALTIME was certainly stepped between two of the readings."""
    for earlier, later in pairwise(readings):
        most = later.t3[GuestClock.RAW] - earlier.t2[GuestClock.RAW]
        if 0 not in (apart(later) - apart(earlier)).widened(ageing_ns(max(0, most), SLEW_PPM)):
            return True
    return False


def _at_resume(
    early: Sequence[Reading],
    late: Sequence[Reading],
    raw_at_resume: Interval | None,
    lag: Interval | None,
    after: Sequence[Sample],
    obs: Observation,
    steps: Sequence[ClockStep] | None,
    resume_guest: Interval | None,
) -> tuple[Interval | None, str]:
    """The offset at the resume, before anything repaired it: carried over the pause, and read directly
    where no step came before the first reading. A contradiction between the two is
    told, and the direct one wins.

    A step in the very hole that the pause made may have come before the stop or after the resume. It is
    taken for a repair after it when it left less than a tenth of what was carried: before, it would have
    had to know how long the pause was going to be. Else nothing is said. What is not seen is a second,
    smaller step in the milliseconds between the sampler's last look and the stop.
    """
    stop, resume, sampler = obs.stop, obs.resume, obs.sampler
    if stop is None or resume is None or sampler is None or steps is None or not late:
        return None, ""  # nobody watched for steps: the first reading may be of a repaired clock
    direct = after[0].offset
    carried = None
    if early and raw_at_resume is not None and lag is not None and resume_guest is not None:
        # guest REAL - host REAL = (guest REAL - guest RAW) + (guest RAW - host RAW) - (host REAL - host RAW):
        # the first as it was before, the others as they are now. Only the second has a network in it.
        ran = resume.returned.raw_ns - early[-1].t1.raw_ns - max(0, lag.low_ns)
        within = apart(early[-1]).widened(ageing_ns(max(0, ran), SLEW_PPM))
        carried = within + raw_at_resume - host_apart(resume.called, resume.returned)
        last = early[-1].t2[GuestClock.RAW]
        unclear = [
            s
            for s in sampler.steps
            if s.at_raw_ns > last and _looked_before(s, sampler) <= resume_guest.high_ns
        ]
        repaired = direct.largest_ns * 10 <= carried.smallest_ns
        seen_after = all(s.at_raw_ns >= resume_guest.low_ns for s in unclear)
        if unclear and not (obs.frozen and repaired and seen_after):
            carried = None
    if any(late[0].t3[GuestClock.RAW] > _looked_before(s, sampler) for s in steps):
        return carried, ""
    if carried is None:
        return direct, ""
    # A slew, or a step too small for the sampler to tell from one, may lie between the two.
    since = max(0, late[0].t4.raw_ns - resume.called.raw_ns)
    if direct.meets(carried.widened(STEP_FLOOR_NS + since // STEP_SHARE)):
        return min(direct, carried, key=lambda interval: interval.half_width_ns), ""
    then, now = host_apart(resume.called, resume.returned), host_apart(late[0].t1, late[0].t4)
    if abs(now.mid_ns - then.mid_ns) > HOST_STEP_NS:
        return carried, ""  # the host's own clock was stepped in between, which is told elsewhere
    return direct, "the guest's REALTIME moved by itself between stop and resume"


def _last_drift(given: Sequence[Sample], from_raw_ns: int = 0) -> Drift | None:
    """The drift over the longest late part of the samples from `from_raw_ns` on that one line explains."""
    part = [s for s in given if s.from_raw_ns >= from_raw_ns]
    while len(part) >= 4:
        found = drift(part)
        if found is not None:
            return found
        part = part[len(part) // 2 :]
    return None


def _host_step(obs: Observation) -> list[str]:
    """The problem that the host's own REALTIME was stepped in the cycle, if it was."""
    span = obs.readings[-1].t4.raw_ns - obs.readings[0].t1.raw_ns if obs.readings else 0
    if abs(obs.host_step_ns) <= HOST_STEP_NS + ageing_ns(max(0, span), HOST_SLEW_PPM):
        return []
    return [f"the host's REALTIME was stepped by {obs.host_step_ns / NS_PER_MS:.1f} ms in the cycle"]


def measure(
    obs: Observation, mechanism: ResyncMechanism, expect: Expectations, known: Rate | None = None
) -> CycleResult:
    """All that can be said of one guest's cycle. known: the rate of its MONOTONIC_RAW, from elsewhere."""
    problems = list(obs.problems)
    stop, resume = obs.stop, obs.resume
    if stop is None or resume is None:
        return CycleResult(obs, mechanism, tuple(problems) or ("the guest was not frozen and resumed",))
    early, late = before_and_after(obs.readings, stop, resume)
    problems += _host_step(obs)
    raw_early, raw_late = samples(early, GuestClock.RAW), samples(late, GuestClock.RAW)
    rates = _rates(raw_early, raw_late, known)
    phi = max(rate.largest_ppm for rate in rates)
    pause = measure_pause(obs.readings, obs.beats, obs.sampler, stop, resume, obs.frozen, rates)
    lag = pause.witnesses.get(Witness.LAG)

    real_early = real_samples(early, smoothed(raw_early, rates[0]))
    real_late = real_samples(late, smoothed(raw_late, rates[1]))
    if _moved(early):
        problems.append("the guest's clock was stepped while it was measured before the freeze")
    before = real_early[-1].offset if real_early else None
    final = real_late[-1].offset if real_late else None
    drift_before = _last_drift(real_early)

    raw_at_resume = offset_at(raw_late, resume.returned.raw_ns, rate=rates[1])
    resume_guest = None
    if raw_at_resume is not None:
        edge = ageing_ns(resume.returned.raw_ns - resume.called.raw_ns, phi)
        resume_guest = Interval(
            resume.called.raw_ns + raw_at_resume.low_ns - edge, resume.returned.raw_ns + raw_at_resume.high_ns
        )
    steps = _steps_after(obs, resume_guest)
    at_resume, said = _at_resume(early, late, raw_at_resume, lag, real_late, obs, steps, resume_guest)
    problems += filter(None, [said])

    resync = measure_resync(
        real_late, resume.returned.raw_ns, at_resume, final, steps, expect.tolerance_ns, expect.hold_ns
    )
    settled = resume.returned.raw_ns
    if steps and raw_at_resume is not None:
        settled = max(settled, max(s.at_raw_ns for s in steps) - raw_at_resume.low_ns)
    elif resync.time is not None:
        settled += resync.time.high_ns
    drift_after = _last_drift(real_late, settled)
    predicted = predict(
        mechanism, pause.pause.mid_ns, obs.frozen and obs.method.expected_regime is Regime.RESUMED
    )
    return CycleResult(
        observation=obs,
        mechanism=mechanism,
        problems=tuple(problems),
        phi_ppm=phi,
        pause=pause,
        before=before,
        at_resume=at_resume,
        final=final,
        predicted=predicted,
        resync=resync,
        drift_before=drift_before,
        drift_after=drift_after,
    )


def _known_rates(observations: Sequence[Observation]) -> dict[tuple[str, str], Rate | None]:
    """What all cycles of one boot of a guest say together about the rate of its MONOTONIC_RAW; None where
    they contradict each other. Keys: guest and boot_id."""
    known: dict[tuple[str, str], Rate | None] = {}
    for obs in observations:
        if obs.facts_before is None or obs.stop is None or obs.resume is None:
            continue
        key = obs.guest, obs.facts_before.boot_id
        for part in before_and_after(obs.readings, obs.stop, obs.resume):
            seen, so_far = _rate(samples(part, GuestClock.RAW)), known.get(key)
            if key in known and so_far is None:
                break
            if seen is not None:
                known[key] = seen if so_far is None else _common(seen, so_far)
    return known


def measure_all(observations: Sequence[Observation], plan: Plan) -> list[CycleResult]:
    """All cycles, each with what the others know of its guest's clock."""
    known = _known_rates(observations) if len(observations) > 1 else {}
    return [
        measure(
            obs,
            plan.resync,
            plan.expectations,
            known.get((obs.guest, obs.facts_before.boot_id)) if obs.facts_before else None,
        )
        for obs in observations
    ]
