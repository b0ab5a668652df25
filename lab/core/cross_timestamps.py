"""What cross-timestamps by ptp_kvm add to readings: the same offsets with them and without.

A cross-timestamp is the host's REALTIME at one reading of the TSC (Linux, arch/x86/kvm/x86.c,
kvm_pv_clock_pairing) and the guest's MONOTONIC_RAW at the same one (drivers/ptp/ptp_kvm_common.c). No network
is in it, so what is left of a reading's bound is the host's own two stamps about the exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_high

from lab.core.clock import GuestClock
from lab.core.offsets import Rate, Sample, by_cross_timestamp, real_samples, samples, smoothed
from lab.core.timeline import Reading


@dataclass(frozen=True)
class CrossTimestamps:
    """The readings of a cycle that had a cross-timestamp. contradicting: how many of them exclude what their
    exchange shows, and are not used. bound_ns: the median bound of the offsets of the cycle's readings.
    alone_ns: what it would be by the exchanges alone."""

    readings: int
    contradicting: int
    bound_ns: int
    alone_ns: int

    @property
    def problem(self) -> str:
        """One line; "" where none contradicts its exchange."""
        if not self.contradicting:
            return ""
        count = f"{self.contradicting} of {self.readings} readings"
        return f"ptp_kvm's time of the host contradicts {count}: the host's clock was stepped, or is another"


def cross_timestamps(
    parts: Sequence[tuple[Sequence[Reading], Rate]], offsets: Sequence[Sample]
) -> CrossTimestamps | None:
    """What the readings of a cycle gained. parts: those before and after the freeze, each with the rate of
    the guest's MONOTONIC_RAW. offsets: of REALTIME, as measured. None without a cross-timestamp."""
    crossed = [reading for part, _ in parts for reading in part if reading.cross is not None]
    if not crossed or not offsets:
        return None
    alone: list[Sample] = []
    for part, rate in parts:
        plain = [replace(reading, cross=None) for reading in part]
        alone += real_samples(plain, smoothed(samples(plain, GuestClock.RAW), rate))
    contradicting = sum(
        (by := by_cross_timestamp(reading)) is not None and not by.meets(reading.offset(GuestClock.RAW))
        for reading in crossed
    )
    return CrossTimestamps(len(crossed), contradicting, _usual(offsets), _usual(alone))


def _usual(offsets: Sequence[Sample]) -> int:
    return median_high(one.offset.half_width_ns for one in offsets)
