"""The cycle of a guest that was shut down and started again."""

from __future__ import annotations

from lab.core.clock import GuestClock
from lab.core.clock_disturbance import host_step, moved
from lab.core.offsets import Rate, real_samples, samples, smoothed
from lab.core.plan import CycleSpec, Expectations, ResyncMechanism
from lab.core.rates import UNKNOWN_DRIFT_PPM, last_drift, rate_of
from lab.core.rescue import CUT_OFF
from lab.core.result import CycleResult
from lab.core.resync import measure_resync
from lab.core.steps import dated, first_sign, parts
from lab.core.timeline import Observation
from lab.core.timesync.rules import BOOTED
from lab.core.witnesses import before_and_after


def rebooted(
    obs: Observation, mechanism: ResyncMechanism, expect: Expectations, spec: CycleSpec | None
) -> CycleResult:
    """The result for a guest that was shut down and started again. Its clocks before and after are unrelated,
    so there is no pause; the resync counts from the start."""
    stop, resume = obs.stop, obs.resume
    problems = [*obs.problems, *host_step(obs)]
    disturbed = CUT_OFF if obs.unfinished else ""
    if stop is None or resume is None:
        why = tuple(problems) or ("the guest was not shut down and restarted",)
        return CycleResult(obs, mechanism, why, spec=spec, disturbed=disturbed)
    early, late = before_and_after(obs.readings, stop, resume)
    raw_early, raw_late = samples(early, GuestClock.RAW), samples(late, GuestClock.RAW)
    unknown = Rate.within(UNKNOWN_DRIFT_PPM)
    one, two = rate_of(raw_early) or unknown, rate_of(raw_late) or unknown
    real_early = real_samples(early, smoothed(raw_early, one))
    real_late = real_samples(late, smoothed(raw_late, two))
    if moved(early):
        problems.append("the guest's clock was stepped during the measurement before the shutdown")
    first = real_late[0].offset if real_late else None
    final = real_late[-1].offset if real_late else None
    sign = first_sign(obs.beats, late, None, resume.called.raw_ns)
    return CycleResult(
        observation=obs,
        mechanism=mechanism,
        problems=tuple(problems),
        phi_ppm=max(one.largest_ppm, two.largest_ppm),
        before=real_early[-1].offset if real_early else None,
        at_resume=first,
        final=final,
        forecast=BOOTED,
        resync=measure_resync(
            real_late, resume.returned.raw_ns, first, final, None, expect.tolerance_ns, expect.hold_ns
        ),
        drift_before=last_drift(real_early),
        drift_after=last_drift(real_late),
        spec=spec,
        steps=parts(obs, sign, dated(sign, raw_late, two)),
        outage_ns=None if sign is None else sign.arrived.raw_ns - stop.called.raw_ns,
        disturbed=disturbed,
    )
