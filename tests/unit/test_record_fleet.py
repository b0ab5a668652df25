"""A fleet over hosts in its record: a real rollout of two waves, each of a guest on a host of its own, whose
MONOTONIC_RAW are 1000 s apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core.history import PartMerged
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.record.journal import EVENTS, History, read_history
from lab.record.parts import FLEET
from lab.record.run import Run, judge
from tests.unit.real_histories import unpacked

Clock = list[list[int]]


def moved(by_ns: int) -> Callable[[Clock], Clock]:
    """As if a host's clock had been that much further ahead: what it stamped was earlier."""
    return lambda clock: [[first, last, low + by_ns, high + by_ns] for first, last, low, high in clock]


def widened(by_ns: int) -> Callable[[Clock], Clock]:
    return lambda clock: [[first, last, low - by_ns, high + by_ns] for first, last, low, high in clock]


def judged(folder: Path, host: str, change: Callable[[Clock], Clock]) -> Run:
    """The run, if the controller had measured the clock of a host otherwise."""

    def changed(event: Any) -> Any:
        if not isinstance(event, PartMerged) or event.host.details["host"] != host:
            return event
        fleet = event.host.details[FLEET]
        details = {**event.host.details, FLEET: {**fleet, "clock": change(fleet["clock"])}}
        return replace(event, host=replace(event.host, details=details))

    history: History = read_history(unpacked("over-hosts", folder))
    entries = tuple(replace(entry, event=changed(entry.event)) for entry in history.entries)
    return judge(replace(history, entries=entries))[0]


@pytest.mark.parametrize(
    ("change", "outcome", "why"),
    [
        (moved(0), Outcome.PASSED, ""),
        (moved(10 * NS_PER_S), Outcome.FAILED, "web UD 0 and web UD 1 were both down for"),
        (widened(20 * NS_PER_S), Outcome.INCONCLUSIVE, "web UD 1 and web UD 0 may both have been down"),
        (lambda _: [], Outcome.INCONCLUSIVE, "web UD 1, cycle 1: the clock of host rack-2 is not known"),
    ],
)
def test_the_proof_is_as_good_as_the_clocks_are_known(
    tmp_path: Path, change: Callable[[Clock], Clock], outcome: Outcome, why: str
) -> None:
    """The second wave was 9.2 s after the first. A second clock that was ten seconds further ahead would have
    it in the middle of the first one."""
    run = judged(tmp_path, "rack-2", change)
    proof = run.one_at_a_time
    assert proof is not None and (proof.outcome, proof.why[: len(why)]) == (outcome, why)
    assert run.outcome is outcome


def test_each_event_has_the_guests_of_both_hosts(tmp_path: Path) -> None:
    """In the controller's time, to which both hosts' stops are mapped."""
    run = judged(tmp_path, "rack-2", moved(0))
    assert [event.resources for event in run.events] == [("web-0",), ("web-1",)]
    for event in run.events:
        assert {member.guest for member in event.members if member.seen is not None} == {"web-0", "web-1"}
        assert event.frozen is not None and event.frozen.since_ns is not None
        assert event.approved is not None and event.approved.since_ns is not None
        assert event.approved.since_ns < event.frozen.since_ns < 15 * NS_PER_S
    assert [cycle.event for guest in run.guests for cycle in guest.cycles] == [e.id for e in run.events]
    assert [wave.events.approved for wave in run.rollouts[0].waves if wave.events] == [1, 1]


def later(value: Any, by_ns: int) -> Any:
    """An event as JSON, with every REALTIME in it moved."""
    if isinstance(value, dict):
        return {
            name: one + by_ns if name.endswith("real_ns") and isinstance(one, int) else later(one, by_ns)
            for name, one in value.items()
        }
    return [later(one, by_ns) for one in value] if isinstance(value, list) else value


def with_realtime(folder: Path, ahead_ns: int) -> Run:
    """The run, if the REALTIME of rack-2 had been ahead of the controller's."""
    folder.mkdir()
    file = unpacked("over-hosts", folder) / EVENTS
    lines, there, apart_ns = [], False, 0
    for line in file.read_text().splitlines():
        event = json.loads(line)
        if event["kind"] == "announced" and not apart_ns:
            apart_ns = event["real_ns"] - event["raw_ns"]
        if event["kind"] == "part":
            there = event["host"]["details"]["host"] == "rack-2"
            event["host"]["details"][FLEET]["apart"] = apart_ns
        lines.append(json.dumps(later(event, ahead_ns) if there else event))
    file.write_text("".join(f"{line}\n" for line in lines))
    return judge(read_history(file.parent))[0]


def test_a_host_with_another_realtime_moves_no_event_and_no_wave(tmp_path: Path) -> None:
    """They are of the controller's, to which the hosts' MONOTONIC_RAW is mapped."""
    same, ahead = (with_realtime(tmp_path / str(by), by * NS_PER_S) for by in (0, 7200))
    assert ahead.events == same.events
    assert ahead.rollouts == same.rollouts
    assert ahead.outcome is same.outcome is Outcome.PASSED
    for event in ahead.events:
        assert event.published is not None
        for moment in (event.frozen, event.resumed, *(one.resumed for one in event.members if one.affected)):
            assert moment is not None and moment.since_ns is not None
            passed_ns = moment.real_ns - event.published.real_ns
            assert abs(passed_ns - moment.since_ns) < NS_PER_MS
