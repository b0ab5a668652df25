"""The lab's measurement error on this host, from pauses of known length that are measured without that
knowledge.

A calibration is a function of a run's history. The run's cycles are of three kinds:

    control   the guest is not stopped: what is reported is the noise floor
    sigstop   a signal stops the guest's QEMU: all its threads from the end of the stop call to the start of
              the call that continued them, none before the former and after the latter. The guest's clocks
              run on (regime jumped)
    suspend   QEMU's own stop and cont. It stamps both, when it has stopped the guest and before it lets it go
              (softmmu/cpus.c, do_vm_stop and vm_prepare_start). The clocks stand still (regime resumed)

What is calibrated is the guest's side alone: lag, gap and silence, and what lab.core.pause makes of them. The
calls tell between which two readings the pause lies, never how long it was. So the known pause and the
measured one have nothing in common but the host's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import exp, lgamma, log

from lab.core.clock import GuestClock, Interval, intersect
from lab.core.judge import measure
from lab.core.method import FreezeMethod, Regime
from lab.core.offsets import Rate, offset_at, samples
from lab.core.pause import inside_regime
from lab.core.plan import Expectations, ResyncMechanism
from lab.core.rates import known_rates, rates
from lab.core.stats import quantile
from lab.core.timeline import Call, Observation
from lab.core.units import NS_PER_S
from lab.core.witnesses import (
    before_and_after,
    gap_witness,
    hypervisor_witness,
    lag_witness,
    silence_witness,
    stamps_apart,
)

VALID_NS = 30 * 24 * 3600 * NS_PER_S
"""How long a calibration is valid. Nothing in it ages, but libraries and the load of the host change
unnoticed."""


@dataclass(frozen=True)
class Value:
    """A length in nanoseconds: the best value, and the interval that contains the truth."""

    value_ns: int
    interval: Interval


@dataclass(frozen=True)
class Shot:
    """One injected pause. asked_ns: the requested length. known: its true length. measured: the length from
    the guest's side alone; None when that has none."""

    method: FreezeMethod
    asked_ns: int
    known: Value
    measured: Value | None

    @property
    def error_ns(self) -> int | None:
        """The measured length minus the known one, at their best values."""
        return None if self.measured is None else self.measured.value_ns - self.known.value_ns


@dataclass(frozen=True)
class Accuracy:
    """Statistics of the errors of several pauses, in nanoseconds.

    count: pauses with a measurement; lost: pauses without one. bias_ns: the median error, with its 95 %
    limits (None: too few). low_ns, high_ns: the 95 % range of the errors, by order statistics (of fewer than
    40 pauses: the smallest and the largest). met: the number of pauses whose interval overlaps the known one,
    so that it may contain the truth; contained: the number whose interval contains all of the known one, so
    that it certainly does. coverage_low: lower limit of the share of pauses that are met, with a confidence
    of 95 %. width_ns: the median width of the measured intervals.
    """

    count: int
    lost: int
    bias_ns: int
    bias_low_ns: int | None
    bias_high_ns: int | None
    low_ns: int
    high_ns: int
    met: int
    contained: int
    coverage_low: float
    width_ns: int

    @property
    def coverage(self) -> float:
        """The share of the measured intervals that may contain the truth."""
        return self.met / self.count

    @property
    def spread_ns(self) -> int:
        return self.high_ns - self.low_ns


@dataclass(frozen=True)
class Noise:
    """Results of cycles without a pause. hole_ns: the largest hole in the guest's sampler. pause_ns: the
    largest pause that the guest's side would report; bound_ns: its largest upper bound."""

    cycles: int
    hole_ns: int
    pause_ns: int
    bound_ns: int


@dataclass(frozen=True)
class Figures:
    """A calibration. parts: by method and length. offset_bound_ns: half the width of an offset of a guest's
    REALTIME at rest, the median."""

    all: Accuracy
    parts: tuple[tuple[FreezeMethod, int, Accuracy], ...]
    noise: Noise | None
    offset_bound_ns: int | None


@dataclass(frozen=True)
class CalibratedMachine:
    """The facts about the host that a calibration depends on. id: a digest of the machine's id."""

    id: str
    cpu: str
    kernel: str
    qemu: str
    accelerator: str


def stale_why(made_real_ns: int, machine: CalibratedMachine, now_real_ns: int, now: CalibratedMachine) -> str:
    """Why a calibration of `machine`, made at host REALTIME `made_real_ns`, is not valid for `now`; "" when
    it is."""
    if machine.id != now.id:
        return "it is of another machine"
    for name in ("cpu", "kernel", "qemu", "accelerator"):
        then, is_now = getattr(machine, name), getattr(now, name)
        if then != is_now:
            label = {"cpu": "CPU", "qemu": "QEMU"}.get(name, name)
            return f"another {label} since: {is_now or 'unknown'}, then {then or 'unknown'}"
    age = now_real_ns - made_real_ns
    if age > VALID_NS:
        return f"it is {age // (24 * 3600 * NS_PER_S)} days old"
    return "it is from the future, because the host's clock was set back" if age < 0 else ""


def known_pause(obs: Observation) -> Value | None:
    """The injected pause, from the host's stamps alone; None when there was none."""
    if not obs.frozen or obs.stop is None or obs.resume is None:
        return None
    interval = hypervisor_witness(obs.stop, obs.resume)
    stamps = stamps_apart(obs.stop, obs.resume)
    if stamps is not None:
        return Value(min(interval.high_ns, max(interval.low_ns, stamps.mid_ns)), interval)
    return Value(interval.mid_ns, interval)


def from_inside(obs: Observation, known: Rate | None = None) -> tuple[Value, int] | None:
    """The pause as the guest's side alone has it, and the largest hole in its sampler around it; None when
    a witness is missing. known: the rate of the guest's MONOTONIC_RAW, from elsewhere.

    It is at least what lag and gap certainly are, at most what both may be, and no longer than the silence.
    Where lag explains it all (regime resumed, by the lab's own rule) it is the lag. Best value: the lag where
    the clock certainly stood still; else the hole, if there is one at all, less half the usual distance of
    two samples (a pause begins anywhere between two).
    """
    if obs.stop is None or obs.resume is None or obs.sampler is None:
        return None
    early, late = before_and_after(obs.readings, obs.stop, obs.resume)
    if not early or not late:
        return None
    # All that is used of the calls: the last reading before and the first one after the pause.
    between = Call(early[-1].t4, late[0].t1)
    raw_early, raw_late = samples(early, GuestClock.RAW), samples(late, GuestClock.RAW)
    before, after = rates(raw_early, raw_late, known)
    lag = lag_witness(raw_early, raw_late, between, between, before, after)
    at_stop = offset_at(raw_early, between.called.raw_ns, rate=before)
    at_resume = offset_at(raw_late, between.returned.raw_ns, rate=after)
    if lag is None or at_stop is None or at_resume is None:
        return None
    stop_guest, resume_guest = (
        at_stop.shifted(between.called.raw_ns),
        at_resume.shifted(between.returned.raw_ns),
    )
    gap_and_noise = gap_witness(obs.sampler, stop_guest, resume_guest)
    if gap_and_noise is None:
        return None
    hole, _elsewhere = gap_and_noise
    gap = before.or_rate(after).host_time(hole)
    stood = Interval(max(0, lag.low_ns), max(0, lag.high_ns))
    whole = stood + gap
    silence = silence_witness(obs.beats, between, between, min(r.round_trip_ns for r in obs.readings))
    if silence is not None:
        whole = Interval(whole.low_ns, max(whole.low_ns, min(whole.high_ns, silence.high_ns)))
    regime = inside_regime(whole, lag, gap, obs.sampler)
    if regime is Regime.RESUMED:
        whole = intersect((whole, lag)) or whole
    half = obs.sampler.usual_ns // 2
    if lag.low_ns > 0:
        value = lag.mid_ns + (hole.high_ns - half if gap.low_ns > 0 else 0)
    else:
        value = hole.high_ns - half if hole.high_ns > obs.sampler.floor_ns else 0
    return Value(min(whole.high_ns, max(whole.low_ns, value)), whole), hole.high_ns


def _probability_at_most(k: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= k)."""
    if p <= 0.0 or k >= n:
        return 1.0
    if p >= 1.0:
        return 0.0
    terms = (
        exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log(1 - p))
        for i in range(k + 1)
    )
    return list(accumulate(terms))[-1]


def share_at_least(hits: int, of: int, confidence: float = 0.95) -> float:
    """The lower limit of a share that gave `hits` in `of` trials (Clopper and Pearson 1934, one-sided): the
    largest p below which so many hits have a probability of at most 1 - confidence. 0 without trials."""
    if hits <= 0 or of <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if 1 - _probability_at_most(hits - 1, of, middle) > 1 - confidence:
            high = middle
        else:
            low = middle
    return low


def accuracy(shots: Sequence[Shot]) -> Accuracy | None:
    """Statistics of the shots; None when none was measured."""
    pairs = [(shot.known, shot.measured) for shot in shots if shot.measured is not None]
    if not pairs:
        return None
    errors = [measured.value_ns - known.value_ns for known, measured in pairs]
    bias = quantile(errors, 0.5)
    met = sum(measured.interval.meets(known.interval) for known, measured in pairs)
    contained = sum(
        known.interval.low_ns in measured.interval and known.interval.high_ns in measured.interval
        for known, measured in pairs
    )
    widths = [measured.interval.high_ns - measured.interval.low_ns for _known, measured in pairs]
    return Accuracy(
        count=len(pairs),
        lost=len(shots) - len(pairs),
        bias_ns=round(bias.value),
        bias_low_ns=None if bias.low is None else round(bias.low),
        bias_high_ns=None if bias.high is None else round(bias.high),
        low_ns=round(quantile(errors, 0.025).value),
        high_ns=round(quantile(errors, 0.975).value),
        met=met,
        contained=contained,
        coverage_low=share_at_least(met, len(pairs)),
        width_ns=round(quantile(widths, 0.5).value),
    )


def _noise(found: Sequence[tuple[Value, int]]) -> Noise | None:
    if not found:
        return None
    return Noise(
        len(found),
        max(hole for _value, hole in found),
        max(value.value_ns for value, _hole in found),
        max(value.interval.high_ns for value, _hole in found),
    )


def calibrate(observations: Sequence[tuple[int, Observation]]) -> Figures | None:
    """The calibration from all cycles of a run on one guest: (requested length, observation). None when no
    pause was measured. The guest is the same throughout, whatever cells its cycles belong to."""
    one = [replace(obs, cell="") for _asked, obs in observations]
    rate_of = known_rates(one)
    shots: list[Shot] = []
    quiet: list[tuple[Value, int]] = []
    bounds: list[int] = []
    for (asked, _), obs in zip(observations, one, strict=True):
        rate = None
        if obs.facts_before is not None:
            rate = rate_of.get(("", obs.guest, obs.facts_before.boot_id))
        before = measure(obs, ResyncMechanism.NONE, Expectations(), rate).before
        if before is not None:
            bounds.append(before.half_width_ns)
        inside, known = from_inside(obs, rate), known_pause(obs)
        if known is not None:
            shots.append(Shot(obs.method, asked, known, None if inside is None else inside[0]))
        elif not obs.frozen and inside is not None:
            quiet.append(inside)
    everything = accuracy(shots)
    if everything is None:
        return None
    parts = []
    for method, asked in sorted({(shot.method, shot.asked_ns) for shot in shots}):
        part = accuracy([shot for shot in shots if (shot.method, shot.asked_ns) == (method, asked)])
        if part is not None:
            parts.append((method, asked, part))
    bound = round(quantile(bounds, 0.5).value) if bounds else None
    return Figures(everything, tuple(parts), _noise(quiet), bound)
