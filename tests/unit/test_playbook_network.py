"""`network: lab` in playbooks."""

from __future__ import annotations

import pytest

from lab.core.network import NetworkLimits, NetworkPlace, NetworkSpec
from lab.core.plan import Plan
from lab.playbook import parse
from tests.unit.playbooks import mistakes_in

OK = "name: a\nresync: agent\ncycle: {patch: {hold: 5s}}\n"
TWO = OK + "guests: [{name: a}, {name: b, count: 2}]\n"


LANES = """\
name: a
network: lab
cycle: {patch: {hold: 5s}}
matrix: {resync: [agent, push], side_by_side: 2}
"""


def plan(text: str) -> Plan:
    return parse(text.encode(), "p.yaml")


def test_without_it_no_guest_has_a_place() -> None:
    made = plan(TWO)
    assert made.network is None
    assert [guest.lab for guest in made.guests] == [None, None, None]


def test_guests_have_addresses_in_their_order() -> None:
    made = plan(TWO + "network: lab\n")
    assert made.network == NetworkSpec()
    assert [(guest.name, guest.lab) for guest in made.guests] == [
        ("a", NetworkPlace("10.77.0.10/24")),
        ("b-0", NetworkPlace("10.77.0.11/24")),
        ("b-1", NetworkPlace("10.77.0.12/24")),
    ]


def test_limits_of_all_and_of_one() -> None:
    made = plan(
        OK
        + "network: {kind: lab, delay: 1ms, loss: 1%, rate: 100Mbit, queue: 50, seed: 7}\n"
        + "guests: [{name: a}, {name: far, link: {delay: 20ms, queue: 0}}]\n"
    )
    outer = NetworkLimits(delay_ns=1_000_000, loss=0.01, bits_per_s=100_000_000, queue=50)
    assert made.network == NetworkSpec(outer, 7)
    near, far = (guest.lab for guest in made.guests)
    assert near is not None and near.limits == outer
    assert far is not None
    assert far.limits == NetworkLimits(delay_ns=20_000_000, loss=0.01, bits_per_s=100_000_000, queue=0)


def test_a_bridge() -> None:
    made = plan(OK + "network: {kind: lab, bridge: true}\n")
    assert made.network == NetworkSpec(bridge=True)


def test_a_fleets_guests_are_in_it() -> None:
    made = plan(
        OK
        + "network: lab\nfleet:\n  guests: [{name: a}]\n"
        + "  scale_sets: [{name: web, count: 2, link: {loss: 5%}}]\n"
    )
    places = [guest.lab for guest in made.guests]
    assert [place.ip for place in places if place] == ["10.77.0.10", "10.77.0.11", "10.77.0.12"]
    assert [place.limits.loss for place in places if place] == [0, 0.05, 0.05]


@pytest.mark.parametrize(
    ("text", "bits"),
    [("1Mbit", 10**6), ("1.5Gbit", 15 * 10**8), ("64 kbit", 64_000), ("2000bit", 2000), ("1Mbit/s", 10**6)],
)
def test_bandwidths(text: str, bits: int) -> None:
    made = plan(OK + f"network: {{kind: lab, rate: {text}}}\n")
    assert made.network is not None
    assert made.network.limits.bits_per_s == bits


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            OK + "network: lan\n",
            "4:10: network.kind: 'lan' is not a network of all guests; did you mean lab?",
        ),
        (OK + "network: {delay: 1ms}\n", "4:1: network: kind is missing; add kind: lab"),
        (
            OK + "network: {kind: lab, rate: 100}\n",
            "4:28: network.rate: not a bandwidth: '100'; write it like",
        ),
        (OK + "network: {kind: lab, rate: 10MB}\n", "4:28: network.rate: not a bandwidth: '10MB'; write it"),
        (
            OK + "network: {kind: lab, rate: 1bit}\n",
            "4:28: network.rate: '1bit' is not from 1kbit to 100Gbit",
        ),
        (OK + "network: {kind: lab, loss: 100%}\n", "4:28: network.loss: '100%' is too large; write it like"),
        (OK + "network: {kind: lab, loss: 1}\n", "4:28: network.loss: a share without %: '1'; write it like"),
        (
            OK + "network: {kind: lab, queue: -1}\n",
            "4:29: network.queue: -1 frames are too few; write a whole",
        ),
        (
            OK + "network: {kind: lab, delay: 2min}\n",
            "4:29: network.delay: '2min' is too long; write at most",
        ),
        (
            OK + "network: {kind: lab, loss: 1%, bridge: true, queue: 0}\n",
            "4:28: network: a bridge has no loss, no queue; delete it, or bridge",
        ),
        (OK + "network: {kind: lab, bridge: br0}\n", "4:30: network.bridge: neither true nor false: 'br0'"),
        (
            OK + "network: {kind: lab, bridge: true}\nguests: [{name: a, link: {delay: 1ms}}]\n",
            "4:1: guest a has a link, but a bridge has no limits; delete link, or bridge in network",
        ),
        (OK + "guests: [{name: a, link: {}}]\n", "guest a has a link, but there is no network: lab; add"),
        (
            OK + "network: lab\nguests: [{name: host}]\n",
            "4:10: network: lab: the name host is that of clients on the host; rename guest host",
        ),
        (
            OK + "network: lab\nguests: [{domain: mine}, {name: a}]\n",
            "4:10: network: lab: mine is a domain of your own, which gets no other network card; delete",
        ),
        (
            OK + "network: lab\nguests: [{name: a, network: {bridge: br0, address: 10.77.0.5/16}}]\n",
            "4:10: network: lab has the addresses of a's bridge, 10.77.0.5/16; give the bridge other ones",
        ),
        (
            LANES,
            "4:33: side_by_side: web-0 has a fixed address; delete side_by_side, or the guest's network",
        ),
    ],
)
def test_what_is_refused(text: str, answer: str) -> None:
    lines = mistakes_in(text)
    assert any(answer in line for line in lines), lines
