"""The lab's own network from a history to run.json, to a plan, and to the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from lab.core.history import SCHEMA, Host, NetworkEnded, NetworkStarted, RunEnded, RunStarted
from lab.core.network import HOST, FrameCounts, MoveCause, NetworkLimits, NetworkPlace
from lab.core.plan import Plan
from lab.playbook import parse
from lab.process.clock import HostClock
from lab.record.journal import FileJournal, read_history
from lab.record.model import NetworkRecord, Run
from lab.record.model_clock import Measure
from lab.record.run import judge, schema, to_json
from lab.report.network import limits_text, network_line
from tests.unit import builders
from tests.unit.consoles import plain
from tests.unit.real_histories import unpacked

MS = 1_000_000

PLACES = {
    "a": NetworkPlace("10.77.0.10/24"),
    "b": NetworkPlace("10.77.0.11/24", NetworkLimits(queue=5)),
}


def network_of(folder: Path, *ends: NetworkEnded | None, no_host: str = "") -> NetworkRecord:
    """The record of a run in whose history these networks were; None: it was cut off in this one."""
    with FileJournal(folder, HostClock()) as journal:
        journal.append(RunStarted(SCHEMA, "r", plan(""), Host()))
        for number, end in enumerate(ends):
            journal.append(NetworkStarted(number, NetworkLimits(), PLACES, no_host))
            if end is not None:
                journal.append(end)
        journal.append(RunEnded(interrupted=False, failure=""))
    run = judge(read_history(folder))[0]
    jsonschema.Draft202012Validator(schema()).validate(json.loads(to_json(run)))
    assert run.network is not None
    return run.network


COUNTS = {
    HOST: FrameCounts(sent=3, received=5),
    "a": FrameCounts(sent=10, received=7, lost=2, sent_bytes=1000, received_bytes=700),
    "b": FrameCounts(sent=4, received=1, overflowed=6),
}


def test_places_and_what_passed_them(tmp_path: Path) -> None:
    network = network_of(tmp_path, NetworkEnded(COUNTS))
    assert (network.kind, network.seeds, network.no_host) == ("lab", (0,), "")
    assert [(place.name, place.address) for place in network.places] == [
        (HOST, "10.77.0.1/24"), ("a", "10.77.0.10/24"), ("b", "10.77.0.11/24"),
    ]  # fmt: skip
    assert {place.name: place.counts for place in network.places} == COUNTS
    assert network.places[2].limits.queue == 5


def test_the_networks_of_several_cells_are_added_up(tmp_path: Path) -> None:
    network = network_of(tmp_path, NetworkEnded(COUNTS), NetworkEnded(COUNTS))
    assert network.seeds == (0, 1)
    assert network.places[1].counts == FrameCounts(
        sent=20, received=14, lost=4, sent_bytes=2000, received_bytes=1400
    )


def test_a_run_that_was_cut_off_has_no_counts(tmp_path: Path) -> None:
    network = network_of(tmp_path, None, no_host="unshare: Operation not permitted")
    assert [place.counts for place in network.places] == [None, None, None]
    shown = plain(builders.run(builders.guest("web-0", builders.cycle()), network=network))
    assert "not known what passed it; no clients on the host (unshare: Operation not permitted)" in shown


def test_the_report_tells_it_in_a_line(tmp_path: Path) -> None:
    network = network_of(tmp_path, NetworkEnded(COUNTS))
    shown = plain(builders.run(builders.guest("web-0", builders.cycle()), network=network))
    (line,) = [line for line in shown.splitlines() if line.startswith("network")]
    assert line.split(maxsplit=1)[1] == (
        "lab, queue 1000: host sent 3 frames, took 5; a sent 10 frames, took 7, 2 lost on purpose; "
        "b sent 4 frames, took 1, 6 over its queue"
    )


@pytest.fixture
def bridged(tmp_path: Path) -> Run:
    """A guest's QEMU was replaced while it was on a bridge of the lab's own."""
    return judge(read_history(unpacked("bridge", tmp_path)))[0]


def test_an_address_that_moved_with_the_exchange(bridged: Run) -> None:
    assert bridged.network is not None and bridged.network.bridge
    moves = bridged.network.moves
    assert [(move.guest, move.before, move.after) for move in moves] == [
        ("web-0", "web-0 port 1", "web-0 port 2"), ("web-0", "web-0 port 2", "web-0 port 3"),
    ]  # fmt: skip
    for number, move in enumerate(moves):
        assert move.cycle == number
        assert move.since_stop is not None and move.since_resume is not None
        pause = bridged.guests[0].cycles[number].pause
        assert pause is not None
        assert move.since_stop.low_ns <= pause.high_ns + max(0, move.since_resume.high_ns)
        assert move.since_resume.low_ns <= move.since_resume.value_ns <= move.since_resume.high_ns
    assert "network       lab, a Linux bridge: host sent" in plain(bridged)


def test_moves_are_told_with_their_times_and_causes(bridged: Run) -> None:
    assert bridged.network is not None
    first, *_ = bridged.network.moves
    vip = replace(
        first, address="10.77.0.100", guest="", before="a", after="b", cause=MoveCause.GRATUITOUS_ARP,
        since_stop=Measure(3600 * MS, 3550 * MS, 3650 * MS),
        since_resume=Measure(-3400 * MS, -3500 * MS, -3300 * MS),
    )  # fmt: skip
    port = replace(first, since_resume=Measure(0, -2 * MS, 700_000), cause=MoveCause.ANNOUNCEMENT)
    text = plain(replace(bridged, network=replace(bridged.network, moves=(vip, port, *[port] * 8))))
    assert (
        "moved         cycle 0: 10.77.0.100 from a to b, 3.5–3.7 s after the stop, by a gratuitous ARP"
        in text
    )
    assert (
        "cycle 0: web-0 (52:54:01:4d:00:0a) from web-0 port 1 to web-0 port 2, 1 ms after the resume, "
        "by QEMU's announcement"
    ) in text
    assert "2 more: freezelab report --json" in text


def test_a_plan_tells_its_network_in_a_line() -> None:
    def line(text: str) -> str:
        return network_line(plan(text))

    assert line("") == ""
    assert line("network: lab\n") == "lab 10.77.0.10, queue 1000"
    assert line("network: {kind: lab, bridge: true}\n") == "lab 10.77.0.10, on a Linux bridge of its own"
    assert line(
        "network: {kind: lab, delay: 1ms, loss: 0.5%, rate: 1.5Mbit, seed: 3}\n"
        "guests: [{name: a}, {name: b, link: {queue: 0}}]\n"
    ) == (
        "lab 10.77.0.10 to 10.77.0.11, delay 1 ms, loss 0.5 %, 1.5 Mbit/s, queue 1000, seed 3; "
        "b: delay 1 ms, loss 0.5 %, 1.5 Mbit/s, queue 0"
    )


def plan(text: str) -> Plan:
    return parse(f"name: a\nresync: agent\ncycle: {{patch: {{hold: 5s}}}}\n{text}".encode(), "p.yaml")


def test_limits_in_words() -> None:
    assert limits_text(NetworkLimits()) == "queue 1000"
    assert limits_text(NetworkLimits(bits_per_s=64_000)) == "64 kbit/s, queue 1000"
    assert limits_text(NetworkLimits(bits_per_s=10**10)) == "10 Gbit/s, queue 1000"
