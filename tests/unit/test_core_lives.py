"""Timelines of events, and what becomes of an announcement, whatever was seen of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval, Stamp
from lab.core.event_findings import event_findings, unannounced
from lab.core.event_timeline import Announced, EventTimeline, timeline_of
from lab.core.method import FreezeMethod, Regime
from lab.core.pause import Pause
from lab.core.plan import Announcement, CycleSpec, HoldPatch, NoticeExpectations, ResyncMechanism
from lab.core.result import CycleResult
from lab.core.resync import ResyncResult, SyncOutcome
from lab.core.scheduled.model import Event, EventStatus, EventType, Happening, Kind, Notice
from lab.core.timeline import Call, Observation
from lab.core.verdict import Outcome, worst
from tests.unit.simulation import MS, S

SPEC = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(2 * S), announce=Announcement())
BEGIN = 100 * S


def at(ns: int) -> Stamp:
    return Stamp(BEGIN + ns, 9_000 * S + ns)


def event(guests: tuple[str, ...], notice_ns: int = 15 * S, duration_s: int = 5) -> Event:
    notice = Notice("web", guests, EventType.FREEZE, notice_ns, duration_s)
    return Event("AB-1", notice, EventStatus.SCHEDULED, at(0), at(notice_ns))


def result(guest: str, stop: int, pause: Interval | None, frozen: bool = True) -> CycleResult:
    """A cycle whose stop call was made so long after the publication, and took 4 ms."""
    length = pause.mid_ns if pause is not None else 2 * S
    method = FreezeMethod.SUSPEND if frozen else FreezeMethod.NONE
    obs = Observation(
        guest, 0, frozen, method, "hold", 30 * S,
        stop=Call(at(stop), at(stop + 4 * MS)), resume=Call(at(stop + length), at(stop + length + 4 * MS)),
    )  # fmt: skip
    felt = None
    if pause is not None:
        felt = Pause(pause, Regime.RESUMED, {}, (), (), None, None, False, None)
    resync = ResyncResult(
        SyncOutcome.SYNCED, "", Interval(10 * MS, 30 * MS), None, None, 0, 0, 0.0, ()
    )  # fmt: skip
    return CycleResult(obs, ResyncMechanism.AGENT, (), pause=felt, resync=resync, spec=SPEC)


def lived(
    given_event: Event, told: list[tuple[Kind, int, str]], results: list[CycleResult], complete: bool = True
) -> EventTimeline:
    happenings = tuple(Happening(at(ns), kind, "web", given_event.id, guest) for kind, ns, guest in told)
    cycles = {("", 0, one.observation.guest): one for one in results}
    return timeline_of(Announced(given_event, 0, 60.0, happenings, "", complete), cycles)


def outcomes(one: EventTimeline, **expect: object) -> dict[str, Outcome]:
    found = event_findings(one, SPEC, NoticeExpectations(**expect))  # type: ignore[arg-type]
    assert len({(f.metric, f.guest) for f in found}) == len(found)
    return {
        metric: worst(f.outcome for f in found if f.metric == metric) for metric in {f.metric for f in found}
    }


GOOD = [
    (Kind.PUBLISHED, 0, ""), (Kind.SEEN, 300 * MS, "web-1"), (Kind.SEEN, 500 * MS, "web-0"),
    (Kind.APPROVED, 900 * MS, "web-1"), (Kind.STARTED, 900 * MS, ""), (Kind.SEEN_STARTED, S, "web-0"),
    (Kind.SEEN_STARTED, 1100 * MS, "web-1"), (Kind.GONE, 7 * S, ""), (Kind.SEEN_GONE, 8 * S, "web-0"),
]  # fmt: skip
PAIR = [
    result(name, 3 * S + i * 10 * MS, Interval(2 * S, 2 * S + 2 * MS))
    for i, name in enumerate(("web-0", "web-1"))
]
ALWAYS = ("started first", "shown as Started", "gone")
P, F, O = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE  # noqa: E741 - one letter each


def without(*kinds: Kind) -> list[tuple[Kind, int, str]]:
    return [one for one in GOOD if one[0] not in kinds]


def moved(kind: Kind, to: int) -> list[tuple[Kind, int, str]]:
    return [(k, to if k is kind else ns, guest) for k, ns, guest in GOOD]


def test_a_timeline() -> None:
    one = lived(event(("web-0", "web-1")), GOOD, PAIR)
    assert one.approved == ("web-1", at(900 * MS))
    assert one.first_stop == at(3 * S)
    assert one.last_resume == at(5 * S + 15 * MS)
    assert one.in_time == Interval(BEGIN + 5 * S + 25 * MS, BEGIN + 5 * S + 45 * MS)
    assert one.notice_ns == 900 * MS
    assert one.minimum_ns == 15 * S
    assert one.after_not_before == Interval(-12 * S, -12 * S + 4 * MS)
    assert [one.within_announced(member) for member in one.members] == [True, True]
    assert outcomes(
        one, acknowledged=True, seen=True, started_seen=True, kept=True, cancelled=False, at_least_ns=800 * MS
    ) == dict.fromkeys(
        (*ALWAYS, "cancelled", "acknowledged", "seen", "seen as Started", "pause announced", "notice"), P
    )  # fmt: skip


@pytest.mark.parametrize(
    ("told", "metric", "wanted"),
    [
        (without(Kind.STARTED), "started first", F),
        (moved(Kind.STARTED, 3500 * MS), "started first", F),
        (moved(Kind.STARTED, 3 * S + 2 * MS), "started first", O),  # within the call
        (moved(Kind.STARTED, 2 * S), "shown as Started", F),
        (moved(Kind.STARTED, S + 2 * MS), "shown as Started", O),  # as long as the call takes
        (without(Kind.GONE), "gone", F),
        (moved(Kind.GONE, 4 * S), "gone", F),
    ],
)
def test_what_is_always_expected(told: list[tuple[Kind, int, str]], metric: str, wanted: Outcome) -> None:
    assert outcomes(lived(event(("web-0", "web-1")), told, PAIR))[metric] is wanted


@pytest.mark.parametrize(
    ("told", "expect", "metric", "wanted"),
    [
        (without(Kind.APPROVED), {"acknowledged": True}, "acknowledged", F),
        (without(Kind.APPROVED), {"acknowledged": False}, "acknowledged", P),
        (GOOD, {"acknowledged": False}, "acknowledged", F),
        (moved(Kind.APPROVED, 16 * S), {"acknowledged": True}, "acknowledged", F),
        (without(Kind.SEEN, Kind.SEEN_STARTED), {"seen": True}, "seen", F),
        (without(Kind.SEEN, Kind.SEEN_STARTED), {"seen": False}, "seen", P),
        (without(Kind.SEEN), {"seen": True}, "seen", P),  # first shown as Started
        (without(Kind.SEEN), {"seen": False}, "seen", F),
        (moved(Kind.SEEN_STARTED, 3 * S + 2 * MS), {"started_seen": True}, "seen as Started", O),
        (moved(Kind.SEEN_STARTED, 3 * S + 12 * MS), {"started_seen": True}, "seen as Started", F),
        (without(Kind.SEEN_STARTED), {"started_seen": False}, "seen as Started", P),
        (GOOD, {"kept": False}, "pause announced", F),
        (GOOD, {"cancelled": True}, "cancelled", F),
        (GOOD, {"at_most_ns": 900 * MS}, "notice", P),
        (GOOD, {"at_most_ns": 899 * MS}, "notice", F),
    ],
)  # fmt: skip
def test_what_is_expected(
    told: list[tuple[Kind, int, str]], expect: dict[str, object], metric: str, wanted: Outcome
) -> None:
    assert outcomes(lived(event(("web-0", "web-1")), told, PAIR), **expect)[metric] is wanted


@pytest.mark.parametrize(
    ("pause", "kept"),
    [
        (Interval(4 * S, 5 * S), True), (Interval(5 * S + 1, 6 * S), False),
        (Interval(5 * S - 1, 5 * S + 1), None), (None, None),
    ],
)  # fmt: skip
def test_a_bound_that_straddles_the_announced_duration_is_undecided(
    pause: Interval | None, kept: bool | None
) -> None:
    one = lived(event(("web-0",)), GOOD, [result("web-0", 3 * S, pause)])
    assert one.within_announced(one.members[0]) is kept
    by_outcome = {True: P, False: F, None: O}
    assert outcomes(one, kept=True)["pause announced"] is by_outcome[kept]
    opposite = None if kept is None else not kept
    assert outcomes(one, kept=False)["pause announced"] is by_outcome[opposite]


def test_an_unknown_duration_is_neither_kept_nor_broken() -> None:
    one = lived(event(("web-0",), duration_s=-1), GOOD, PAIR[:1])
    assert outcomes(one, kept=True)["pause announced"] is O


def test_nobody_is_told_and_nobody_is_waited_for() -> None:
    one = lived(event(("web-0", "web-1")), [(Kind.NOT_ENABLED, 0, "")], PAIR)
    assert one.published is None
    assert outcomes(one) == {"started first": P, "gone": P}
    found = outcomes(one, acknowledged=True, seen=False, at_least_ns=0)
    assert (found["acknowledged"], found["seen"], found["notice"]) == (F, P, O)


def test_an_approval_by_hand_is_no_guests() -> None:
    told = [*without(Kind.APPROVED), (Kind.APPROVED, 800 * MS, "")]
    one = lived(event(("web-0", "web-1")), told, PAIR)
    assert (one.approved, one.released) == (None, at(800 * MS))
    assert outcomes(one, acknowledged=True)["acknowledged"] is F
    assert outcomes(one, acknowledged=False)["acknowledged"] is P


CALLED_OFF = [*GOOD[:3], (Kind.CANCELLED, 2 * S, "")]


def test_a_cancelled_event_demands_no_freeze() -> None:
    spared = [result(name, 5 * S, None, frozen=False) for name in ("web-0", "web-1")]
    one = lived(event(("web-0", "web-1")), CALLED_OFF, spared)
    assert outcomes(one, cancelled=True) == {"gone": P, "cancelled": P}
    assert outcomes(one, cancelled=False)["cancelled"] is F
    assert outcomes(one)["cancelled"] is O, "nobody planned it"
    planned = replace(SPEC, announce=Announcement(cancel_after_ns=S))
    assert {f.outcome for f in event_findings(one, planned, NoticeExpectations())} == {P}
    assert outcomes(lived(event(("web-0", "web-1")), CALLED_OFF, PAIR), cancelled=True)["cancelled"] is F


@given(st.sets(st.integers(0, len(GOOD) - 1)), st.sets(st.integers(0, 1)), st.booleans())
def test_what_was_not_seen_is_never_green(lost: set[int], cycles: set[int], complete: bool) -> None:
    """A history that ends early, whatever of it is lost: it proves nothing that it does not show."""
    told = [one for i, one in enumerate(GOOD) if i not in lost]
    results = [one for i, one in enumerate(PAIR) if i not in cycles]
    found = outcomes(
        lived(event(("web-0", "web-1")), told, results, complete),
        acknowledged=True, seen=True, started_seen=True, kept=True,
    )  # fmt: skip
    kinds = {kind for kind, _, _ in told}
    assert (Kind.STARTED in kinds and not cycles) or found["started first"] is not P
    assert Kind.GONE in kinds or found["gone"] is not P
    assert Kind.APPROVED in kinds or found["acknowledged"] is not P
    started = {guest for kind, _, guest in told if kind is Kind.SEEN_STARTED}
    assert (len(started) == 2 and not cycles) or found["seen as Started"] is not P
    assert not cycles or found["pause announced"] is not P
    cut = lost == set(range(len(GOOD) - len(lost), len(GOOD)))
    if cut and not complete:
        assert F not in found.values(), "what is not in a history that was cut off may have happened"


@given(st.permutations(GOOD))
def test_order_in_the_history_means_nothing(told: list[tuple[Kind, int, str]]) -> None:
    one, two = (lived(event(("web-0", "web-1")), given_, PAIR) for given_ in (GOOD, told))
    assert replace(two, announced=one.announced) == one


def test_a_freeze_without_an_announcement_is_not_green() -> None:
    one = lived(event(("web-0",)), GOOD, PAIR[:1])
    found = unannounced(PAIR, [one])
    assert [(f.cycle, f.outcome) for f in found] == [(0, O)]
    assert "web-1" in found[0].why
    assert not unannounced(PAIR[:1], [one])
    assert worst(f.outcome for f in found) is O
