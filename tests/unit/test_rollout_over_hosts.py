"""A rollout over hosts: the real controller, each host's real rollout and rendezvous, simulated guests, and
socket pairs instead of SSH."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from lab.controller import RolloutStop
from lab.core.clock import Interval
from lab.core.history import (
    CycleBegan,
    EventHappened,
    EventsAnnounced,
    GateAsked,
    RolloutEnded,
    ServiceFailed,
    StopCalled,
    WaveReached,
)
from lab.core.offsets import Sample
from lab.core.own_domain import SshTarget
from lab.core.plan import Cell, DomainKind, GuestSpec, Plan, RolloutEnd
from lab.core.rollout_result import RolloutHistory, WaveHistory, over_hosts
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Kind
from lab.errors import FreezelabError
from lab.hosts import fleet_host, fleet_run
from lab.hosts.fleet_events import FleetListener
from lab.hosts.fleet_host import FleetHost
from lab.hosts.fleet_run import FleetOptions, FleetRun
from lab.hosts.hosts_file import HostEntry
from lab.playbook import parse
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.session.fleet_service import FleetAnnouncer
from lab.session.listeners import made_up
from lab.session.rendezvous import SERVE, Rendezvous
from tests.unit.http_clients import Client, approval
from tests.unit.http_clients import folder as folder
from tests.unit.sim_fleet import SHORT, World, world_of

PLAYBOOK = b"""
name: a
hosts: [r1, r2]
fleet:
  guests: [{name: web, count: 3}, {name: db, host: r2}]
  availability_sets: [{name: web, guests: [web], update_domains: 3}, {name: db, guests: [db]}]
rollout: {sets: one-after-another, gates: [{command: "true"}]}
resync: push
cycle: {patch: {hold: 5s}}
"""
JOIN_S = 20.0


def about(number: int, spec: GuestSpec) -> InstanceInfo:
    """What the metadata service has to know of a guest."""
    return replace(made_up(spec.name, number), availability_set=spec.availability_set)


class CutChannel(socket.socket):
    """A channel whose program has no exit status when it ends, as that of a link that is cut."""

    def recv_exit_status(self) -> int:
        return -1


class PairedHost(FleetHost):
    """A host whose child is a thread here. Its clock is this machine's."""

    def __init__(self, name: str, cell: Cell, plan: Plan) -> None:
        super().__init__(HostEntry(name, SshTarget(name)), f"run-{name}", HostClock())
        near, self.far = socket.socketpair()
        self.near = CutChannel(fileno=near.detach())
        self.world = world_of(list(cell.guests))
        self.cell, self.plan = cell, plan
        self.stopped: RolloutStop | FreezelabError | None = None
        self.instants: list[int] = []
        self.asked = threading.Event()
        """Set when the service has been asked for the first time, where a test needs that before all else."""

    def begin(self) -> None:
        self._child, self.over = cast(Any, self.near), False
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._keep, daemon=True).start()
        self.thread = threading.Thread(target=self._roll, daemon=True)
        self.thread.start()

    def _roll(self) -> None:
        meeting = Rendezvous(HostClock(), self.far.fileno(), self.far.fileno())
        rollout = self.plan.rollout
        assert rollout is not None
        announce = self.plan.cycle.announce
        announcer = FleetAnnouncer(meeting) if announce is not None else None
        try:
            if announcer is not None:
                self.secrets = meeting.serve(
                    [about(number, spec) for number, spec in enumerate(self.cell.guests)]
                )[1]
            self.stopped = self.world.roll_out(
                self.cell.guests, rollout, replace(SHORT, announce=announce), announcer,
                all_guests=self.plan.guests, meeting=meeting,
            )  # fmt: skip
        except FreezelabError as error:
            self.stopped = error
        self.far.close()

    def serve(self, listener: FleetListener) -> None:
        assert self.asked.wait(JOIN_S)
        self._answer(f"{SERVE} 1 {json.dumps(listener.secrets)}")

    def read_clock(self) -> None:
        now = HostClock().now().raw_ns
        self.samples.append(Sample(now, now, Interval(-1000, 1000)))

    def freeze(self, at_raw_ns: int) -> None:
        self.instants.append(at_raw_ns)
        super().freeze(at_raw_ns)


@dataclass
class Pair:
    """Two hosts and their controller. reasons: what it noted."""

    hosts: list[PairedHost]
    run: FleetRun
    reasons: list[str] = field(default_factory=list)

    def roll(self) -> None:
        for host in self.hosts:
            host.begin()
        self.run.cycles()
        for host in self.hosts:
            host.thread.join(JOIN_S)
            assert not host.thread.is_alive()

    def asked(self) -> None:
        """The service has been asked, or nobody will."""
        for host in self.hosts:
            host.asked.set()

    def of(self, host: int, kind: type[Any]) -> list[Any]:
        return self.hosts[host].world.of(kind)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(fleet_run, "AFTER_NS", 0)
    monkeypatch.setattr(fleet_host, "_SURE_S", 0)
    yield from paired(PLAYBOOK)


@pytest.fixture
def announcing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Pair]:
    """As `pair`, with announcements."""
    monkeypatch.setattr(fleet_run, "AFTER_NS", 0)
    monkeypatch.setattr(fleet_host, "_SURE_S", 0)
    monkeypatch.setenv("FREEZELAB_HOME", str(folder))
    yield from paired(PLAYBOOK + b"announce: {notice: 15min}\n")


@pytest.fixture
def calling_off(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Pair]:
    """As `announcing`, and each event is called off after a tenth of a second."""
    monkeypatch.setattr(fleet_run, "AFTER_NS", 0)
    monkeypatch.setenv("FREEZELAB_HOME", str(folder))
    yield from paired(PLAYBOOK + b"announce: {notice: 15min, cancel_after: 6s}\n")


def paired(playbook: bytes) -> Iterator[Pair]:
    plan = parse(playbook, "p.yaml")
    hosts = [PairedHost(cell.id, cell, plan) for cell in plan.cells]
    run = FleetRun(plan, FleetOptions(Path("p.yaml")), hosts, "run", HostClock(), NullView())
    yield Pair(hosts, run)
    for host in hosts:
        host.near.close()


def frozen(world: World) -> list[str]:
    return [stop.guest for stop in world.of(StopCalled)]


def test_waves_go_over_all_hosts_one_after_another(pair: Pair) -> None:
    """web-0 and web-2 are on r1, web-1 and db on r2; each wave has one guest, so one host waits in each."""
    pair.roll()
    first, second = pair.hosts
    assert (frozen(first.world), frozen(second.world)) == (["web-0", "web-2"], ["web-1", "db"])
    assert [host.stopped for host in pair.hosts] == [None, None]
    assert (len(first.instants), len(second.instants)) == (2, 2)
    assert first.instants[0] < second.instants[0] < first.instants[1] < second.instants[1]
    for number in range(2):
        assert [(wave.number, wave.when) for wave in pair.of(number, WaveReached)] == [
            (wave, when) for wave in (1, 2, 3, 4) for when in ("begin", "end")
        ]
        assert pair.of(number, RolloutEnded) == [RolloutEnded(RolloutEnd.COMPLETE, "", 4)]
    assert [gate.guest for gate in pair.of(0, GateAsked)] == ["web-0", "web-2"]


def sick(pair: Pair) -> None:
    pair.hosts[1].world.guests["web-1"].sick = "exited with 3"


def gone(pair: Pair) -> None:
    """r2 is cut off when it is about to freeze web-1."""
    host = pair.hosts[1]
    real = host.freeze

    def freeze(at_raw_ns: int) -> None:
        real(at_raw_ns)
        host.near.shutdown(socket.SHUT_RDWR)

    host.freeze = freeze  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("break_it", "why", "own"),
    [
        (sick, "r2: web-1: command true: exited with 3", "r2: web-1: command true: exited with 3"),
        (gone, "r2: cut off", "controller: gone"),
    ],
)
def test_a_wave_that_is_not_over_on_one_host_is_the_last_on_all(
    pair: Pair, break_it: Callable[[Pair], None], why: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.core.plan.Rollout.gate_within_ns", 0)
    break_it(pair)
    pair.roll()
    first, second = pair.hosts
    assert frozen(first.world) == ["web-0"] and frozen(second.world) == ["web-1"]
    assert first.stopped == RolloutStop(2, why)
    assert isinstance(second.stopped, RolloutStop) and second.stopped.why.startswith(own)
    assert pair.of(0, RolloutEnded) == [RolloutEnded(RolloutEnd.STOPPED, why, 2)]


def test_a_host_that_is_lost_before_the_start_has_nobody_frozen(pair: Pair) -> None:
    lost = pair.hosts[1]
    lost.begin = lambda: None  # type: ignore[method-assign]
    lost.thread = threading.Thread()
    lost.thread.start()
    pair.roll()
    assert frozen(pair.hosts[0].world) == []
    assert str(pair.hosts[0].stopped) == "controller: the freeze was called off: r2: its run has ended"


def test_the_service_is_one_for_the_guests_of_all_hosts(announcing: Pair) -> None:
    """web-1, on r2, acknowledges what it sees, also for its set's guests on r1. Nobody in db ever asks."""
    over = threading.Event()

    def approve() -> None:
        while announcing.run.events is None and not over.is_set():
            time.sleep(0.01)
        assert announcing.run.events is not None
        client = Client(announcing.run.events.connect("web-1"))
        client.ask()
        announcing.asked()
        while not over.is_set():
            for event in client.ask().ids:
                client.ask(approval(event))
            time.sleep(0.05)
        client.close()

    # The first request switches the service on, and comes before any announcement.
    thread = threading.Thread(target=approve, daemon=True)
    thread.start()
    began = time.monotonic()
    announcing.roll()
    over.set()
    thread.join(JOIN_S)
    assert [host.stopped for host in announcing.hosts] == [None, None]
    assert time.monotonic() - began < 3 * 15, "three waves without an acknowledgement take 15 s each"
    events = announcing.run.events
    assert events is not None
    told = [event for event, _ in events.journal.entries]
    waves = [one for one in told if isinstance(one, EventsAnnounced)]
    assert [one.cycle for one in waves] == [0, 1, 2, 3]
    assert [one.events[0].notice.resources for one in waves] == [("web-0",), ("web-1",), ("web-2",), ("db",)]
    happened = [one.happening for one in told if isinstance(one, EventHappened)]
    approved = [one for one in happened if one.kind is Kind.APPROVED]
    assert {one.guest for one in approved} == {"web-1"} and len({one.event for one in approved}) == 3
    assert sum(one.kind is Kind.GONE for one in happened) == 3
    assert sum(one.kind is Kind.NOT_ENABLED for one in happened) == 1


def test_events_that_are_called_off_freeze_nobody_on_any_host(calling_off: Pair) -> None:
    """web-0's first request switches the service on for its set; the one guest of db is not told, and frozen
    all the same."""

    def poll() -> None:
        while calling_off.run.events is None:
            time.sleep(0.01)
        client = Client(calling_off.run.events.connect("web-0"))
        client.ask()
        calling_off.asked()
        client.close()

    threading.Thread(target=poll, daemon=True).start()
    calling_off.roll()
    assert [host.stopped for host in calling_off.hosts] == [None, None]
    begun = [one for host in (0, 1) for one in calling_off.of(host, CycleBegan)]
    assert [(one.guest, one.frozen) for one in begun] == [
        ("web-0", False),
        ("web-2", False),
        ("web-1", False),
        ("db", True),
    ]


def test_guests_that_a_cut_keeps_from_the_service_are_on_record(announcing: Pair) -> None:
    gone(announcing)
    announcing.asked()
    announcing.roll()
    assert announcing.hosts[0].stopped == RolloutStop(2, "r2: cut off")
    assert announcing.run.events is not None
    told = [event for event, _ in announcing.run.events.ended()]
    failed = [(one.trouble, one.cell) for one in told if isinstance(one, ServiceFailed)]
    assert failed == [("cannot be reached from the guests on r2: its link was cut", "r2")]


def rollout(*waves: WaveHistory, ended: RolloutEnd | None = RolloutEnd.COMPLETE) -> RolloutHistory:
    planned = (("a",), ("b",))
    return RolloutHistory(None, DomainKind.UPDATE, planned, waves, ended, "", len(waves))


def wave(number: int, over: bool = True) -> WaveHistory:
    return WaveHistory(number, number - 1, (("s", number),), ("ab"[number - 1],), 0, over)


def test_a_rollout_is_complete_when_every_host_says_so() -> None:
    whole, cut = rollout(wave(1), wave(2)), rollout(wave(1), wave(2, over=False), ended=None)
    assert over_hosts([whole, whole], 2) == whole
    for given in ([whole, cut], [whole]):
        found = over_hosts(given, 2)
        assert found.ended is None and not found.done(found.waves[-1])


def test_the_reason_is_that_of_who_knows_it() -> None:
    silent, told = (
        RolloutHistory(None, DomainKind.UPDATE, (("a",),), (wave(1),), RolloutEnd.STOPPED, why, 1)
        for why in ("controller: silent for 20 s, so there was no next domain", "r1: cut off")
    )
    assert over_hosts([silent, told], 2).why == "r1: cut off"
