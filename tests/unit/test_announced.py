"""Freezes that were announced: the real controller, the real machine of the metadata service and the real
announcer over it, on simulated guests whose handlers ask once a second."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.history import (
    CycleBegan,
    EventsAnnounced,
    PatchApplied,
    ResumeCalled,
    StopCalled,
)
from lab.core.plan import Announcement
from lab.core.scheduled.model import EventStatus, Kind
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestGone
from tests.unit.announced_fleet import MINUTE, AnnouncedFleet
from tests.unit.sim_fleet import SHORT, fleet


def test_an_event_lives_from_its_publication_until_all_are_in_time() -> None:
    lab = AnnouncedFleet(fleet(4, 2), Announcement())
    lab.run()
    stops, backs = lab.calls(StopCalled), lab.calls(ResumeCalled)
    assert [resources for _, resources in lab.announced()] == [("g0", "g2"), ("g1", "g3")]
    for (event, resources), published, approved, started, gone in zip(
        lab.announced(),
        lab.happenings(Kind.PUBLISHED),
        lab.happenings(Kind.APPROVED),
        lab.happenings(Kind.STARTED),
        lab.happenings(Kind.GONE),
        strict=True,
    ):
        assert {h.event for h in (published, approved, started, gone)} == {event}
        assert approved.guest in resources, "the others drain nothing, and do not approve"
        seen = [h for h in lab.happenings(Kind.SEEN) if h.event == event]
        assert sorted(h.guest for h in seen) == ["g0", "g1", "g2", "g3"], "the whole set is told"
        first, last = stops[resources[0]].called, backs[resources[-1]].returned
        assert published.at.raw_ns < approved.at.raw_ns <= started.at.raw_ns
        assert first.raw_ns - started.at.raw_ns >= Announcement().started_ns
        assert started.at.raw_ns - published.at.raw_ns < 15 * NS_PER_S, "nobody waited for NotBefore"
        assert last.raw_ns + NS_PER_S <= gone.at.raw_ns <= last.raw_ns + SHORT.watch_ns
    for handler in lab.handlers:
        started_seen = [event for _, event, status in handler.seen if status is EventStatus.STARTED]
        assert set(started_seen) == {event for event, _ in lab.announced()}
    assert [state for label, state in lab.world.shown if label == "set-0 UD 1"] == [
        "waiting", "announced", "started", "frozen", "resyncing", "done",
    ]  # fmt: skip


def test_without_an_approval_the_freeze_waits_for_not_before() -> None:
    lab = AnnouncedFleet(fleet(1, 1), Announcement(notice_ns=10 * MINUTE), drains_ns=None)
    lab.run()
    (event,) = lab.world.of(EventsAnnounced)[0].events
    assert event.not_before.raw_ns - event.published.raw_ns == 10 * NS_PER_S
    assert lab.calls(StopCalled)["g0"].called.raw_ns >= event.not_before.raw_ns
    assert not lab.happenings(Kind.APPROVED)


def test_guests_that_have_all_ended_are_not_waited_for() -> None:
    """V10: the only guest powers itself off when it is told. It was told at NotBefore only."""
    lab = AnnouncedFleet(fleet(2, 1), Announcement(notice_ns=10 * MINUTE), drains_ns=None)
    begun = lab.world.at
    for guest in lab.world.guests.values():
        guest.ends_at = begun + NS_PER_S
    with pytest.raises(GuestGone, match="guest g0: has ended"):
        lab.run()
    assert lab.world.at - begun < 2 * NS_PER_S
    assert lab.happenings(Kind.CANCELLED) and not lab.happenings(Kind.STARTED)
    assert not lab.world.of(StopCalled)


def test_one_that_is_left_is_frozen_when_it_is_due() -> None:
    lab = AnnouncedFleet(fleet(2, 1), Announcement(notice_ns=10 * MINUTE), drains_ns=None)
    lab.world.guests["g0"].ends_at = lab.world.at + NS_PER_S
    with pytest.raises(GuestGone, match="guest g0: has ended"):
        lab.run()
    (event,) = lab.world.of(EventsAnnounced)[0].events
    assert lab.calls(StopCalled)["g1"].called.raw_ns >= event.not_before.raw_ns
    assert "g0" not in lab.calls(StopCalled)


def test_a_group_that_never_asked_is_frozen_at_once() -> None:
    lab = AnnouncedFleet(fleet(2, 2, sets=2), Announcement(), listeners=["g0"])
    begun = lab.world.at
    lab.run()
    assert [h.group for h in lab.happenings(Kind.NOT_ENABLED)] == ["set-1"]
    assert lab.calls(StopCalled)["g1"].called.raw_ns - begun < 15 * NS_PER_S
    alone = AnnouncedFleet(fleet(1, 1), Announcement(), listeners=[])
    begun = alone.world.at
    alone.run()
    assert alone.calls(StopCalled)["g0"].called.raw_ns - begun <= SHORT.before_ns + 100 * NS_PER_MS


def test_a_cancelled_event_freezes_no_guest() -> None:
    lab = AnnouncedFleet(fleet(2, 1), Announcement(cancel_after_ns=5 * MINUTE), drains_ns=None)
    lab.run()
    assert lab.world.most_down == 0
    assert [event.frozen for event in lab.world.of(CycleBegan)] == [False, False]
    assert not lab.world.of(PatchApplied), "the host is left alone"
    assert len(lab.happenings(Kind.CANCELLED)) == 1 and not lab.happenings(Kind.STARTED)
    assert not any(status is EventStatus.STARTED for h in lab.handlers for _, _, status in h.seen)


def test_approved_before_it_could_be_called_off() -> None:
    lab = AnnouncedFleet(fleet(1, 1), Announcement(cancel_after_ns=10 * MINUTE))
    lab.run()
    assert lab.world.most_down == 1 and not lab.happenings(Kind.CANCELLED)


def test_guests_that_never_come_back_to_time_keep_the_event_until_the_cycle_ends() -> None:
    lab = AnnouncedFleet(fleet(1, 1), Announcement())
    lab.world.repair_ns = None
    lab.run()
    gone = lab.happenings(Kind.GONE)[0].at.raw_ns
    assert gone >= lab.calls(ResumeCalled)["g0"].returned.raw_ns + SHORT.watch_ns


@pytest.mark.parametrize("notice_ns", [0, 30 * NS_PER_S])
def test_a_freeze_waits_no_longer_than_a_short_notice(notice_ns: int) -> None:
    lab = AnnouncedFleet(fleet(1, 1), Announcement(notice_ns=notice_ns), drains_ns=None)
    lab.run()
    started = lab.happenings(Kind.STARTED)[0]
    assert (
        started.at.raw_ns - lab.happenings(Kind.PUBLISHED)[0].at.raw_ns <= notice_ns // 60 + 100 * NS_PER_MS
    )
    stopped = lab.calls(StopCalled)["g0"].called.raw_ns
    assert stopped - started.at.raw_ns >= Announcement().started_ns, "it can be read all the same"


@settings(max_examples=25)
@given(
    count=st.integers(1, 6),
    domains=st.integers(1, 3),
    sets=st.integers(1, 2),
    drains=st.none() | st.integers(0, 20 * NS_PER_S),
    listening=st.integers(0, 6),
    notice=st.none() | st.integers(0, 20) | st.integers(0, 1000),
    cancel=st.none() | st.integers(0, 1000),
    started=st.integers(0, 5 * NS_PER_S),
    factor=st.sampled_from([1.0, 60.0, 600.0]),
)
def test_nobody_is_frozen_before_its_event_has_started_and_been_shown(
    count: int,
    domains: int,
    sets: int,
    drains: int | None,
    listening: int,
    notice: int | None,
    cancel: int | None,
    started: int,
    factor: float,
) -> None:
    announcement = Announcement(
        notice_ns=None if notice is None else notice * NS_PER_S,
        cancel_after_ns=None if cancel is None else cancel * NS_PER_S,
        started_ns=started,
        time_factor=factor,
    )
    specs = fleet(count, domains, sets)
    lab = AnnouncedFleet(specs, announcement, drains, [spec.name for spec in specs][:listening])
    lab.run()
    stops = lab.calls(StopCalled)
    began = {h.event: h.at.raw_ns for h in lab.happenings(Kind.STARTED)}
    unheard = {h.event for h in lab.happenings(Kind.NOT_ENABLED)}
    off = {h.event for h in lab.happenings(Kind.CANCELLED)}
    frozen = {event.guest: event.frozen for event in lab.world.of(CycleBegan)}
    assert sorted(frozen) == sorted(spec.name for spec in specs)
    for event, resources in lab.announced():
        for guest in resources:
            if event in off:
                assert not frozen[guest]
            elif event not in unheard and frozen[guest]:
                assert stops[guest].called.raw_ns - began[event] >= started
    gone = {h.event for h in lab.happenings(Kind.GONE)}
    assert gone >= set(began), "nothing is shown for ever"
    for guest in lab.world.guests:
        assert lab.machine.poll(lab.world.now(), guest)[1] == ()
