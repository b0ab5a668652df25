"""What was observed: readings, heartbeats, and the in-guest sampler's record. Values only.

Guest times are the guest's own clocks in nanoseconds; host times are Stamps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.core.clock import GuestClock, Interval, Stamp


@dataclass(frozen=True)
class Reading:
    """One exchange with a guest: host stamp t1, guest clocks on receipt (t2) and before the
    answer (t3), host stamp t4 (MEASURING.md, "A reading, and an offset").

    resolution_ns: coarseness of the guest's clock readings.
    """

    t1: Stamp
    t2: dict[GuestClock, int]
    t3: dict[GuestClock, int]
    t4: Stamp
    resolution_ns: int = 1

    def offset(self, clock: GuestClock) -> Interval:
        """guest `clock` minus the host's REALTIME (for REAL) or MONOTONIC_RAW (all others):
        [t3 - t4, t2 - t1]. Holds whatever the delays are."""
        if clock is GuestClock.REAL:
            sent, received = self.t1.real_ns, self.t4.real_ns
        else:
            sent, received = self.t1.raw_ns, self.t4.raw_ns
        low, high = self.t3[clock] - received, self.t2[clock] - sent
        return Interval(min(low, high), max(low, high)).widened(self.resolution_ns - 1)

    @property
    def round_trip_ns(self) -> int:
        return self.t4.raw_ns - self.t1.raw_ns


@dataclass(frozen=True)
class Heartbeat:
    """A line that the guest sends by itself. sent_raw_ns: the guest's MONOTONIC_RAW."""

    sequence: int
    sent_raw_ns: int
    arrived: Stamp


@dataclass(frozen=True)
class Hole:
    """Two successive samples further apart than usual, in the guest's MONOTONIC_RAW."""

    from_raw_ns: int
    to_raw_ns: int

    @property
    def length_ns(self) -> int:
        return self.to_raw_ns - self.from_raw_ns


@dataclass(frozen=True)
class ClockStep:
    """REALTIME moved against MONOTONIC_RAW between two samples.

    at_raw_ns: the guest's MONOTONIC_RAW at the later one. by_ns: positive is forward.
    """

    at_raw_ns: int
    by_ns: int


@dataclass(frozen=True)
class SamplerReport:
    """The in-guest sampler's record.

    holes: all distances of successive samples above `floor_ns`, in order.
    usual_ns: the median distance.
    """

    period_ns: int
    count: int
    first_raw_ns: int
    last_raw_ns: int
    usual_ns: int
    floor_ns: int
    holes: tuple[Hole, ...] = ()
    steps: tuple[ClockStep, ...] = ()


@dataclass(frozen=True)
class ProbeFacts:
    """What a guest says of itself. kernel_lines: those about lockups, stalls and clocksources."""

    boot_id: str
    clocksource: str
    kernel: str = ""
    python: str = ""
    kernel_lines: tuple[str, ...] = field(default=())
    reconnects: int = 0
