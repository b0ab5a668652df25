"""The `workload` and `tolerance` sections: what they become in the plan, and their mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.plan import Plan, ToleranceSpec, WorkloadSpec
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.spec import WorkloadExpect
from lab.playbook import parse
from tests.unit.playbooks import mistakes_in

HEAD = "name: a\nresync: agent\ncycle: {patch: {hold: 5s}}\n"
SEARCH = "name: a\nresync: agent\ncycle: {patch: {hold: 1s}, budget: 2min}\nworkload: udp-echo\n"


def plan_of(text: str) -> Plan:
    return parse((HEAD + text).encode(), "p.yaml", Path("/books"))


def test_one_of_the_labs_own_brings_its_guests() -> None:
    plan = plan_of("workload: udp-echo\n")
    echo = SHIPPED["udp-echo"]
    assert [guest.name for guest in plan.guests] == ["echo-0"]
    assert plan.guests[0].setup == echo.guests({})[0].setup
    assert plan.workloads == (
        WorkloadSpec(
            "udp-echo", "udp-echo", period_ns=echo.period_ns, options=echo.options, expect=echo.expect
        ),
    )
    assert plan.parts[0].workloads == plan.workloads


def test_a_guest_of_the_playbook_takes_the_place_of_the_workloads() -> None:
    plan = plan_of("workload: udp-echo\nguests: [{name: echo-0, memory: 1 GiB}, {name: b, peer: true}]\n")
    first, second = plan.guests
    assert (first.memory_bytes, first.is_peer, second.is_peer) == (1 << 30, False, True)
    assert first.setup.services == SHIPPED["udp-echo"].guests({})[0].setup.services
    assert plan.parts[0].frozen_guests == (first,)


def test_what_it_has_to_show_adds_to_its_own() -> None:
    plan = plan_of(
        "workload: {name: udp-echo, period: 1ms, settle: 2s, expect: {outage: 7s, wrong_stamps: 0, "
        "unchanged: leader, one_holder: [master], never: [gone away], prediction: as-predicted}}\n"
    )
    (spec,) = plan.workloads
    assert (spec.period_ns, spec.settle_ns) == (NS_PER_MS, 2 * NS_PER_S)
    assert spec.expect == WorkloadExpect(
        outage_ns=7 * NS_PER_S,
        wrong_stamps=0,
        unchanged=("leader",),
        one_holder=("master",),
        never=("gone away",),
        as_predicted=True,
    )


def test_a_client_of_ones_own_is_beside_the_playbook() -> None:
    plan = plan_of(
        "workload:\n  - {name: mine, command: [./c.py, '{web-0}', 8080], delivers: true}\n"
        "  - {name: other, command: [python3, -c, pass]}\n"
    )
    mine, other = plan.workloads
    assert mine.command == ("/books/c.py", "{web-0}", "8080")
    assert mine.delivers and not mine.shipped and mine.expect == WorkloadExpect()
    assert other.command == ("python3", "-c", "pass")
    assert [guest.name for guest in plan.guests] == ["web-0"]


def test_a_search() -> None:
    text = SEARCH + "tolerance: {longest: 30s, tries: 2, precision: 20%, within: 5min}\n"
    plan = parse(text.encode(), "p.yaml")
    assert plan.tolerance == ToleranceSpec(NS_PER_S, 30 * NS_PER_S, 2, 0.2, 300 * NS_PER_S)
    assert plan.parts[0].tolerance == plan.tolerance


def test_the_longest_freeze_of_a_search_follows_from_its_longest_pause() -> None:
    text = "name: a\nresync: agent\nworkload: udp-echo\ntolerance: {longest: 45s}\n"
    plan = parse(text.encode(), "p.yaml")
    assert plan.parts[0].cycle.budget_ns == 75 * NS_PER_S
    matrix = parse((text + "matrix: {method: [suspend, sigstop]}\ncycle: {settle: 2s}\n").encode(), "p.yaml")
    assert [cell.cycle.budget_ns for cell in matrix.parts] == [75 * NS_PER_S] * 2
    given = parse((text + "cycle: {budget: 50s}\n").encode(), "p.yaml")
    assert given.parts[0].cycle.budget_ns == 50 * NS_PER_S


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("workload: udp-eco", "'udp-eco' is no workload of the lab's own; did you mean udp-echo?"),
        ("workload: []", "the list of workloads is empty"),
        ("workload: [udp-echo, udp-echo]", "two workloads are named udp-echo"),
        (
            "workload: {name: udp-echo, options: {token: 3s}}",
            "'token' is no option of udp-echo; known: target",
        ),
        ("workload: {name: keepalived, options: {token: 3s}}", "'token' is no option of keepalived; "),
        ("workload: {name: udp-echo, delivers: true}", "delivers is for a command of your own"),
        ("workload: {name: x, command: [./c], period: 1s}", "period is for the lab's own workloads"),
        ("workload: {name: x, command: [./c, '{web-7}']}", "no guest is named web-7; known: web-0"),
        ("workload: {name: x, command: ./c --help}", "a command is a list of arguments"),
        ("workload: {name: udp-echo, expect: {outage: 0s}}", "outage"),
        ("workload: {name: udp-echo, expect: {unchanged: [[a]]}}", "is not a name"),
        ("guests: [{name: a, peer: true}]", "every guest is a peer, so none is frozen"),
        ("tolerance: {shortest: 1s}", "tolerance needs one workload"),
        ("workload: {name: udp-echo, period: 999us}", "is too short; write at least 1ms"),
        (
            "workload: {name: x, command: [c], expect: {lost: 0}}",
            "lost counts deliveries, and x reports none",
        ),
        ("workload: {name: udp-echo, expect: {twice: 0}}", "twice counts deliveries, and udp-echo reports"),
    ],
)
def test_mistakes(text: str, mistake: str) -> None:
    lines = mistakes_in(HEAD + text + "\n")
    assert any(mistake in line for line in lines), lines


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ("tolerance: {shortest: 5s, longest: 2s}", "longest (2 s) is less than shortest"),
        ("tolerance: {longest: 5min}", "cycle.budget (2 min) ends pauses before tolerance.longest"),
        ("tolerance: {}\nrepeat: 3", "repeat does not go with tolerance"),
        ("tolerance: {tries: 0}", "tries"),
    ],
)
def test_mistakes_of_a_search(change: str, mistake: str) -> None:
    lines = mistakes_in(SEARCH + change + "\n")
    assert any(mistake in line for line in lines), lines


def test_a_client_in_a_guest() -> None:
    plan = plan_of(
        "guests: [{name: a}, {name: b, peer: true}]\n"
        "workload: {name: mine, on: b, command: [./c.py, '{a}']}\n"
    )
    assert (plan.workloads[0].on, plan.workloads[0].command) == ("b", ("./c.py", "{a}"))


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("workload: {name: x, on: web-0, command: [c]}", "web-0 is no guest that stays unfrozen"),
        ("workload: {name: udp-echo, on: web-0}", "on is for a command of your own"),
    ],
)
def test_mistakes_of_a_client_in_a_guest(text: str, mistake: str) -> None:
    lines = mistakes_in(HEAD + text + "\n")
    assert any(mistake in line for line in lines), lines


START = "name: a\nresync: agent\ncycle: {budget: 2min}\ntolerance: {}\n"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("workload: {name: x, command: [./c]}", "5:1: the workload has nothing to show, so no pause fails"),
        ("workload: [udp-echo, {name: x, command: [./c]}]", "tolerance needs one workload, not 2"),
        ("workload: udp-echo\nmatrix: {hold: [1s, 2s]}", "6:10: matrix.hold does not go with tolerance"),
    ],
)
def test_searches_that_make_no_sense(text: str, mistake: str) -> None:
    lines = mistakes_in(START + text + "\n")
    assert any(mistake in line for line in lines), lines


@pytest.mark.parametrize("method", ["none", "reboot"])
def test_a_search_needs_a_pause(method: str) -> None:
    text = START.replace("2min", f"2min, method: {method}") + "workload: udp-echo\n"
    assert any(f"method {method} has none" in line for line in mistakes_in(text))


def test_a_mistake_in_one_workload_has_its_own_place() -> None:
    (line,) = mistakes_in(HEAD + "workload:\n  name: udp-echo\n  expect:\n    outage: 5\n")
    assert "7:13: workload.expect.outage: duration without a unit" in line
    (line,) = mistakes_in(HEAD + "workload:\n  - udp-echo\n  - {name: x, command: [c], settle: 5}\n")
    assert "6:37: workload[1].settle: duration without a unit" in line


def test_arguments_beside_the_playbook() -> None:
    plan = plan_of("workload: {name: mine, command: [python3, ./c.py, ../data, a/b, /x]}\n")
    assert plan.workloads[0].command == ("python3", "/books/c.py", "/data", "a/b", "/x")


def test_an_options_value_that_is_none() -> None:
    (only,) = mistakes_in(HEAD + "network: lab\nworkload: {name: tcp-stream, options: {direction: left}}\n")
    assert "direction: left is unknown; known: down, up" in only
