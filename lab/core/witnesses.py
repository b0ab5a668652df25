"""The four witnesses of a pause, each as an interval that contains what it observed. pause.py combines
them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

from lab.core.clock import Interval, intersect
from lab.core.offsets import HOST_SLEW_PPM, STAMP_NS, Rate, Sample, ageing_ns, offset_at
from lab.core.timeline import Call, Heartbeat, Reading, SamplerReport
from lab.core.units import NS_PER_MS

EVENT_RESOLUTION_NS = 1_000
"""QMP event time stamps are truncated to whole microseconds (QEMU, docs/interop/qmp-spec, "timestamp")."""

LATE_NS = 50 * NS_PER_MS
"""How late a resumed guest may start on a busy host before its hole counts as lost time."""

COLD_NS = 500 * NS_PER_MS
"""The same for a guest that continues in another process, which has translated none of its code and mapped
none of its RAM yet: under TCG 70 to 240 ms were observed from the resume to the first answer, on two busy
cores."""


class Witness(StrEnum):
    HYPERVISOR = "hypervisor"
    LAG = "lag"
    GAP = "gap"
    SILENCE = "silence"


def event_in(call: Call) -> Interval | None:
    """When QEMU stamped its event, on MONOTONIC_RAW. None without an event, or when its stamp lies
    outside the call, which it cannot unless REALTIME was stepped.

    The stamp is REALTIME, so it is converted with the difference of the two clocks at both ends of the call:
    NTP may slew REALTIME in between, and a stamp may have been interrupted between its two clocks.
    """
    if call.event_real_ns is None:
        return None
    apart = [stamp.real_ns - stamp.raw_ns for stamp in (call.called, call.returned)]
    slew = ageing_ns(max(0, call.returned.raw_ns - call.called.raw_ns), HOST_SLEW_PPM)
    low = call.event_real_ns - max(apart) - slew
    high = call.event_real_ns + EVENT_RESOLUTION_NS - min(apart) + STAMP_NS + slew
    low, high = max(low, call.called.raw_ns), min(high, call.returned.raw_ns)
    return Interval(low, high) if low <= high else None


def stamps_apart(stop: Call, resume: Call) -> Interval | None:
    """RESUME - STOP by QEMU's own stamps. They may come from two processes: both stamp the host's clock."""
    stopped, resumed = event_in(stop), event_in(resume)
    if stopped is None or resumed is None:
        return None
    return Interval(max(0, resumed.low_ns - stopped.high_ns), max(0, resumed.high_ns - stopped.low_ns))


def hypervisor_witness(stop: Call, resume: Call) -> Interval:
    """[resume called - stop returned, resume returned - stop called]. QEMU emits STOP after the vCPUs and
    clocks have stopped and RESUME before they start (softmmu/cpus.c, do_vm_stop and vm_prepare_start), so
    RESUME - STOP is a lower bound as well, and mostly the better one. A vCPU's CPU time in the resume call
    shows that the guest had been resumed for at least that long when the call returned."""
    low = resume.called.raw_ns - stop.returned.raw_ns
    high = resume.returned.raw_ns - resume.ran_ns - stop.called.raw_ns
    if (stamps := stamps_apart(stop, resume)) is not None:
        low = max(low, stamps.low_ns)
    return Interval(max(0, min(low, high)), max(0, high))


def before_and_after(
    readings: Sequence[Reading], stop: Call, resume: Call
) -> tuple[list[Reading], list[Reading]]:
    """Readings that ended before the stop call, and those that began after the resume call. A reading that
    overlaps a call is in neither: its stamps may come from either side of the edge, or from a clock that
    stands still while the last instructions run."""
    before = [r for r in readings if r.t4.raw_ns <= stop.called.raw_ns]
    after = [r for r in readings if r.t1.raw_ns >= resume.returned.raw_ns]
    return before, after


def lag_witness(
    before: Sequence[Sample],
    after: Sequence[Sample],
    stop: Call,
    resume: Call,
    rate_before: Rate,
    rate_after: Rate | None = None,
) -> Interval | None:
    """How long the guest's clock stood still.

    rate_before, rate_after: of the guest's clock against the host's while the guest runs; rate_after is
    rate_before unless given. None without readings on both sides, or when one side contradicts itself.
    """
    rate_after = rate_after or rate_before
    at_stop = offset_at(before, stop.called.raw_ns, rate=rate_before)
    at_resume = offset_at(after, resume.returned.raw_ns, rate=rate_after)
    if at_stop is None or at_resume is None:
        return None
    either = rate_before.or_rate(rate_after)
    # What the offset lost, but for what the clock gained by its own rate while it ran. That is the whole
    # time between the two instants at most; and then, knowing the lag, only what the lag leaves of it.
    window = resume.returned.raw_ns - stop.called.raw_ns
    lost = at_stop - at_resume
    lag = lost + either.change_ns(0, window)
    least, most = max(0, window - lag.high_ns), max(0, window - max(0, lag.low_ns))
    return intersect((lag, lost + either.change_ns(least, most))) or lag


def gap_witness(
    report: SamplerReport, stop_guest: Interval, resume_guest: Interval, late_ns: int = LATE_NS
) -> tuple[Interval, int] | None:
    """The guest time in which no guest instruction ran around the pause, and the largest hole elsewhere (the
    noise). Its delay after the resume may or may not be part of it.

    stop_guest, resume_guest: the guest's MONOTONIC_RAW at the stop and at the resume. The true time is at
    most the sampler's hole, and at least the hole minus the usual distance of two samples, the noise, and
    late_ns. None when the sampler did not run through the pause, or its record is incomplete.
    """
    if report.count < 2 or not report.holes_complete:
        return None
    if report.first_raw_ns > stop_guest.low_ns or report.last_raw_ns < resume_guest.high_ns:
        return None
    here, noise = report.floor_ns, report.floor_ns
    for hole in report.holes:
        around = hole.from_raw_ns <= resume_guest.high_ns and hole.to_raw_ns >= stop_guest.low_ns
        if around:
            here = max(here, hole.length_ns)
        else:
            noise = max(noise, hole.length_ns)
    return Interval(max(0, here - report.usual_ns - noise - late_ns), here), noise


def silence_witness(
    beats: Sequence[Heartbeat], stop: Call, resume: Call, round_trip_ns: int
) -> Interval | None:
    """The longest absence of heartbeats that touches the pause, as a client outside feels it.

    It exceeds the pause by the guest's delay, a heartbeat's period and the difference of two network delays,
    estimated from the longest absence elsewhere. It is shorter than the pause when the last heartbeats were
    long in transit, so the upper bound is from the first heartbeat's arrival to the resume. The lower bound
    is not rigorous: a network can be silent by itself. None without a heartbeat on both sides.
    """
    here = elsewhere = 0
    last_before = first_after = None
    for beat in beats:
        if beat.arrived.raw_ns <= stop.called.raw_ns:
            last_before = beat
        elif beat.arrived.raw_ns >= resume.returned.raw_ns and first_after is None:
            first_after = beat
    for earlier, later in pairwise(beats):
        absence = later.arrived.raw_ns - earlier.arrived.raw_ns
        touches = (
            earlier.arrived.raw_ns <= resume.returned.raw_ns and later.arrived.raw_ns >= stop.called.raw_ns
        )
        if touches:
            here = max(here, absence)
        else:
            elsewhere = max(elsewhere, absence)
    if last_before is None or first_after is None or not elsewhere:
        return None
    # Everything that arrived before the stop call was sent before it, so the pause lies in this stretch.
    outer = first_after.arrived.raw_ns - last_before.arrived.raw_ns
    return Interval(max(0, min(here, outer) - elsewhere - round_trip_ns - LATE_NS), outer)
