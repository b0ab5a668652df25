"""Runs that are interrupted or cut off at every event of their history: inconclusive, and never failed by
what was not done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lab.core.plan import NoticeExpectations
from lab.core.verdict import Finding, Outcome
from lab.record.journal import EVENTS, read_history
from lab.record.run import judge
from tests.unit import fleets, histories
from tests.unit.history_lines import thin

MADE: Mapping[str, Callable[[Path], Path]] = {
    name: histories.ALL[name] for name in ("upgrade", "called_off", "stepped")
} | {name: fleets.ALL[name] for name in ("acknowledged", "surprised", "spared", "stopped")}
WANTED = (
    NoticeExpectations(acknowledged=True, seen=True, started_seen=True, kept=True, cancelled=False),
    NoticeExpectations(acknowledged=False, seen=False, started_seen=False, kept=False, cancelled=True),
)


def key(finding: Finding) -> tuple[str, str, int, str]:
    return finding.cell, finding.guest, finding.cycle, finding.metric


def failed(folder: Path, events: list[str]) -> tuple[set[tuple[str, str, int, str]], Outcome]:
    (folder / EVENTS).write_text("\n".join(events) + "\n", encoding="utf-8")
    made = judge(read_history(folder))[0]
    return {key(f) for f in made.findings if f.outcome is Outcome.FAILED}, made.outcome


def interrupted(events: list[dict[str, Any]]) -> list[str]:
    """What an interrupted run writes in the end: announcements are taken back."""
    stamps = [events[-1], *(event["call"]["returned"] for event in events if event["kind"] == "resume")]
    last = max(stamps, key=lambda each: int(each["raw_ns"]))
    stamp = {"raw_ns": last["raw_ns"], "real_ns": last["real_ns"]}
    happened = [event["happening"] for event in events if event["kind"] == "notice"]
    over = {each["event"] for each in happened if each["kind"] in ("cancelled", "gone")}
    started = {each["event"] for each in happened if each["kind"] == "started"}
    made: list[dict[str, Any]] = []
    for announced in (event for event in events if event["kind"] == "announced"):
        for event in announced["events"]:
            if event["id"] not in over:
                kind = "gone" if event["id"] in started else "cancelled"
                happening = {
                    "at": stamp,
                    "kind": kind,
                    "group": event["notice"]["group"],
                    "event": event["id"],
                }
                made.append({"kind": "notice", "cycle": announced["cycle"], "happening": happening})
    made.append({"kind": "run-end", "interrupted": True, "failure": "interrupted by SIGINT"})
    return [json.dumps({"seq": len(events) + i, **stamp, **each}) for i, each in enumerate(made)]


@pytest.mark.parametrize("wanted", [None, 0, 1])
@pytest.mark.parametrize("name", MADE)
def test_a_run_that_is_cut_at_any_event_never_fails_for_what_was_not_done(
    tmp_path: Path, name: str, wanted: int | None
) -> None:
    folder = MADE[name](tmp_path)
    events = [json.loads(text) for text in (folder / EVENTS).read_text(encoding="utf-8").splitlines()]
    thin(events)
    if wanted is not None:
        expect = events[0]["plan"]["expectations"]
        expect["notice"] = {**expect["notice"], **asdict(WANTED[wanted])}
    lines = [json.dumps(event) for event in events]
    in_the_end, _ = failed(folder, lines)
    for number in range(1, len(lines)):
        before = lines[:number]
        for given in (before, [*before, *interrupted(events[:number])]):
            seen, outcome = failed(folder, given)
            # A gate that did not hold stops the rollout, when that goes on for long enough to say so.
            seen = {each for each in seen if each[-1] != "gates"}
            assert seen <= in_the_end, f"after event {number - 1} ({events[number - 1]['kind']})"
            assert outcome is not Outcome.PASSED
