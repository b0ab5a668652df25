"""When a guest stopped and when it ran again, on its own MONOTONIC_RAW. These two intervals are computed
once; the pause, the steps of the guest's clock and its claims all use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.offsets import Rate, Sample, ageing_ns, offset_at
from lab.core.timeline import Call


@dataclass(frozen=True)
class Edges:
    """The edges of a pause, as intervals of the guest's MONOTONIC_RAW in nanoseconds that contain the true
    instant. stop: the guest's last instruction before it. resume: its first instruction after it. None: there
    is no reading on that side, or the readings contradict each other."""

    stop: Interval | None = None
    resume: Interval | None = None


NO_EDGES = Edges()


def edges(
    before: Sequence[Sample], after: Sequence[Sample], stop: Call, resume: Call, rates: tuple[Rate, Rate]
) -> Edges:
    """The edges of a pause. before, after: samples of MONOTONIC_RAW on either side of it; rates: how fast the
    offset changes there.

    An edge lies somewhere in its call. The offset is that at the end of the call, so it is widened by what
    the clocks may drift apart during the call, at the larger of both rates: which of them holds there is not
    known.
    """
    phi = max(rate.largest_ppm for rate in rates)
    at_stop = offset_at(before, stop.returned.raw_ns, rate=rates[0])
    at_resume = offset_at(after, resume.returned.raw_ns, rate=rates[1])
    return Edges(
        None if at_stop is None else _edge(stop, stop.returned.raw_ns, at_stop, phi),
        # It ran for the last ran_ns of the call.
        None if at_resume is None else _edge(resume, resume.returned.raw_ns - resume.ran_ns, at_resume, phi),
    )


def _edge(call: Call, latest_raw_ns: int, offset: Interval, phi_ppm: float) -> Interval:
    slack = ageing_ns(call.returned.raw_ns - call.called.raw_ns, phi_ppm)
    return Interval(
        call.called.raw_ns + offset.low_ns - slack,
        max(call.called.raw_ns, latest_raw_ns) + offset.high_ns + slack,
    )
