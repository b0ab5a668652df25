"""A rollout over hosts: the real controller, each host's real rollout and rendezvous, simulated guests, and
socket pairs instead of SSH."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from lab.controller import RolloutStop
from lab.core.clock import Interval
from lab.core.history import GateAsked, RolloutEnded, StopCalled, WaveReached
from lab.core.offsets import Sample
from lab.core.own_domain import SshTarget
from lab.core.plan import Cell, DomainKind, Plan, RolloutEnd
from lab.core.rollout_result import RolloutHistory, WaveHistory, over_hosts
from lab.errors import FreezelabError
from lab.hosts import fleet_run
from lab.hosts.fleet_host import FleetHost
from lab.hosts.fleet_run import FleetOptions, FleetRun
from lab.hosts.hosts_file import HostEntry
from lab.playbook import parse
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.session.rendezvous import Rendezvous
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


class PairedHost(FleetHost):
    """A host whose child is a thread here. Its clock is this machine's."""

    def __init__(self, name: str, cell: Cell, plan: Plan) -> None:
        super().__init__(HostEntry(name, SshTarget(name)), f"run-{name}", HostClock())
        self.near, self.far = socket.socketpair()
        self.world = world_of(list(cell.guests))
        self.cell, self.plan = cell, plan
        self.stopped: RolloutStop | FreezelabError | None = None
        self.instants: list[int] = []

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
        try:
            self.stopped = self.world.roll_out(
                self.cell.guests, rollout, SHORT, all_guests=self.plan.guests, meeting=meeting
            )
        except FreezelabError as error:
            self.stopped = error
        self.far.close()

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

    def of(self, host: int, kind: type[Any]) -> list[Any]:
        return self.hosts[host].world.of(kind)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(fleet_run, "AFTER_NS", 0)
    plan = parse(PLAYBOOK, "p.yaml")
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
    lost.last_line = "host r2: no image"
    pair.roll()
    assert frozen(pair.hosts[0].world) == []
    assert str(pair.hosts[0].stopped) == "controller: the freeze was called off: r2: host r2: no image"


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
