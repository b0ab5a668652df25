"""A pause from its four witnesses, and whether they agree (closure; docs/measuring.md).

    hypervisor   what the host did: the calls that stopped and resumed the guest
    lag          how long the guest's MONOTONIC_RAW stood still, against the host's
    gap          the hole in a sampler inside the guest: guest time in which no guest instruction ran
    silence      the absence of the guest's heartbeats at the host

Closure: hypervisor = lag + gap, where a gap that scheduling can explain may count as none.

What a pause is. The host holds a guest from the instant when its vCPUs have stopped to the instant when they
are let run; its clocks stand still for about the same time (QEMU stops and starts them inside the same two
calls), or not at all. The *pause* is that time: in regime RESUMED the time for which the clocks stood still,
otherwise, and where the hypervisor let them run on for a moment (`ran_on`), the time for which the guest was
held. On a busy host a vCPU may start late: then the guest is no longer paused, but no instruction of it runs
yet. That time is part of `at_rest`, from the guest's last instruction to its next.

What is rigorous, and what is not. The bounds of the hypervisor and the lag and the upper bounds of gap and
silence hold for any behaviour of networks and schedulers. That the pause *caused* a hole is inferred: the
lower bound of the gap allows LATE_NS and the noise observed elsewhere for what a busy host adds; that of the
silence allows the same and the delays observed elsewhere. Neither narrows a pause. On a worse host the
closure fails, which is inconclusive.

Only the guest can show that it was stopped for all of the time between the calls, because another program may
have resumed it. A heartbeat sent after the stop shows that it ran, and so does a closure that fails because
lag and holes are less than the host's time. Then the pause is the sum of the time for which its clocks stood
still and the time that its sampler missed, and no longer that between the calls. Without any data of the
guest, QEMU's stamp of RESUME within the resume call shows that it was stopped until then; without a stamp
nothing does. Three cases are not detected: another program's resume that is early by less than a resumed
guest may be late (late_ns), another program's stop that ends within the sampler's floor, and, without data of
the guest, a resume and a stop before the lab's own RESUME.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import PHI_PPM, GuestClock, Interval, intersect
from lab.core.edges import NO_EDGES, Edges, edges
from lab.core.offsets import Rate, samples
from lab.core.plan import Regime
from lab.core.timeline import Call, Heartbeat, Reading, SamplerReport
from lab.core.witnesses import (
    LATE_NS,
    Witness,
    before_and_after,
    gap_witness,
    hypervisor_witness,
    lag_witness,
    silence_witness,
    stamps_apart,
)

MOST_SHARE = 5
"""RESUMED and JUMPED mean that the clocks stood still, or ran, for all but at most a fifth of the pause, and
nothing indicates even that."""

NOTHING = Interval(0, 0)

UNSEEN_FLOORS = 2
"""For a pause of some 10 ms a fifth is less than readings resolve. RESUMED then means that the clocks stood
still for at least half of it, and ran meanwhile for no longer than this many of the sampler's floors:
scheduling in the guest makes holes of that size all the time."""


@dataclass(frozen=True)
class Pause:
    """A pause and its evidence, in nanoseconds of the host's MONOTONIC_RAW.

    pause: the intersection of all witnesses in `agreeing`.
    regime: None when the bounds do not decide. RESUMED: the clocks stood still for at least four fifths of
        the pause, or for half of it and all but what the sampler cannot see (UNSEEN_FLOORS); JUMPED: for at
        most one fifth; MIXED: they certainly stood still for a part of it and ran for another.
    closure_ns: hypervisor - lag - gap at their best values; closure: the interval that it lies in.
    closes: zero lies in that interval.
    disagreeing: witnesses that contradict `pause` and are not part of it.
    at_rest: the host time from the last guest instruction before the pause to the first one after it; None
        without the witnesses for it.
    stamps: RESUME - STOP by QEMU's own stamps, a lower bound of the pause; None without them.
    ran: the guest certainly ran between the two calls, so another program resumed it.
    edges: the stop and the resume on the guest's own clock.
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
    at_rest: Interval | None = None
    stamps: Interval | None = None
    ran: bool = False
    edges: Edges = NO_EDGES

    @property
    def unaccounted_ns(self) -> int:
        """The least time that lag and gap leave unexplained (negative: explained twice)."""
        if self.closure is None or self.closes:
            return 0
        return self.closure.low_ns if self.closure.low_ns > 0 else self.closure.high_ns


def _awake(host: Interval, stop: Call, beats: Sequence[Heartbeat], stop_guest: Interval) -> int:
    """The latest time after the stop call at which the guest certainly ran again. That is the end of the
    resume call, or earlier when the guest ran before the call ended: a heartbeat with a later time than the
    guest's clock had at the stop was sent after the resume, and before it arrived. A guest that continues in
    another process runs up to 20 ms before that call ends."""
    arrivals = (b.arrived.raw_ns for b in beats if b.sent_raw_ns > stop_guest.high_ns)
    awake = min(arrivals, default=host.high_ns + stop.called.raw_ns) - stop.called.raw_ns
    return min(host.high_ns, awake)


def _beats_missing(beats: Sequence[Heartbeat], stop: Call, resume: Call) -> bool:
    """True when a heartbeat arrived between the calls. It may have been delayed for long; but if no reading
    dates it, the guest may not have been stopped for all of that time."""
    return any(stop.returned.raw_ns < beat.arrived.raw_ns < resume.called.raw_ns for beat in beats)


def _missed(sampler: SamplerReport, stop_guest: Interval, resume_guest: Interval) -> int:
    """The total guest time of all holes around the pause."""
    return sum(
        hole.length_ns
        for hole in sampler.holes
        if hole.from_raw_ns <= resume_guest.high_ns and hole.to_raw_ns >= stop_guest.low_ns
    )


def _regime(
    host: Interval, lag: Interval, gap: Interval, unseen_ns: int, ran_on: Interval = NOTHING
) -> Regime | None:
    ran_ns = min(gap.high_ns, host.high_ns - lag.low_ns)
    if lag.low_ns > 0 and host.meets(lag + ran_on):
        if ran_ns <= unseen_ns and 2 * lag.low_ns >= host.high_ns:
            return Regime.RESUMED
        if MOST_SHARE * lag.low_ns >= (MOST_SHARE - 1) * host.high_ns:
            return Regime.RESUMED
    if gap.low_ns > 0:
        if 0 in lag and host.meets(gap) and MOST_SHARE * lag.high_ns <= host.low_ns:
            return Regime.JUMPED
        if lag.low_ns > 0 and host.low_ns > lag.high_ns and host.meets(lag + gap):
            return Regime.MIXED
    return None


def inside_regime(whole: Interval, lag: Interval, gap: Interval, sampler: SamplerReport) -> Regime | None:
    """The regime of a pause of length `whole`, from the guest's side alone."""
    return _regime(whole, lag, gap, UNSEEN_FLOORS * sampler.floor_ns)


def _running(lag: Interval, gap: Interval) -> Regime | None:
    return Regime.RUNNING if 0 in lag and gap.low_ns == 0 else None


def _counted(host: Interval, lag: Interval, gap: Interval) -> Interval:
    """The gap as closure counts it: none where lag alone explains the pause, and scheduling the hole."""
    return Interval(0, 0) if gap.low_ns == 0 and host.meets(lag) else gap


def measure_pause(
    readings: Sequence[Reading],
    beats: Sequence[Heartbeat],
    sampler: SamplerReport | None,
    stop: Call,
    resume: Call,
    frozen: bool = True,
    rates: tuple[Rate, Rate] = (Rate.within(PHI_PPM), Rate.within(PHI_PPM)),
    cut: bool = False,
    late_ns: int = LATE_NS,
    ran_on: Interval = NOTHING,
) -> Pause:
    """The pause between `stop` and `resume` from all that was observed around it.

    rates: the rates of the guest's MONOTONIC_RAW against the host's, before and after; default ± PHI. frozen:
    False for a control cycle, in which the host did not stop the guest. Never raises for missing
    observations: a witness that is missing is missing from `witnesses`, and then the pause does not close.
    cut: the guest's connections were cut by its networking. Then the silence is no contradiction; and if the
    sampler was lost with them, the pause closes on the lag alone if that explains all of it. late_ns: how
    late the guest may start before its hole counts as lost time. ran_on: how long the hypervisor let the
    clocks run on after the stop (core.clocksource.ran_on); no sign of another regime.
    """
    host = hypervisor_witness(stop, resume) if frozen else Interval(0, 0)
    stamps = stamps_apart(stop, resume) if frozen else None
    witnesses = {Witness.HYPERVISOR: host}
    rate_before, rate_after = rates
    before, after = before_and_after(readings, stop, resume)
    raw_before, raw_after = samples(before, GuestClock.RAW), samples(after, GuestClock.RAW)
    round_trip = min((r.round_trip_ns for r in readings), default=0)

    silence = silence_witness(beats, stop, resume, round_trip)
    if silence is not None:
        witnesses[Witness.SILENCE] = silence

    either = rate_before.or_rate(rate_after)
    edge = edges(raw_before, raw_after, stop, resume, rates)
    gap_and_noise = None
    if sampler is not None and edge.stop is not None and edge.resume is not None:
        gap_and_noise = gap_witness(sampler, edge.stop, edge.resume, late_ns)
    noise = None
    if gap_and_noise is not None:
        hole, noise = gap_and_noise
        witnesses[Witness.GAP] = either.host_time(hole)

    lag = lag_witness(raw_before, raw_after, stop, resume, rate_before, rate_after)
    if lag is not None:
        witnesses[Witness.LAG] = lag

    standstill, ran = host, False
    if frozen and edge.stop is not None and edge.resume is not None:
        awake = _awake(host, stop, beats, edge.stop)
        standstill, ran = Interval(host.low_ns, max(host.low_ns, awake)), awake < host.low_ns
    if frozen and (ran or stamps is None or _beats_missing(beats, stop, resume)) and lag is None:
        # Nobody says that it stood still for all of the time.
        standstill = Interval(0, standstill.high_ns)
    if lag is None or (gap_and_noise is None and not (cut and frozen)):
        alone = () if ran else (Witness.HYPERVISOR,)
        wrong = (Witness.HYPERVISOR,) if ran else ()
        if lag is not None and frozen and (ran or stamps is None or lag.high_ns < host.low_ns):
            standstill = Interval(min(standstill.high_ns, max(0, lag.low_ns)), standstill.high_ns)
        return Pause(
            standstill, None, witnesses, alone, wrong, None, None, False, noise, None, stamps, ran, edge
        )

    # Without a sampler no gap is claimed, and none rules a pause out.
    gap = witnesses.get(Witness.GAP, Interval(0, 0))
    counted = _counted(host, lag, gap)
    # However wide its bounds: a clock that stood still never gained time by it.
    stood = Interval(0, lag.high_ns) if lag.low_ns < 0 <= lag.high_ns else lag
    closure = host - stood - counted
    if frozen and (ran or closure.low_ns > 0):
        most = host.high_ns
        if (
            gap_and_noise is not None
            and sampler is not None
            and edge.stop is not None
            and edge.resume is not None
        ):
            missed = either.host_time(Interval(0, _missed(sampler, edge.stop, edge.resume))).high_ns
            most = min(most, max(0, lag.high_ns) + max(missed, gap.high_ns))
        parted = Interval(min(most, max(0, lag.low_ns)), most)
        return Pause(
            parted, None, witnesses, (), (Witness.HYPERVISOR,), closure.mid_ns, closure, False,
            noise, None, stamps, gap_and_noise is not None or ran, edge,
        )  # fmt: skip
    if frozen and gap_and_noise is not None:
        # It was held no longer than from its last instruction to its next one.
        most = max(0, lag.high_ns) + gap.high_ns
        standstill = Interval(standstill.low_ns, max(standstill.low_ns, min(standstill.high_ns, most)))
    unseen = UNSEEN_FLOORS * sampler.floor_ns if sampler is not None and gap_and_noise is not None else -1
    gap_value = counted.mid_ns if gap.low_ns > 0 else 0
    regime = _regime(standstill, lag, gap, unseen, ran_on) if frozen else _running(lag, gap)
    closes = 0 in closure
    # What each says, and what of it may narrow: of a hole the lower bound is inferred.
    claims = {Witness.HYPERVISOR: (standstill, standstill)}
    if regime is Regime.RESUMED:
        claims[Witness.LAG] = lag + ran_on, lag + ran_on
    elif regime is Regime.JUMPED:
        claims[Witness.GAP] = gap, Interval(0, gap.high_ns)
    elif regime is Regime.MIXED:
        claims[Witness.LAG] = lag + gap, Interval(lag.low_ns, lag.high_ns + gap.high_ns)
    pause, agreeing, disagreeing = standstill, [], []
    for name, (claim, sure) in claims.items():
        both = intersect((pause, sure)) if claim.meets(pause) else None
        if both is None:
            disagreeing.append(name)
        else:
            pause = both
            agreeing.append(name)
    if silence is not None and frozen and not cut:  # a witness of its own, but none that could narrow
        (agreeing if silence.meets(pause) else disagreeing).append(Witness.SILENCE)
    at_rest = None
    if frozen and gap_and_noise is not None:
        at_rest = Interval(host.low_ns, max(host.low_ns, max(0, lag.high_ns) + gap.high_ns))
    host_value = host.mid_ns
    if stamps is not None:
        host_value = min(host.high_ns, max(host.low_ns, stamps.mid_ns))
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
        at_rest,
        stamps,
        edges=edge,
    )
