"""The lab's own network from a history to run.json, to a plan, and to the report."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from lab.core.history import SCHEMA, Host, NetworkEnded, NetworkStarted, RunEnded, RunStarted
from lab.core.network import HOST, FrameCounts, NetworkLimits, NetworkPlace
from lab.core.plan import Plan
from lab.playbook import parse
from lab.process.clock import HostClock
from lab.record.journal import FileJournal, read_history
from lab.record.model import NetworkRecord
from lab.record.run import judge, schema, to_json
from lab.report.network import limits_text, network_line
from tests.unit import builders
from tests.unit.consoles import plain

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


def test_a_plan_tells_its_network_in_a_line() -> None:
    def line(text: str) -> str:
        return network_line(plan(text))

    assert line("") == ""
    assert line("network: lab\n") == "lab 10.77.0.10, queue 1000"
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
