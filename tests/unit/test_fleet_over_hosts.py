"""Guests on several hosts: where they are placed, the instant that hosts agree on, the command line."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.clock import Interval
from lab.core.fleet_placement import placed_hosts
from lab.core.own_domain import SshTarget
from lab.core.plan import Plan
from lab.errors import MachineError
from lab.hosts.fleet_host import FleetHost
from lab.hosts.fleet_run import FleetOptions, FleetRun, skew_words
from lab.hosts.hosts_file import HostEntry
from lab.playbook import parse
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.report.fleet_hosts import fleet_text
from lab.session import rendezvous
from lab.session.machine_report import identity
from lab.session.rendezvous import Rendezvous
from tests.unit.playbooks import mistakes_in
from tests.unit.real_histories import real

FLEET = """hosts: [r1, r2]
fleet:
  guests: [{name: a, count: 3}]
  availability_sets: [{name: a, guests: [a], fault_domains: hosts}]
"""
REST = "resync: agent\ncycle: {patch: {hold: 5s}}\n"


def plan_of(text: str) -> Plan:
    return parse(f"name: a\n{text}{REST}".encode(), "p.yaml")


def guests_by_host(plan: Plan) -> dict[str, list[str]]:
    return {cell.id: [guest.name for guest in cell.guests] for cell in plan.cells}


def test_guests_are_spread_in_turn_beside_those_that_name_their_host() -> None:
    guests = "[{name: a, host: r2}, {name: b}, {name: c, count: 3}]"
    plan = plan_of(f"hosts: [r1, r2]\nguests: {guests}\n")
    assert guests_by_host(plan) == {"r1": ["b", "c-1"], "r2": ["a", "c-0", "c-2"]}
    assert placed_hosts(plan) == ("r1", "r2")
    assert [cell.values for cell in plan.cells] == [(("host", "r1"),), (("host", "r2"),)]


def test_the_fault_domain_of_a_guest_can_be_its_host() -> None:
    plan = plan_of(FLEET)
    assert [(guest.name, guest.fault_domain, guest.update_domain) for guest in plan.guests] == [
        ("a-0", 0, 0),
        ("a-1", 1, 1),
        ("a-2", 0, 2),
    ]
    assert guests_by_host(plan) == {"r1": ["a-0", "a-2"], "r2": ["a-1"]}
    scaled = "hosts: [r1, r2]\nfleet: {scale_sets: [{name: p, count: 3, fault_domains: hosts}]}\n"
    assert [guest.fault_domain for guest in plan_of(scaled).guests] == [0, 1, 0]


def test_one_guest_is_on_one_host() -> None:
    assert guests_by_host(plan_of("hosts: [r1]\n")) == {"r1": ["web-0"]}
    most = plan_of("hosts: [r1, r2]\nguests: [{name: a, count: 64}, {name: b, count: 64}]\n")
    assert [len(names) for names in guests_by_host(most).values()] == [64, 64]


@pytest.mark.parametrize("text", ["", "matrix: {method: [suspend, sigstop]}\n"])
def test_other_plans_are_on_no_hosts(text: str) -> None:
    assert placed_hosts(plan_of(text)) == ()


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("hosts: []\n", "2:8: hosts: 0 hosts; write 1 to 64 names, like [rack-1, rack-2]"),
        ("hosts: [r1, r1]\n", "2:13: the host r1 is given twice; delete one of the two"),
        ("hosts: [r1, r2]\n", "2:13: no guest is on r2; add guests, or delete the host"),
        (
            "hosts: [r1, r2]\nguests: [{name: a, count: 64}, {name: b, host: r2}, {name: c, count: 64}]\n",
            "3:9: 65 guests on r2 are too many; ask for at most 64",
        ),
        ("hosts: [R1]\n", "2:9: hosts[0]: 'R1' is not a name"),
        ("hosts: [r1]\nguests: [{name: a, host: r9}]\n", "3:26: r9 is none of the hosts; known: r1"),
        ("guests: [{name: a, host: r1}]\n", "2:26: host goes with hosts; add hosts: [r1], or delete it"),
        ("hosts: [r1]\nguests: [{domain: vm}]\n", "3:19: a domain of your own is on the host of its libvirt"),
        ("hosts: [r1]\nmatrix: {method: [suspend]}\n", "3:1: matrix does not go with hosts; delete one"),
        (f"{FLEET}rollout: {{order: shuffled}}\n", "6:18: all hosts need the same order"),
        (f"{FLEET}rollout: {{gates: [{{members: healthy}}]}}\n", "6:29: a host does not ask the"),
        (FLEET.replace("hosts: [r1, r2]\n", ""), "4:61: hosts as fault domains go with hosts; add hosts: ["),
        ("hosts: [r1]\nfleet: {guests: [{name: a, host: r9}]}\n", "3:34: r9 is none of the hosts; known: r1"),
        ("hosts: [r1]\nnetwork: lab\n", "3:10: network does not go with hosts; delete one"),
    ],
)  # fmt: skip
def test_a_placement_that_cannot_be_is_a_mistake_at_its_place(text: str, start: str) -> None:
    (found,) = mistakes_in(f"name: a\n{text}{REST}")
    assert found.startswith(start)


def test_a_fleet_over_hosts_needs_a_hosts_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(f"name: a\nhosts: [r1]\n{REST}")
    ran = CliRunner().invoke(app, ["run", str(tmp_path / "p.yaml")])
    assert ran.exit_code == 2
    assert "its guests are on the hosts r1" in ran.stderr and "add --hosts hosts.yaml" in ran.stderr
    (tmp_path / "hosts.yaml").write_text("hosts: [r2]\n")
    ran = CliRunner().invoke(app, ["run", str(tmp_path / "p.yaml"), "--hosts", str(tmp_path / "hosts.yaml")])
    assert ran.exit_code == 2
    assert "it has no host r1, which guests are on\nknown: r2" in ran.stderr
    ran = CliRunner().invoke(app, ["run", str(tmp_path / "p.yaml"), "--hosts", "tcp://127.0.0.1:9"])
    assert ran.exit_code == 2
    assert "tcp://127.0.0.1:9: guests on several hosts need a hosts file, no scheduler" in ran.stderr


@pytest.fixture
def ends() -> Iterator[tuple[Rendezvous, int, int]]:
    """A rendezvous, and the controller's ends of its two pipes."""
    (here_in, there_out), (there_in, here_out) = os.pipe(), os.pipe()
    yield Rendezvous(HostClock(), here_in, here_out), there_out, there_in
    for end in (here_in, here_out, there_in):
        os.close(end)


def test_it_returns_at_the_instant_and_not_before(ends: tuple[Rendezvous, int, int]) -> None:
    meet, orders, answers = ends
    instant = HostClock().now().raw_ns + 1_000_000_000  # a busy machine may start the timer late
    os.write(orders, b"wait\nwait\nfree")
    threading.Timer(0.05, lambda: os.write(orders, f"ze {instant}\n".encode())).start()
    meet()
    assert HostClock().now().raw_ns >= instant
    assert os.read(answers, 100) == b"freezelab-ready 1\n"
    os.close(orders)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (b"off\n", "controller: the freeze was called off"),
        (b"freeze 12\n", "late, so there was none"),
        (b"freeze soon\n", "controller: the freeze was called off"),
        (b"wait\n", "controller: gone before the freeze"),
        (b"", "controller: gone before the freeze"),
    ],
)
def test_without_an_instant_to_come_there_is_no_freeze(
    ends: tuple[Rendezvous, int, int], order: bytes, why: str
) -> None:
    meet, orders, _ = ends
    os.write(orders, order)
    os.close(orders)
    with pytest.raises(MachineError, match=why):
        meet()


def test_a_child_says_what_it_is_and_begins_when_it_may(ends: tuple[Rendezvous, int, int]) -> None:
    meet, orders, answers = ends
    os.write(orders, b"wait\ngo\n")
    meet.introduce({"boot": "b"})
    assert os.read(answers, 100) == b'freezelab-about {"boot": "b"}\n'
    os.close(orders)
    with pytest.raises(MachineError, match="controller: gone"):
        meet.introduce({})


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({}, "^hosts r1, r2: are one machine"),
        ({"freezelab": "0.0.9 (0)"}, "^host r2: freezelab is 0.0.9 \\(0\\) there and "),
        ({"lacks": "no such emulator"}, "^host r2: it cannot run its guests: no such emulator"),
        ({"the record": "freezelab.history/0"}, "^host r2: the record is freezelab.history/0 there"),
    ],
)
def test_hosts_that_do_not_go_together_are_refused_before_the_start(second: dict[str, str], why: str) -> None:
    hosts = [FleetHost(HostEntry(name, SshTarget(name)), f"run-{name}", HostClock()) for name in ("r1", "r2")]
    for host, more in zip(hosts, ({}, second), strict=True):
        host.about = {**identity(), **more}
    plan = plan_of("hosts: [r1, r2]\nguests: [{name: a, count: 2}]\n")
    run = FleetRun(plan, FleetOptions(Path("p.yaml")), hosts, "run", HostClock(), NullView())
    with pytest.raises(MachineError, match=why):
        run.admit()


def test_a_silent_controller_is_not_waited_for(
    ends: tuple[Rendezvous, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    meet, orders, _ = ends
    monkeypatch.setattr(rendezvous, "SILENT_S", 0.2)
    began = time.monotonic()
    with pytest.raises(MachineError, match="silent for 0 s, so there was no freeze"):
        meet()
    assert time.monotonic() - began >= 0.2
    os.close(orders)


def test_the_report_says_how_far_apart_hosts_were_and_who_was_cut_off() -> None:
    merged = real("merged")
    assert fleet_text(merged) == ""
    ends = ((0, 2_000_000, False), (5_000_000, 9_000_000, True))
    parts = []
    for number, (low, high, cut) in enumerate(ends):
        fleet = {"cut_off": cut, "stops": [{"cycle": 0, "low_ns": low, "high_ns": high}]}
        part = merged.parts[number]
        host = replace(part.host, details={**part.host.details, "host": f"rack-{number}", "fleet": fleet})
        parts.append(replace(part, host=host))
    text = fleet_text(replace(merged, parts=tuple(parts)))
    assert text == "2 hosts, frozen within 3–9 ms of each other; cut off: rack-1"


def test_the_skew_over_hosts_has_its_bounds() -> None:
    ms = 1_000_000
    words = skew_words({"a": Interval(0, 2 * ms), "b": Interval(5 * ms, 9 * ms)})
    assert words.startswith("stopped within 3–9 ms of each other; after the instant: a +1")
    assert skew_words({"a": Interval(0, 5 * ms), "b": Interval(2 * ms, 3 * ms)}).startswith(
        "stopped within 0–5 ms"
    )
