"""The effects of a pause on a guest besides its clock, as programs inside it observe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.units import NS_PER_S


@dataclass(frozen=True)
class Timers:
    """A fleet of timers of one kind in the guest, over one cycle.

    kind: "timerfd monotonic", "timerfd realtime", "timerfd boottime", "sleep". count: expirations seen.
    buckets: (upper edge of the lateness in nanoseconds, how many), edges rising, the last one for all above.
    worst_ns: the largest lateness by the timer's own clock. at_once: the largest number that fired within 10
    ms of each other right after the largest hole. timers: the number of timers. early: expirations before
    they were due, by the timer's own clock.
    """

    kind: str
    timers: int
    count: int
    buckets: tuple[tuple[int, int], ...]
    worst_ns: int
    at_once: int = 0
    early: int = 0


@dataclass(frozen=True, slots=True)
class Backward:
    """Ordered readings of a clock: each gets the value of the one before, read by the same vCPU (from_cpu =
    to_cpu) or by another. looks: the number of readings. backward: those that were less than the one before;
    worst_ns: the largest decrease."""

    clock: str
    from_cpu: int
    to_cpu: int
    looks: int
    backward: int
    worst_ns: int = 0


@dataclass(frozen=True, slots=True)
class RtcLook:
    """The guest's RTC against its REALTIME, at an update of the RTC's seconds.

    raw_ns: the guest's MONOTONIC_RAW. rtc_minus_real_ns: positive when the RTC is ahead, good to
    `bound_ns`."""

    raw_ns: int
    rtc_minus_real_ns: int
    bound_ns: int


@dataclass(frozen=True)
class Effects:
    """All effects over one cycle. boot_minus_mono_ns: how far CLOCK_BOOTTIME and CLOCK_MONOTONIC have parted
    over the cycle (by a suspend that the guest knows of); None when they were not read."""

    timers: tuple[Timers, ...] = ()
    backward: tuple[Backward, ...] = ()
    rtc: tuple[RtcLook, ...] = ()
    boot_minus_mono_ns: int | None = None


def backward(given: Sequence[Backward]) -> list[Backward]:
    """The monotonic clocks that were seen to go backward. REALTIME may: programs that keep the time step it,
    and the size of their steps is not limited here."""
    return [one for one in given if one.backward and one.clock != "realtime"]


def rtc_around(
    looks: Sequence[RtcLook], resumed_guest: Interval | None
) -> tuple[RtcLook | None, RtcLook | None]:
    """The last reading of the RTC certainly before the resume, and the first certainly after it. A reading is
    dated at its end, and may have begun a second earlier. resumed_guest: the guest's MONOTONIC_RAW."""
    if resumed_guest is None:
        return None, None
    early = [look for look in looks if look.raw_ns < resumed_guest.low_ns]
    late = [look for look in looks if look.raw_ns - 2 * look.bound_ns > resumed_guest.high_ns]
    return (early[-1] if early else None), (late[0] if late else None)


RTC_NS = 2 * NS_PER_S
"""The largest move of an RTC that is set from a correct clock: it has whole seconds, and may be half a second
early or late (core.timesync.host)."""


def rtc_set(
    before_ns: int, after_ns: int, real_before: Interval, real_after: Interval, stood: Interval | None
) -> Interval | None:
    """How far the RTC was moved over a cycle, against the host's clock; None when that may be no more than
    RTC_NS. before_ns, after_ns: ProbeFacts.rtc_minus_real_ns. real_before, real_after: the offset of the
    guest's REALTIME at the same times. stood: for how long the RTC stood still with the guest; None when it
    ran on."""
    second = Interval(0, NS_PER_S)
    moved = second.shifted(after_ns) + real_after - (second.shifted(before_ns) + real_before)
    if stood is not None:
        moved = moved + stood
    return moved if moved.smallest_ns > RTC_NS else None


def rtc_moved(before: RtcLook, after: RtcLook, real_before: Interval, real_after: Interval) -> Interval:
    """How far the RTC moved against the host's clock between two readings. real_before, real_after: the
    offset of the guest's REALTIME at the readings."""
    one = Interval(before.rtc_minus_real_ns, before.rtc_minus_real_ns).widened(before.bound_ns) + real_before
    two = Interval(after.rtc_minus_real_ns, after.rtc_minus_real_ns).widened(after.bound_ns) + real_after
    return two - one
