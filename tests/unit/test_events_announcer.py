"""What an announcement comes to, and the announcer over the core's machine."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest

from lab.core.announcement import (
    duration_s,
    event_type,
    groups_of,
    notice_ns,
    notice_of,
    rules_of,
    together,
)
from lab.core.clock import Stamp
from lab.core.patch import CommandPatch, HoldPatch, Impact, LivepatchPatch, Patch, ReplaceHypervisorPatch
from lab.core.plan import Announcement, CycleSpec, FreezeMethod, OtherEvent, ServiceFaults
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import EventSource, EventStatus, EventType, Fault, Kind, Recorded, Rules, State
from lab.events.announcer import ServiceAnnouncer
from lab.ports import Announcer

S = 1_000_000_000
FREEZE: Patch = HoldPatch(5 * S)
CYCLE = CycleSpec(FreezeMethod.SUSPEND, FREEZE)
REBOOT: Patch = CommandPatch(("true",), S, Impact.REBOOT)
GROUPS = {"web-0": "web", "web-1": "web", "web-2": "web", "db-0": "guest db-0"}


# -- what an announcement comes to -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "patch", "kind"),
    [
        (Announcement(), FREEZE, EventType.FREEZE),
        (Announcement(), REBOOT, EventType.REBOOT),
        (Announcement(), LivepatchPatch("/m.ko"), EventType.FREEZE),
        (Announcement(type=EventType.PREEMPT), REBOOT, EventType.PREEMPT),
    ],
)
def test_the_event_type_follows_from_the_patch_unless_it_is_given(
    spec: Announcement, patch: Patch, kind: EventType
) -> None:
    assert event_type(spec, patch) is kind


@pytest.mark.parametrize("kind", EventType)
def test_notice_is_the_documented_minimum_scaled(kind: EventType) -> None:
    minutes = {"Freeze": 15, "Reboot": 15, "Redeploy": 10, "Preempt": 0.5, "Terminate": 5}[kind]
    assert notice_ns(Announcement(time_factor=60), kind) == minutes * S
    assert notice_ns(Announcement(time_factor=1), kind) == minutes * 60 * S
    assert notice_ns(Announcement(notice_ns=30 * S, time_factor=10), kind) == 3 * S
    assert notice_ns(Announcement(notice_ns=0), kind) == 0


@pytest.mark.parametrize(
    ("hold_s", "announced_s"),
    [(0, 5), (4, 5), (5, 9), (8, 9), (9, 30), (10, 30), (29, 30), (29.5, 30), (30, 30)],
)
def test_the_announced_duration_has_room_for_the_patch_and_the_method(
    hold_s: float, announced_s: int
) -> None:
    """A hold of 10 s is a pause of 10,010 ms: announced as 10 s, it would break its promise."""
    cycle = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(int(hold_s * S)))
    assert duration_s(Announcement(), EventType.FREEZE, cycle) == announced_s


@pytest.mark.parametrize(
    ("method", "prove_memory", "announced_s"),
    [
        (FreezeMethod.SIGSTOP, False, 5), (FreezeMethod.IN_PLACE, False, 5),
        (FreezeMethod.SAVE_RESTORE, False, 30), (FreezeMethod.GUEST_SLEEP, False, 30),
        (FreezeMethod.IN_PLACE, True, 30),
    ],
)  # fmt: skip
def test_what_depends_on_the_guest_is_bounded_by_the_budget(
    method: FreezeMethod, prove_memory: bool, announced_s: int
) -> None:
    cycle = CycleSpec(method, HoldPatch(S), prove_memory=prove_memory)
    assert duration_s(Announcement(), EventType.FREEZE, cycle) == announced_s
    assert duration_s(Announcement(), EventType.FREEZE, replace(cycle, budget_ns=8 * S)) <= 9
    longer = CycleSpec(method, HoldPatch(60 * S), budget_ns=90 * S)
    assert duration_s(Announcement(), EventType.FREEZE, longer) == -1


def test_an_announced_duration_is_the_plans_or_the_default() -> None:
    replaced = CycleSpec(FreezeMethod.IN_PLACE, ReplaceHypervisorPatch())
    assert duration_s(Announcement(), EventType.FREEZE, replaced) == 5
    for kind in set(EventType) - {EventType.FREEZE}:
        assert duration_s(Announcement(), kind, CYCLE) == -1
        assert duration_s(Announcement(duration_s=0), kind, CYCLE) == 0
    assert duration_s(Announcement(duration_s=6), EventType.FREEZE, CYCLE) == 6


def test_descriptions_are_those_of_azure_s_own_simulator() -> None:
    told = {
        (kind, source): notice_of("g", ["a"], Announcement(type=kind, source=source), CYCLE).description
        for kind in EventType
        for source in EventSource
    }
    platform, user = EventSource.PLATFORM, EventSource.USER
    assert told[EventType.FREEZE, platform] == "Host server is undergoing maintenance."
    assert told[EventType.REDEPLOY, platform] == "Virtual machine has encountered a failure."
    assert told[EventType.PREEMPT, platform] == "The Virtual Machine will be evicted."
    for kind, word in ((EventType.REBOOT, "restarted"), (EventType.REDEPLOY, "redeployed")):
        assert told[kind, user] == f"Virtual machine is going to be {word} as requested by authorized user."
    assert all(text.isascii() and text.endswith(".") for text in told.values())
    said = notice_of("g", ["b", "a"], Announcement(description="mine", source=EventSource.USER), CYCLE)
    assert (said.description, said.source, said.resources) == ("mine", EventSource.USER, ("b", "a"))


def test_the_rules_are_those_of_the_announcement() -> None:
    assert rules_of(Announcement()) == Rules()
    faults = ServiceFaults(first_answer_ns=120 * S, rate_limit=True)
    assert rules_of(Announcement(time_factor=1, service=faults)) == Rules(
        1, most_per_second=5, first_answer_s=120
    )


def test_a_guest_in_no_set_is_in_no_other_s_group() -> None:
    def about(guest: str, member_of: str = "") -> InstanceInfo:
        return InstanceInfo(guest, f"lab_{guest}", "", "", availability_set=member_of)

    given = [about("web"), about("db"), about("a", "web"), about("b", "web"), about("c", "guest db")]
    for order in permutations(given):
        groups = groups_of(order)
        assert groups["a"] == groups["b"] == "web"
        assert groups["c"] == "guest db"
        assert len(set(groups.values())) == 4


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ((), State.NOT_ENABLED),
        ((State.NOT_ENABLED, State.NOT_ENABLED), State.NOT_ENABLED),
        ((State.STARTED, State.SCHEDULED, State.CANCELLED), State.SCHEDULED),
        ((State.STARTED, State.CANCELLED, State.OVER), State.CANCELLED),
        ((State.STARTED, State.OVER), State.STARTED),
        ((State.STARTED, State.NOT_ENABLED), State.STARTED),
        ((State.OVER, State.NOT_ENABLED), State.OVER),
        ((State.OVER, State.OVER), State.OVER),
    ],
)
def test_the_state_of_several(states: Sequence[State], state: State) -> None:
    assert together(states) is together(reversed(list(states))) is state


# -- the announcer -----------------------------------------------------------------------------------


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.ns = 1000 * S

    def now(self) -> Stamp:
        return Stamp(self.ns, self.ns + 1_700_000_000 * S)

    def sleep_until(self, raw_ns: int) -> None:
        self.ns = max(self.ns, raw_ns)


class Bench:
    """An announcer, and guests that ask without HTTP."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.clock, self.machine = Hands(), Machine(GROUPS, rules or Rules())
        self.announcer = ServiceAnnouncer(self.machine, GROUPS, threading.Lock(), self.clock)

    def poll(self, guest: str) -> list[str]:
        self.machine.admit(self.clock.now(), guest)
        return [event.id for event in self.machine.poll(self.clock.now(), guest)[1]]

    def kinds(self) -> list[Kind]:
        return [one.kind for one in self.announcer.happened()]


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    for guest in GROUPS:
        made.poll(guest)
    made.announcer.happened()
    return made


def test_one_event_for_each_delivery_group(bench: Bench) -> None:
    announcer: Announcer = bench.announcer
    ids = announcer.announce(["db-0", "web-2", "web-0", "web-2"], Announcement(), CYCLE)
    assert all(re.fullmatch(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", one) for one in ids)
    db, web = announcer.published(ids)
    assert (db.notice.group, db.notice.resources) == ("guest db-0", ("db-0",))
    assert (web.notice.group, web.notice.resources) == ("web", ("web-2", "web-0"))
    assert bench.poll("web-1") == [web.id]
    assert bench.poll("db-0") == [db.id]
    assert web.not_before.raw_ns - web.published.raw_ns == 15 * S
    assert set(announcer.announce(list(GROUPS), Announcement(), CYCLE)).isdisjoint(ids)


def test_a_life_from_publication_to_all_clear(bench: Bench) -> None:
    ids = bench.announcer.announce(["web-0", "db-0"], Announcement(), CYCLE)
    assert bench.announcer.state(ids) is State.SCHEDULED
    bench.clock.ns += 15 * S - 1
    assert bench.announcer.state(ids) is State.SCHEDULED
    bench.clock.ns += 1
    assert bench.announcer.state(ids) is State.STARTED
    assert {event.status for event in bench.announcer.published(ids)} == {EventStatus.STARTED}
    bench.announcer.cancel(ids)
    assert bench.announcer.state(ids) is State.STARTED
    bench.announcer.all_clear(ids[:1])
    assert bench.announcer.state(ids) is State.STARTED
    bench.announcer.all_clear(ids)
    bench.announcer.all_clear(ids)
    assert bench.announcer.state(ids) is State.OVER
    assert bench.poll("web-1") == []
    assert bench.kinds() == [Kind.PUBLISHED, Kind.PUBLISHED, Kind.STARTED, Kind.STARTED, Kind.GONE, Kind.GONE]
    assert bench.announcer.happened() == ()


def test_time_passes_by_itself_for_whoever_asks_what_happened(bench: Bench) -> None:
    (event,) = bench.announcer.announce(["web-0"], Announcement(), CYCLE)
    assert bench.kinds() == [Kind.PUBLISHED]
    bench.clock.ns += 20 * S
    assert bench.kinds() == [Kind.STARTED]
    assert bench.announcer.published([event])[0].status is EventStatus.STARTED


def test_it_waits_for_the_last_of_those_that_were_told_together(bench: Bench) -> None:
    ids = bench.announcer.announce(["web-0", "db-0"], Announcement(), CYCLE)
    bench.machine.approve(bench.clock.now(), "web-1", [ids[0]])
    assert bench.announcer.state(ids) is State.SCHEDULED
    bench.machine.approve(bench.clock.now(), "db-0", [ids[1]])
    assert bench.announcer.state(ids) is State.STARTED


def test_what_is_called_off(bench: Bench) -> None:
    ids = bench.announcer.announce(["web-0", "db-0"], Announcement(), CYCLE)
    bench.announcer.cancel(ids)
    assert bench.announcer.state(ids) is State.CANCELLED
    bench.announcer.all_clear(ids)
    assert bench.announcer.state(ids) is State.CANCELLED


def test_guests_whose_group_never_polled_are_not_notified() -> None:
    bench = Bench()
    bench.poll("db-0")
    ids = bench.announcer.announce(["web-0", "db-0"], Announcement(), CYCLE)
    assert bench.announcer.state(ids[:1]) is State.NOT_ENABLED
    assert bench.announcer.state(ids) is State.SCHEDULED
    assert bench.announcer.has_asked("db-0")
    assert not bench.announcer.has_asked("web-0")
    bench.clock.ns += 15 * S
    bench.announcer.all_clear(ids)
    assert bench.announcer.state(ids) is State.OVER


def test_a_guest_that_is_not_known_has_nothing_published(bench: Bench) -> None:
    with pytest.raises(KeyError):
        bench.announcer.announce(["web-0", "nobody"], Announcement(), CYCLE)
    assert bench.announcer.happened() == ()
    assert bench.poll("web-0") == []


def test_what_is_wrong_on_purpose_begins_with_the_announcement(bench: Bench) -> None:
    def asked(guest: str) -> Fault | Recorded | None:
        return bench.machine.admit(bench.clock.now(), guest)[0]

    faults = ServiceFaults(answers=(Fault.GONE, Fault.BROKEN), restarts=True)
    bench.announcer.announce(["web-0"], Announcement(), CYCLE)
    assert bench.machine.poll(bench.clock.now(), "web-0")[0] == 2
    assert asked("web-0") is None
    bench.announcer.announce(["web-0"], Announcement(service=faults), CYCLE)
    for guest in ("web-0", "web-1"):
        assert [asked(guest) for _ in range(3)] == [Fault.GONE, Fault.BROKEN, None]
    assert asked("db-0") is None
    assert bench.machine.poll(bench.clock.now(), "web-0")[0] == 1
    assert bench.machine.poll(bench.clock.now(), "db-0")[0] == 1


def test_events_beside_it_come_and_go_with_it(bench: Bench) -> None:
    others = (OtherEvent(EventType.REBOOT, 3600 * S), OtherEvent(EventType.REDEPLOY, 0, EventSource.USER))
    (event,) = bench.announcer.announce(["web-0"], Announcement(others=others), CYCLE)
    shown = bench.machine.poll(bench.clock.now(), "web-1")[1]
    assert [(one.notice.type.value, one.status.value) for one in shown] == [
        ("Freeze", "Scheduled"), ("Reboot", "Scheduled"), ("Redeploy", "Started"),
    ]  # fmt: skip
    assert {one.notice.resources for one in shown} == {("web-0",)}
    assert shown[1].not_before.raw_ns - shown[0].published.raw_ns == 60 * S
    assert bench.announcer.state([event]) is State.SCHEDULED, "only it is waited for"
    assert bench.poll("db-0") == []
    bench.announcer.happened()
    bench.announcer.all_clear([event])
    bench.announcer.all_clear([event])
    assert bench.poll("web-0") == []
    assert [k for k in bench.kinds() if k is not Kind.SEEN_GONE] == [Kind.GONE, Kind.CANCELLED, Kind.GONE]


def test_the_operator_approves_in_nobody_s_name(bench: Bench) -> None:
    (event,) = bench.announcer.announce(["web-0"], Announcement(), CYCLE)
    bench.announcer.approve([event])
    told = bench.announcer.happened()
    assert [one.kind for one in told] == [Kind.PUBLISHED, Kind.APPROVED, Kind.STARTED]
    assert (told[1].guest, told[1].text) == ("", "by the operator")
    (other,) = bench.announcer.announce(["web-0"], Announcement(), CYCLE)
    bench.announcer.start([other])
    assert bench.announcer.state([event, other]) is State.STARTED
    assert bench.kinds() == [Kind.PUBLISHED, Kind.STARTED]
