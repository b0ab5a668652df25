"""The rate of a guest's clock, from one window, from one boot, and from all of its cycles together."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.clock import PHI_PPM, GuestClock
from lab.core.drift import Drift, drift
from lab.core.offsets import SLEW_PPM, Rate, Sample, samples, smoothed
from lab.core.timeline import Observation
from lab.core.witnesses import before_and_after

UNKNOWN_DRIFT_PPM = 500.0
"""The largest drift of an undisciplined clock where readings do not bound it better: crystals are good to 100
ppm, a guest's calibration of its clock to some hundred."""


def rate_of(given: Sequence[Sample]) -> Rate | None:
    """The rate of an offset that nothing steps or slews; None when the samples do not determine it."""
    free = smoothed(given, Rate.within(UNKNOWN_DRIFT_PPM + PHI_PPM))
    rate = drift(free) if free else None
    if rate is None or rate.low > UNKNOWN_DRIFT_PPM or rate.high < -UNKNOWN_DRIFT_PPM:
        return None
    return Rate(max(rate.low, -UNKNOWN_DRIFT_PPM), min(rate.high, UNKNOWN_DRIFT_PPM))


def rates(early: Sequence[Sample], late: Sequence[Sample], known: Rate | None = None) -> tuple[Rate, Rate]:
    """The rates of the guest's MONOTONIC_RAW before and after the pause. An oscillator keeps its rate over a
    pause, so both windows and the rate `known` from other cycles bound it together; PHI allows for its
    wander."""
    unknown = Rate.within(UNKNOWN_DRIFT_PPM)
    one, two = rate_of(early) or unknown, rate_of(late) or unknown
    if together := common(one, two):
        one = two = together
    if known is not None:
        one, two = common(one, known) or one, common(two, known) or two
    return (
        Rate(one.low_ppm - PHI_PPM, one.high_ppm + PHI_PPM),
        Rate(two.low_ppm - PHI_PPM, two.high_ppm + PHI_PPM),
    )


SLEWED = Rate.within(SLEW_PPM + UNKNOWN_DRIFT_PPM)
"""The rate of MONOTONIC and BOOTTIME: any time daemon may slew them, together with REALTIME."""


def is_slewed(obs: Observation) -> bool:
    """Whether the steadiest clock that was read may be slewed."""
    return obs.facts_before is not None and obs.facts_before.steady != GuestClock.RAW


def steady_rates(
    obs: Observation, early: Sequence[Sample], late: Sequence[Sample], known: Rate | None
) -> tuple[Rate, Rate]:
    """The rates of the guest's steadiest clock before and after the pause; see rates(). One that may be
    slewed has no rate that readings could bound: a daemon changes it between two of them."""
    return (SLEWED, SLEWED) if is_slewed(obs) else rates(early, late, known)


def common(one: Rate, two: Rate) -> Rate | None:
    low, high = max(one.low_ppm, two.low_ppm), min(one.high_ppm, two.high_ppm)
    return Rate(low, high) if low <= high else None


def last_drift(given: Sequence[Sample], from_raw_ns: int = 0) -> Drift | None:
    """The drift over the longest final part of the samples from `from_raw_ns` on through which one line
    passes."""
    part = [s for s in given if s.from_raw_ns >= from_raw_ns]
    while len(part) >= 4:
        found = drift(part)
        if found is not None:
            return found
        part = part[len(part) // 2 :]
    return None


def known_rates(observations: Sequence[Observation]) -> dict[tuple[str, str, str], Rate | None]:
    """The rate of the guest's MONOTONIC_RAW from all cycles of one boot together; None where they contradict
    each other. Keys: cell, guest and boot_id."""
    known: dict[tuple[str, str, str], Rate | None] = {}
    for obs in observations:
        if obs.facts_before is None or obs.stop is None or obs.resume is None:
            continue
        key = obs.cell, obs.guest, obs.facts_before.boot_id
        windows = before_and_after(obs.readings, obs.stop, obs.resume)
        # After a reboot it is another clock.
        for part in windows[:1] if obs.method.boots_anew else windows:
            rate, so_far = rate_of(samples(part, GuestClock.RAW)), known.get(key)
            if key in known and so_far is None:
                break
            if rate is not None:
                known[key] = rate if so_far is None else common(rate, so_far)
    return known
