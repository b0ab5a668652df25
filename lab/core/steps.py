"""Divides a pause into its parts, from the stop call to the first packet that a client gets.

The parts follow each other without gap or overlap, so they add up to the whole. Time without a name is called
BETWEEN. Where named steps are nested, the inner one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.core.clock import GuestClock, Interval, Stamp
from lab.core.offsets import Rate, Sample, ageing_ns, offset_at
from lab.core.timeline import Heartbeat, Observation, Reading, Step

BETWEEN = "between"
SUSPEND, RESUME, PATCH = "suspend", "resume", "patch"
BACK = "put back"
SHUT_DOWN, START = "shut down", "start"
HEARTBEAT, PACKET = "first heartbeat", "first packet"
FREEZE_ITSELF = "replace-hypervisor"
"""Prefix of the labels of patches that take no time of their own: the freeze is the patch."""


@dataclass(frozen=True)
class Part:
    """A part of a pause. Host MONOTONIC_RAW; from_ns is since the stop call.

    bounds: an interval that contains its length; None where the length was stamped, not inferred.
    """

    name: str
    from_ns: int
    length_ns: int
    bounds: Interval | None = None

    @property
    def to_ns(self) -> int:
        return self.from_ns + self.length_ns


def _flat(steps: Sequence[Step], begin: int, end: int) -> list[Step]:
    """[begin, end] divided at every edge of a step; each piece has the name of the step that began last."""
    edges = sorted({begin, end, *(e for s in steps for e in (s.began_raw_ns, s.ended_raw_ns))})
    found: list[Step] = []
    for low, high in pairwise(edges):
        if low < begin or high > end:
            continue
        over = [s for s in steps if s.began_raw_ns <= low and high <= s.ended_raw_ns]
        name = max(over, key=lambda s: (s.began_raw_ns, -s.ended_raw_ns)).name if over else BETWEEN
        if found and found[-1].name == name:
            found[-1] = Step(name, found[-1].began_raw_ns, high)
        else:
            found.append(Step(name, low, high))
    return found


def _patched(obs: Observation, called: int, resumed: int, named: Sequence[Step]) -> Step | None:
    """The time of the host patch: the patch's own steps or, without any, the longest unnamed time in which
    the guest was stopped."""
    if obs.patch_steps:
        began = min(s.began_raw_ns for s in obs.patch_steps)
        ended = max(s.ended_raw_ns for s in obs.patch_steps)
        began, ended = max(began, called), min(ended, resumed)
        return Step(PATCH, began, ended) if began < ended else None
    if obs.patch_ok is None or obs.called_off or obs.patch.startswith(FREEZE_ITSELF):
        return None
    unnamed = [piece for piece in _flat(named, called, resumed) if piece.name == BETWEEN]
    longest = max(unnamed, key=lambda piece: piece.length_ns, default=None)
    return None if longest is None else Step(PATCH, longest.began_raw_ns, longest.ended_raw_ns)


@dataclass(frozen=True)
class Sign:
    """The first message of a resumed guest: a heartbeat, or an answer to a reading.

    sent_raw_ns: the guest's MONOTONIC_RAW when it was sent. arrived: at the host.
    """

    sent_raw_ns: int
    arrived: Stamp


def first_sign(
    beats: Sequence[Heartbeat], late: Sequence[Reading], stop_guest_ns: int | None, resume_called: int
) -> Sign | None:
    """The first arrival that was certainly sent after the resume.

    A heartbeat qualifies when its time is later than the latest value of the guest's MONOTONIC_RAW at the
    stop (stop_guest_ns). If that clock restarted (None), it qualifies when it arrived after the start. late:
    readings after the resume, in order.
    """
    signs = [Sign(r.t3[GuestClock.RAW], r.t4) for r in late[:1] if GuestClock.RAW in r.t3]
    for beat in beats:
        if beat.arrived.raw_ns > resume_called and (
            stop_guest_ns is None or beat.sent_raw_ns > stop_guest_ns
        ):
            signs.append(Sign(beat.sent_raw_ns, beat.arrived))
            break
    return min(signs, key=lambda sign: sign.arrived.raw_ns, default=None)


def dated(sign: Sign | None, raw_late: Sequence[Sample], rate: Rate) -> Interval | None:
    """When the sign was sent, on the host's MONOTONIC_RAW. raw_late: offsets of the guest's MONOTONIC_RAW
    after the resume; rate: at which they change."""
    if sign is None:
        return None
    arrived = sign.arrived.raw_ns
    offset = offset_at(raw_late, arrived, rate=rate)
    if offset is None:
        return None
    # It was sent before it arrived, so the offset is carried back by as long as it was under way.
    under_way = max(0, arrived - (sign.sent_raw_ns - offset.high_ns))
    offset = offset.widened(ageing_ns(under_way, rate.largest_ppm))
    low = min(sign.sent_raw_ns - offset.high_ns, arrived)
    return Interval(low, max(low, min(sign.sent_raw_ns - offset.low_ns, arrived)))


def parts(obs: Observation, sign: Sign | None, when: Interval | None) -> tuple[Part, ...]:
    """The pause from the stop call on, part by part; () when the guest was not stopped and resumed.

    when: the time at which the sign was sent, from `dated`.

    The resume call may return after the guest has begun to run: the part RESUME ends when it certainly runs,
    and at the latest when it sent the first sign.
    """
    stop, resume = obs.stop, obs.resume
    if stop is None or resume is None or obs.method.runs_on:
        return ()
    begin, called = stop.called.raw_ns, resume.called.raw_ns
    ended = max(called, resume.returned.raw_ns - resume.ran_ns)
    sent = None
    if sign is not None and when is not None:
        # After the resume was asked for, and before it arrived, whatever the clocks say.
        low = min(max(called, when.low_ns), sign.arrived.raw_ns)
        sent = Interval(low, max(low, when.high_ns))
        ended = min(ended, sent.mid_ns)
    down, up = (SUSPEND, BACK if obs.called_off else RESUME) if obs.method.freezes else (SHUT_DOWN, START)
    named = [Step(down, begin, stop.returned.raw_ns), *obs.steps, Step(up, called, ended)]
    if (patch := _patched(obs, stop.returned.raw_ns, called, named)) is not None:
        named.insert(0, patch)  # an inner step of the method's own counts
    found = [Part(s.name, s.began_raw_ns - begin, s.length_ns) for s in _flat(named, begin, ended)]
    if sign is None or sent is None:
        return tuple(found)
    at, arrived = sent.mid_ns, sign.arrived.raw_ns
    until = Interval(max(0, sent.low_ns - ended), max(0, sent.high_ns - ended))
    found.append(Part(HEARTBEAT, ended - begin, at - ended, until))
    under_way = Interval(arrived - sent.high_ns, arrived - sent.low_ns)
    found.append(Part(PACKET, at - begin, arrived - at, under_way))
    return tuple(found)
