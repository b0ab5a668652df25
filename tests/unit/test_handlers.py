"""Handlers that end before their run does: what the record, the report and JUnit make of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.core.handlers import HandlerEnd, handler_findings
from lab.core.history import GuestsFrozen, HandlerEnded, ProblemMet
from lab.core.plan import Announcement
from lab.core.verdict import Outcome
from lab.errors import GuestError, RecordError
from lab.guest.handler import GuestHandler
from lab.guest.ssh import SSH
from lab.record.journal import read_history
from lab.record.run import Run, judge, to_json
from lab.report.junit import write_junit
from tests.unit.announced_fleet import AnnouncedFleet
from tests.unit.consoles import page, terminal
from tests.unit.fleets import EXPECT, Made, write
from tests.unit.sim_fleet import AboutToFreeze, fleet

LAST = "ValueError: Invalid isoformat string: 'Sat, 28 Nov 2026 18:00:15 GMT'"
DIED = HandlerEnd("my-handler.py", "exit-code", "exited", "1", LAST)
DONE = replace(DIED, result="success", status="0", last_line="drained")
SAID = f"the handler my-handler.py exited with status 1: {LAST}"


def run_of(folder: Path, *ends: tuple[str, int, HandlerEnd]) -> Run:
    """Two guests of a set, acknowledged and frozen, with nothing expected of the notice."""
    made = Made((("web", 1, 2),), rollout=None, expect=EXPECT, ends=ends)
    return judge(read_history(write(folder, f"run-{len(ends)}", made)))[0]


def test_a_handler_that_dies_of_its_event_fails_the_run(tmp_path: Path) -> None:
    assert run_of(tmp_path).outcome is Outcome.PASSED
    run = run_of(tmp_path, ("web-1", 0, DIED))
    assert run.outcome is Outcome.FAILED
    (finding,) = [f for f in run.findings if f.metric == "handler"]
    assert (finding.guest, finding.cycle, finding.outcome, finding.why) == ("web-1", 0, Outcome.FAILED, SAID)
    assert LAST in to_json(run)


def test_its_last_line_is_in_the_history_the_report_and_junit(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("web-1", 0, DIED))
    assert LAST in (tmp_path / "run-1" / "events.jsonl").read_text()
    write_junit(run, tmp_path / "junit.xml")
    failed = ET.parse(tmp_path / "junit.xml").findall(".//testcase/failure")  # noqa: S314 - our own
    assert [failure.get("message") for failure in failed] == [SAID]
    assert SAID in page(run, terminal(250)).replace("\N{NO-BREAK SPACE}", " ")


def test_one_that_ends_content_is_not_passed_either(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("web-0", 0, DONE))
    assert run.outcome is Outcome.INCONCLUSIVE
    (finding,) = [f for f in run.findings if f.metric == "handler"]
    assert finding.why == "the handler my-handler.py exited with status 0: drained"


def test_a_death_is_told_once_however_many_cycles_follow() -> None:
    found = handler_findings([("a", 0, DIED), ("a", 1, DIED), ("b", -1, DONE), ("a", 2, DIED)])
    assert [(f.guest, f.cycle, f.outcome) for f in found] == [
        ("a", 0, Outcome.FAILED), ("b", -1, Outcome.INCONCLUSIVE),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (HandlerEnd("x", "signal", "killed", "SEGV", "last"), "was killed by SIGSEGV: last"),
        (HandlerEnd("x", "core-dump", "dumped", "ABRT"), "was killed by SIGABRT: no output"),
        (HandlerEnd("x", "oom-kill", "killed", "KILL"), "was killed by SIGKILL (out of memory): no output"),
        (HandlerEnd("x", "unknown"), "ended: no output"),
    ],
)
def test_how_it_ended_in_words(end: HandlerEnd, text: str) -> None:
    assert end.text == text
    assert not end.succeeded


def test_the_controller_looks_at_the_end_of_every_cycle() -> None:
    lab = AnnouncedFleet(fleet(2, 1), Announcement())
    asked: Iterator[HandlerEnd | None] = iter([None])
    lab.world.handler_ends = {"g0": lambda: next(asked), "g1": lambda: DIED}
    lab.run()
    assert [(event.guest, event.end) for event in lab.world.of(HandlerEnded)] == [("g1", DIED)]
    assert next(asked, "looked at") == "looked at"


def test_every_guest_is_told_before_the_first_is_frozen() -> None:
    lab = AnnouncedFleet(fleet(2, 1), Announcement())
    lab.run()
    first = lab.world.events.index(lab.world.of(GuestsFrozen)[0])
    assert lab.world.of(AboutToFreeze) == [AboutToFreeze("g0"), AboutToFreeze("g1")]
    assert sum(isinstance(event, AboutToFreeze) for event in lab.world.events[:first]) == 2


def test_a_guest_that_does_not_answer_is_a_problem_and_no_end() -> None:
    lab = AnnouncedFleet(fleet(1, 1), Announcement())

    def lost() -> HandlerEnd | None:
        raise GuestError("no answer", where="guest g0")

    lab.world.handler_ends = {"g0": lost}
    lab.run()
    assert not lab.world.of(HandlerEnded)
    assert len(lab.world.of(ProblemMet)) == 1


def test_a_service_that_fails_is_in_the_record_too(tmp_path: Path) -> None:
    """Like a handler's death, it was told on stderr alone."""
    trouble = "not to be reached from web-0: SSH is gone"
    made = Made((("web", 1, 1),), rollout=None, troubles=(trouble,))
    run = judge(read_history(write(tmp_path, "service", made)))[0]
    assert run.outcome is Outcome.INCONCLUSIVE
    (finding,) = [f for f in run.findings if f.metric == "metadata service"]
    assert finding.why == f"metadata service: {trouble}"


def test_a_damaged_end_is_told(tmp_path: Path) -> None:
    made = Made((("web", 1, 1),), rollout=None, ends=(("web-0", 0, DIED),))
    folder = write(tmp_path, "damaged", made)
    path = folder / "events.jsonl"
    path.write_text(path.read_text().replace('"program"', '"programme"'))
    with pytest.raises(RecordError, match=r"damaged: handler: end\.program"):
        judge(read_history(folder))


def test_a_guest_that_does_not_answer_is_asked_once_in_the_end(tmp_path: Path) -> None:
    """V10: one that sleeps. Each time takes as long as a lost connection is tried again, 20 s."""
    asked: list[str] = []

    def silent() -> SSH:
        asked.append("web-0")
        raise GuestError("no answer to SSH", where="guest web-0")

    (tmp_path / "sleeps").write_text("#!/bin/sh\nsleep 600\n")
    handler = GuestHandler("web-0", silent, tmp_path / "sleeps", [], "sleeps", tmp_path / "log")
    with pytest.raises(GuestError, match="no answer"):
        handler.start()
    asked.clear()
    handler.close()
    handler.close()
    assert asked == ["web-0"]
