"""What a run has to show to pass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.expected_failure import MustFail
from lab.core.method import Regime
from lab.core.units import NS_PER_MS, NS_PER_S


@dataclass(frozen=True)
class NoticeExpectations:
    """The announcement's expected course; None: not checked.

    acknowledged: a guest approves the event before NotBefore (False: none does). seen: every affected guest
    gets the event before the freeze (False: none does). started_seen: the same, as Started. kept: the pause
    is no longer than the announced DurationInSeconds (False: it is longer). cancelled: the event is called
    off, and no guest is frozen. at_least_ns, at_most_ns: from publication to start, real time.
    """

    acknowledged: bool | None = None
    seen: bool | None = None
    started_seen: bool | None = None
    kept: bool | None = None
    cancelled: bool | None = None
    at_least_ns: int | None = None
    at_most_ns: int | None = None


class RolloutEnd(StrEnum):
    """How a rollout ends."""

    COMPLETE = "complete"
    STOPPED = "stopped"  # by a gate


@dataclass(frozen=True)
class Expectations:
    """What a run has to show to pass; None: not checked.

    These checks always apply: the cycle closes, the budget is kept, the patch succeeds, the guest has not
    rebooted.

    stall_at_most_ns: the longest stall of file systems that a snapshot freezes.
    in_time_within_ns: from the resume to the first instant from which |offset| stays within tolerance_ns for
        hold_ns.
    final_offset_ns: largest |offset| at the end of the watch.
    drift_ppm: largest |drift| after the resync.
    clean_kernel_log: no trouble in the guest's kernel log (core.kernel_log).
    as_predicted: the clock is corrected, or not, as the mechanism's rules forecast. If the watch was too
        short for a decision, the check has not passed.
    notice: expectations of the announcement. rollout: how it ends. skew_ns: the guests of one domain stop
        within this time of each other, and resume so. must_fail: a negative control, which passes when checks
        fail.
    """

    regime: Regime | None = None
    pause_at_least_ns: int | None = None
    pause_at_most_ns: int | None = None
    in_time_within_ns: int | None = None
    tolerance_ns: int = 100 * NS_PER_MS
    hold_ns: int = 2 * NS_PER_S
    final_offset_ns: int | None = None
    drift_ppm: float | None = None
    clean_kernel_log: bool = True
    as_predicted: bool = False
    notice: NoticeExpectations = NoticeExpectations()
    rollout: RolloutEnd = RolloutEnd.COMPLETE
    skew_ns: int | None = None
    stall_at_most_ns: int | None = None
    must_fail: MustFail | None = None
