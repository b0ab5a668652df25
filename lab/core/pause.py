"""A pause from its four witnesses, and whether the books close (MEASURING.md, "A pause").

    hypervisor   what the host did: the calls that stopped and resumed the guest
    lag          how far the guest's MONOTONIC_RAW fell behind the host's over the pause
    gap          the hole in a sampler inside the guest
    silence      the absence of the guest's heartbeats at the host

Each is an interval. Closure: hypervisor = lag + gap, where a gap within the sampler's own noise
counts as none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.core.clock import PHI_PPM, GuestClock, Interval, intersect
from lab.core.offsets import Sample, ageing_ns, offset_at, samples
from lab.core.plan import Regime
from lab.core.timeline import Call, Heartbeat, Reading, SamplerReport

EVENT_RESOLUTION_NS = 1_000
"""QMP event time stamps have whole microseconds (QEMU, docs/interop/qmp-spec, "timestamp")."""


class Witness(StrEnum):
    HYPERVISOR = "hypervisor"
    LAG = "lag"
    GAP = "gap"
    SILENCE = "silence"


@dataclass(frozen=True)
class Pause:
    """A pause and what it rests on. All in nanoseconds of the host's MONOTONIC_RAW.

    pause: what all the witnesses in `agreeing` allow.
    regime: None when the bounds cannot tell.
    closure_ns: hypervisor - lag - gap at their best values; closure: the interval that it lies in.
    closes: zero lies in that interval.
    disagreeing: witnesses that contradict `pause` and were left out of it.
    """

    pause: Interval
    regime: Regime | None
    witnesses: dict[Witness, Interval]
    agreeing: tuple[Witness, ...]
    disagreeing: tuple[Witness, ...]
    closure_ns: int | None
    closure: Interval | None
    closes: bool
    noise_ns: int | None

    @property
    def unaccounted_ns(self) -> int:
        """The smallest time that lag and gap leave unexplained (negative: explained twice)."""
        if self.closure is None or self.closes:
            return 0
        return self.closure.low_ns if self.closure.low_ns > 0 else self.closure.high_ns


def hypervisor_witness(stop: Call, resume: Call) -> Interval:
    """[resume called - stop returned, resume returned - stop called]. QEMU emits STOP after the
    vCPUs have stopped and RESUME before they start (softmmu/cpus.c, do_vm_stop and
    vm_prepare_start), so RESUME - STOP is a lower bound as well, and mostly the better one."""
    low = resume.called.raw_ns - stop.returned.raw_ns
    high = resume.returned.raw_ns - stop.called.raw_ns
    if stop.event_raw_ns is not None and resume.event_raw_ns is not None:
        low = max(low, resume.event_raw_ns - stop.event_raw_ns - 2 * EVENT_RESOLUTION_NS)
    return Interval(max(0, min(low, high)), max(0, high))


def before_and_after(
    readings: Sequence[Reading], stop: Call, resume: Call
) -> tuple[list[Reading], list[Reading]]:
    """Readings whose guest stamps were certainly taken before the guest stopped, and those whose
    were certainly taken after it ran again. What was under way across an edge is in neither."""
    before = [r for r in readings if r.t4.raw_ns <= stop.returned.raw_ns]
    after = [r for r in readings if r.t1.raw_ns >= resume.called.raw_ns]
    return before, after


def lag_witness(
    before: Sequence[Sample], after: Sequence[Sample], stop: Call, resume: Call, phi_ppm: float, ran_ns: int
) -> Interval | None:
    """How long the guest's clock stood still: its offset at the stop minus that at the resume.

    ran_ns: guest time that may have passed in between, over which the clocks may have drifted.
    None without readings on both sides, or when one side contradicts itself.
    """
    at_stop = offset_at(before, stop.called.raw_ns, phi_ppm)
    at_resume = offset_at(after, resume.returned.raw_ns, phi_ppm)
    if at_stop is None or at_resume is None:
        return None
    edges = stop.returned.raw_ns - stop.called.raw_ns + resume.returned.raw_ns - resume.called.raw_ns
    return (at_stop - at_resume).widened(ageing_ns(ran_ns + edges, phi_ppm))


def gap_witness(
    report: SamplerReport, stop_guest: Interval, resume_guest: Interval
) -> tuple[Interval, int] | None:
    """The hole around the pause, and the largest hole elsewhere (the noise).

    stop_guest, resume_guest: the guest's MONOTONIC_RAW at the stop and at the resume. The true
    hole is at most what the sampler saw, and at least that less the usual distance of two samples
    and the noise. None when the sampler did not run through the pause.
    """
    if report.count < 2 or report.first_raw_ns > stop_guest.low_ns or report.last_raw_ns < resume_guest.high_ns:
        return None
    here, noise = report.floor_ns, report.floor_ns
    for hole in report.holes:
        around = hole.from_raw_ns <= resume_guest.high_ns and hole.to_raw_ns >= stop_guest.low_ns
        if around:
            here = max(here, hole.length_ns)
        else:
            noise = max(noise, hole.length_ns)
    return Interval(max(0, here - report.usual_ns - noise), here), noise


def silence_witness(
    beats: Sequence[Heartbeat], stop: Call, resume: Call, round_trip_ns: int
) -> Interval | None:
    """The longest absence of heartbeats that touches the pause. It exceeds the pause by up to the
    longest absence seen elsewhere and one way's delay. None without a heartbeat on both sides."""
    here = elsewhere = 0
    for earlier, later in zip(beats, beats[1:], strict=False):
        absence = later.arrived.raw_ns - earlier.arrived.raw_ns
        touches = earlier.arrived.raw_ns <= resume.returned.raw_ns and later.arrived.raw_ns >= stop.called.raw_ns
        if touches:
            here = max(here, absence)
        else:
            elsewhere = max(elsewhere, absence)
    if not here or not elsewhere:
        return None
    return Interval(max(0, here - elsewhere - round_trip_ns), here + round_trip_ns)


def _regime(host: Interval, lag: Interval, gap: Interval) -> tuple[Regime | None, Interval, int]:
    """The regime, the gap that counts under it, and its best value."""
    none = Interval(0, 0)
    if 0 not in lag and host.meets(lag):
        return Regime.RESUMED, none, 0
    if gap.low_ns > 0:
        if 0 in lag and host.meets(gap):
            return Regime.JUMPED, gap, gap.mid_ns
        if host.meets(lag + gap):
            return Regime.MIXED, gap, gap.mid_ns
    return None, Interval(0, gap.high_ns), 0


def measure_pause(
    readings: Sequence[Reading],
    beats: Sequence[Heartbeat],
    sampler: SamplerReport | None,
    stop: Call,
    resume: Call,
    phi_ppm: float = PHI_PPM,
    frozen: bool = True,
) -> Pause:
    """The pause between `stop` and `resume` from all that was observed around it.

    phi_ppm: bound of the guest's drift against the host. frozen: False for a control cycle, in
    which the host did not stop the guest. Never raises for missing observations:
    a witness that is missing is missing from `witnesses`, and then the pause does not close.
    """
    host = hypervisor_witness(stop, resume) if frozen else Interval(0, 0)
    witnesses = {Witness.HYPERVISOR: host}
    before, after = before_and_after(readings, stop, resume)
    raw_before, raw_after = samples(before, GuestClock.RAW), samples(after, GuestClock.RAW)
    round_trip = min((r.round_trip_ns for r in readings), default=0)

    silence = silence_witness(beats, stop, resume, round_trip)
    if silence is not None:
        witnesses[Witness.SILENCE] = silence

    gap_and_noise = None
    at_stop = offset_at(raw_before, stop.called.raw_ns, phi_ppm)
    at_resume = offset_at(raw_after, resume.returned.raw_ns, phi_ppm)
    if sampler is not None and at_stop is not None and at_resume is not None:
        stop_guest = Interval(
            stop.called.raw_ns + at_stop.low_ns, stop.returned.raw_ns + at_stop.high_ns
        )
        resume_guest = Interval(
            resume.called.raw_ns + at_resume.low_ns, resume.returned.raw_ns + at_resume.high_ns
        )
        gap_and_noise = gap_witness(sampler, stop_guest, resume_guest)
    noise = None
    if gap_and_noise is not None:
        witnesses[Witness.GAP], noise = gap_and_noise

    window = resume.returned.raw_ns - stop.called.raw_ns
    ran = witnesses[Witness.GAP].high_ns if frozen and Witness.GAP in witnesses else window
    lag = lag_witness(raw_before, raw_after, stop, resume, phi_ppm, ran)
    if lag is not None:
        witnesses[Witness.LAG] = lag

    if lag is None or gap_and_noise is None:
        return Pause(host, None, witnesses, (Witness.HYPERVISOR,), (), None, None, False, noise)

    if frozen:
        regime, counted, gap_value = _regime(host, lag, witnesses[Witness.GAP])
    else:
        regime, counted, gap_value = (Regime.RUNNING if 0 in lag else None), Interval(0, 0), 0
    closure = host - lag - counted
    closes = 0 in closure
    claims = {Witness.HYPERVISOR: host}
    if regime is Regime.RESUMED:
        claims[Witness.LAG] = lag
    elif regime is Regime.JUMPED:
        claims[Witness.GAP] = counted
    elif regime is Regime.MIXED:
        claims[Witness.LAG] = lag + counted
    if silence is not None and frozen:
        claims[Witness.SILENCE] = silence
    pause, agreeing, disagreeing = host, [], []
    for name, claim in claims.items():
        both = intersect((pause, claim))
        if both is None:
            disagreeing.append(name)
        else:
            pause = both
            agreeing.append(name)
    began, ended = stop.event_raw_ns, resume.event_raw_ns
    host_value = host.mid_ns if began is None or ended is None or not frozen else ended - began
    return Pause(
        pause,
        regime,
        witnesses,
        tuple(agreeing),
        tuple(disagreeing),
        host_value - lag.mid_ns - gap_value,
        closure,
        closes,
        noise,
    )
