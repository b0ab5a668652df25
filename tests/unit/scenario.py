"""What is drawn for a synthetic guest, which simulation.py makes: clocks, pause, network, repair."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.plan import Regime

US, MS, S = 1_000, 1_000_000, 1_000_000_000


class Network(StrEnum):
    """How long a message is under way, each direction by itself."""

    STEADY = "steady"  # like user-mode networking under TCG at rest
    FAST = "fast"
    ASYMMETRIC = "asymmetric"
    HEAVY = "heavy"  # now and then a hundred times the usual delay
    BURSTY = "bursty"  # stretches of it


class Repair(StrEnum):
    """What happens to the guest's REALTIME after the resume."""

    NONE = "none"
    AGENT = "agent"  # one step soon, late by its own latency
    LATE_STEP = "late step"  # chrony after some polls
    SLEW = "slew"
    LIAR = "liar"  # says so, does nothing
    OVERSHOOT = "overshoot"  # a step too far, then one back
    PARTIAL = "partial"  # one step, half the way
    MOVES = "moves"  # as the scenario's moves say
    WHOLE_SECOND = "whole second"  # domtime --now: stepped to the host's second, late by its latency


@dataclass(frozen=True)
class Move:
    """Something moves the guest's REALTIME, so long after the guest got going. to_ns: the offset from the
    host that it takes for right (a wrong server's own offset, an RTC's); None: by `by_ns`, whatever the
    offset is. ppb: slewed at this rate, 0 for a step."""

    after_ns: int
    to_ns: int | None = None
    by_ns: int = 0
    ppb: int = 0


@dataclass(frozen=True)
class Scenario:
    """Times in nanoseconds, frequencies in ppb. hidden_ns: the guest's clocks lose this much more than
    anything the host did explains. standing: the share of the pause, in percent, for which the clocks
    stand still in regime MIXED. stall_ns: how late the guest gets going after the resume.
    return_ns: how much later than need be the resume call returns (a guest that goes on in another process).
    blind_ns: the guest's connections were cut: nothing of it arrives from the stop until so long after the
    resume. amnesia: its probe was started anew then, and knows nothing of the time before. mute_ns: no
    heartbeats for so long on both sides of the pause. boot_counts: BOOTTIME goes on while the others
    stand.

    hole_ns: the controller may not get to read for so long, now and then. busy_ns: the same of the guest,
    whose clocks run on meanwhile. early_ns: so long after the guest was stopped somebody else has it go on;
    again_ns: so long after that it is stopped once more, until the lab resumes it (0: never).

    aside_ns: somebody else stops the guest for so long, outside of the lab's pause: from aside_at_ns after
    the resume on, or, negative, until so long before the stop. aside_stands: its clocks stand still
    meanwhile. edge_ns: the host is busy around the stop and the resume: the guest's vCPUs do not get to run
    for so long before the one and after the other. crossed: its readings have cross-timestamps."""

    seed: int = 0
    regime: Regime = Regime.RESUMED
    kvm: bool = False
    events: bool = True
    before_ns: int = 4 * S
    pause_ns: int = 5 * S
    watch_ns: int = 8 * S
    standing: int = 50
    raw_ppb: int = 0
    real_ppb: int = 0
    host_ppb: int = 0
    host_step_ns: int = 0
    host_step_at: int = 0
    start_offset_ns: int = 0
    step_before_ns: int = 0
    slew_before_ppb: int = 0
    network: Network = Network.STEADY
    rtt_ns: int = 3 * MS
    loss: int = 0  # percent of the readings
    straddle: bool = False  # one more exchange, under way across the freeze
    preempted: bool = False
    late_ns: int = 3 * MS  # largest lateness of the sampler
    stall_ns: int = 100 * US
    call_ns: int = 2 * MS
    return_ns: int = 0
    blind_ns: int = 0
    amnesia: bool = False
    mute_ns: int = 0
    boot_counts: bool = False
    hidden_ns: int = 0
    repair: Repair = Repair.AGENT
    repair_after_ns: int = 60 * MS
    residual_ns: int = -9 * MS
    slew_ppb: int = 83_333_000
    moves: tuple[Move, ...] = ()
    hole_ns: int = 0
    busy_ns: int = 0
    early_ns: int = 0
    again_ns: int = 0
    aside_ns: int = 0
    aside_at_ns: int = 0
    aside_stands: bool = False
    edge_ns: tuple[int, int] = (0, 0)
    crossed: bool = False

    @property
    def slews(self) -> bool:
        """Whether the guest's REALTIME is slewed after the resume."""
        return self.repair is Repair.SLEW or (
            self.repair is Repair.MOVES and any(move.ppb for move in self.moves)
        )

    @property
    def fastest_ppm(self) -> float:
        """The fastest that the guest's REALTIME is slewed after the resume."""
        rates = [move.ppb for move in self.moves] if self.repair is Repair.MOVES else [self.slew_ppb]
        return max(rates, default=0) / 1000 if self.slews else 0.0
