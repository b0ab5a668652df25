"""run.json's members about announcements and rollouts. lab.record.model has the rest, and the rules."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.rollout_result import GateHistory
from lab.core.verdict import Outcome
from lab.record.model_clock import Measure


@dataclass(frozen=True)
class Moment:
    """An instant in the life of an event. real_ns: the host's REALTIME, with guests on several hosts the
    controller's. since_ns: time since the publication, on the MONOTONIC_RAW of the same machine; null when it
    was not published. guest: the guest that caused it, "" for the service."""

    real_ns: int
    since_ns: int | None
    guest: str = ""


@dataclass(frozen=True)
class MemberRecord:
    """A guest of the event's delivery group. affected: it is one of the event's resources. seen,
    seen_started, seen_gone: its first answer with the event in that state. frozen: the start of the call that
    stopped it; resumed: the return of the call that resumed it. in_time: time since the publication. pause:
    as the guest felt it. kept: the pause was no longer than announced; null where that is not known, or not
    certain."""

    guest: str
    affected: bool
    seen: Moment | None = None
    seen_started: Moment | None = None
    approved: Moment | None = None
    frozen: Moment | None = None
    resumed: Moment | None = None
    in_time: Interval | None = None
    seen_gone: Moment | None = None
    pause: Measure | None = None
    kept: bool | None = None


@dataclass(frozen=True)
class EventRecord:
    """The life of one announcement; a moment that is null did not happen, or was not seen.

    state: "unheard" (its group never sent a request and did not get the event), "scheduled", "started",
    "cancelled" or "over". notice_ns: the announced notice, from the publication to NotBefore, real time;
    given_ns: from the publication to the start. minimum_ns: the documented minimum of its type. Both are real
    time: time_factor of the service's seconds pass in one. duration_s: the announced DurationInSeconds, -1
    when unknown. seen: by the first guest; approved: the first approval of a guest; released: the approval of
    the host's operator, on behalf of the group; frozen: that of the first guest; resumed, in_time: those of
    the last one. after_not_before: the freeze minus NotBefore. refused: the number of the group's requests
    that were answered with an error. restarts: those of the incarnation. outcome: that of its findings.
    cloud: in whose words the guests were told, "azure", "gce" or "ec2".
    """

    id: str
    cycle: int
    group: str
    resources: tuple[str, ...]
    type: str
    source: str
    description: str
    state: str
    time_factor: float
    notice_ns: int
    minimum_ns: int
    duration_s: int
    not_before: Moment
    published: Moment | None = None
    seen: Moment | None = None
    approved: Moment | None = None
    started: Moment | None = None
    frozen: Moment | None = None
    resumed: Moment | None = None
    in_time: Interval | None = None
    cancelled: Moment | None = None
    gone: Moment | None = None
    given_ns: int | None = None
    after_not_before: Interval | None = None
    kept: bool | None = None
    longest: Measure | None = None
    members: tuple[MemberRecord, ...] = ()
    refused: int = 0
    restarts: int = 0
    released: Moment | None = None
    outcome: Outcome = Outcome.INCONCLUSIVE
    cell: str = ""
    cloud: str = "azure"


@dataclass(frozen=True)
class EventTotals:
    """The announcements of a cell or of a wave. count: their number; of them, seen: those that a guest has
    seen, approved: those that a guest or the operator has approved, cancelled: those that were called off.
    notice_ns: the shortest time from publication to start. after_not_before: of the latest freeze. kept: all
    pauses were no longer than announced; null where that is not known of one. refused: requests that were
    answered with an error. outcome: that of their findings."""

    count: int
    seen: int
    approved: int
    cancelled: int
    notice_ns: int | None
    after_not_before: Interval | None
    kept: bool | None
    refused: int
    outcome: Outcome


@dataclass(frozen=True)
class DomainRecord:
    """A domain of an availability set; a guest in none is a set by itself. stop_skew, resume_skew: the time
    between its first and its last guest; null for one guest, or when not seen for all."""

    set: str
    number: int
    guests: tuple[str, ...]
    stop_skew: Interval | None = None
    resume_skew: Interval | None = None


@dataclass(frozen=True)
class WaveRecord:
    """The domains that are frozen at the same time: at most one of each set. number: from 1. state: "done",
    "stopped", "cut off" or "not begun". cycle: null if it has not begun. began: time (ISO 8601). notice_ns:
    the shortest notice of its events. pause: the median over its guests; low_ns and high_ns are the spread of
    all their pauses, or the bounds of a single one. in_time_ns: upper bound of the slowest guest's time to
    sync; null when one was not seen in time. why: why it has not passed. events: null when it was not
    announced."""

    number: int
    state: str
    domains: tuple[DomainRecord, ...]
    guests: int
    cycle: int | None = None
    began: str = ""
    notice_ns: int | None = None
    pause: Measure | None = None
    in_time_ns: int | None = None
    gates: tuple[GateHistory, ...] = ()
    outcome: Outcome = Outcome.INCONCLUSIVE
    why: str = ""
    events: EventTotals | None = None


@dataclass(frozen=True)
class ApartRecord:
    """Two domains of one set, and the least time for which neither was down; negative: the time for which
    both were."""

    first: str
    second: str
    ns: int


@dataclass(frozen=True)
class RolloutRecord:
    """A rollout. by: "update-domain" or "fault-domain". seed: null without a shuffled order. ended:
    "complete", "stopped", or "" when its end is not in the history; why: the reason of a stop. stands: its
    progress in words."""

    by: str
    seed: int | None
    ended: str
    why: str
    waves: tuple[WaveRecord, ...]
    stopped_in: int | None = None
    stands: str = ""


@dataclass(frozen=True)
class OneAtATime:
    """The proof that no more than one domain of a set was down at any time. nearest: the worst two domains of
    one set; null with fewer. times: how often a domain was down, over all `sets`."""

    outcome: Outcome
    why: str
    sets: int
    times: int
    nearest: ApartRecord | None = None
