"""Announced cycles and rollouts: from a whole history to run.json, and damaged ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from lab.core.history import SCHEMA, EventHappened, Host, RunEnded, RunStarted
from lab.core.plan import (
    Announcement,
    EventType,
    Fault,
    NoticeExpectations,
    OtherEvent,
    Plan,
    ResyncMechanism,
    Rollout,
    RolloutEnd,
    ServiceFaults,
)
from lab.core.scheduled.model import Happening, Kind, Late, Recorded
from lab.core.timeline import Observation
from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.record.events import Entry
from lab.record.journal import FileJournal, read_history
from lab.record.rebuild import plan_of
from lab.record.run import Run, judge, schema, to_json
from tests.unit import fleets
from tests.unit.announced_fleet import AnnouncedFleet
from tests.unit.fleets import EXPECT, GOOD, Made, write
from tests.unit.journalled import cycle, edited
from tests.unit.sim_fleet import fleet
from tests.unit.simulation import MS, S


def judged(folder: Path) -> Run:
    return judge(read_history(folder))[0]


@pytest.fixture
def runs(fleet_runs: dict[str, Run]) -> dict[str, Run]:
    return fleet_runs


def outcomes(run: Run, metric: str) -> list[Outcome]:
    return [f.outcome for f in run.findings if f.metric == metric]


def test_run_json_follows_its_schema(runs: dict[str, Run]) -> None:
    for run in runs.values():
        jsonschema.Draft202012Validator(schema()).validate(json.loads(to_json(run)))


def test_what_each_run_comes_to(runs: dict[str, Run]) -> None:
    assert {name: run.outcome.value for name, run in runs.items()} == {
        "acknowledged": "passed", "surprised": "failed", "spared": "passed", "rolled_out": "passed",
        "stopped": "failed", "overlapping": "failed", "large": "passed",
    }  # fmt: skip


def test_the_life_of_an_event(runs: dict[str, Run]) -> None:
    (event,) = runs["acknowledged"].events
    assert (event.group, event.resources, event.state) == ("web", ("web-0", "web-1"), "over")
    moments = (event.published, event.seen, event.approved, event.started, event.frozen, event.resumed)
    since = [moment.since_ns for moment in (*moments, event.gone) if moment is not None]
    assert since == sorted(s for s in since if s is not None)
    assert len(since) == 7
    assert since[:4] == [0, 400 * MS, 900 * MS, 900 * MS]
    assert event.given_ns == 900 * MS
    assert event.approved is not None
    assert event.approved.guest == "web-0"
    assert event.kept
    assert event.longest is not None
    assert abs(event.longest.value_ns - 2 * S) < 20 * MS
    assert event.outcome is Outcome.PASSED
    for guest in runs["acknowledged"].guests:
        assert [c.event for c in guest.cycles] == [event.id]


def test_a_plan_with_every_answer_and_other_events_is_read_back(tmp_path: Path) -> None:
    answers = (*Fault, Late(5 * S), Recorded("d.json", "{}"))
    announce = Announcement(
        service=ServiceFaults(answers=answers),
        others=(OtherEvent(EventType.REBOOT, 3600 * S), OtherEvent(EventType.PREEMPT)),
    )
    history = read_history(write(tmp_path, "every", Made((("web", 1, 1),), rollout=None, announce=announce)))
    assert plan_of(history).cycle.announce == announce


def test_a_cancelled_event_has_cycles_without_a_freeze(runs: dict[str, Run]) -> None:
    run = runs["spared"]
    assert run.events[0].state == "cancelled"
    assert all(c.cancelled and c.control and not c.frozen for g in run.guests for c in g.cycles)
    assert not outcomes(run, "started first")


def test_a_rollout_in_run_json(runs: dict[str, Run]) -> None:
    run = runs["rolled_out"]
    (rollout,) = run.rollouts
    assert (rollout.by, rollout.ended) == ("update-domain", "complete")
    assert [[(d.set, d.number) for d in w.domains] for w in rollout.waves] == [
        [("web", 0), ("db", 0)], [("web", 1), ("db", 1)], [("web", 2)], [("web", 3)],
    ]  # fmt: skip
    for wave in rollout.waves:
        assert (wave.state, wave.outcome, wave.notice_ns) == ("done", Outcome.PASSED, 900 * MS)
        web = wave.domains[0].stop_skew
        assert web is not None
        assert web.low_ns <= 8 * MS <= web.high_ns
    assert run.one_at_a_time is not None
    assert (run.one_at_a_time.outcome, run.one_at_a_time.times) == (Outcome.PASSED, 6)
    assert {c.wave for g in run.guests if g.name == "db-1" for c in g.cycles} == {2}


def test_a_rollout_that_was_stopped_stands_where_it_was(runs: dict[str, Run], tmp_path: Path) -> None:
    run = runs["stopped"]
    assert [w.state for w in run.rollouts[0].waves] == ["done", "stopped", "not begun", "not begun"]
    assert outcomes(run, "rollout") == [Outcome.FAILED]
    assert not outcomes(run, "cycles")
    why = next(f.why for f in run.findings if f.metric == "rollout")
    assert why.endswith("Done: web UD 0. Stopped in: web UD 1. Not begun: web UD 2, 3")
    expected = Made(bad=2, expect=replace(EXPECT, rollout=RolloutEnd.STOPPED))
    assert judged(write(tmp_path, "as-expected", expected)).outcome is Outcome.PASSED
    surprised = judged(write(tmp_path, "not-stopped", replace(expected, bad=None)))
    assert outcomes(surprised, "rollout") == [Outcome.FAILED]


ASKED = NoticeExpectations(
    acknowledged=True, seen=True, started_seen=True, kept=True, at_least_ns=0, at_most_ns=10 * S
)
CUT = {
    "told": Made((("web", 1, 1),), rollout=None, expect=replace(EXPECT, notice=ASKED)),
    "called off": Made(
        (("web", 1, 1),),
        rollout=None,
        expect=replace(EXPECT, notice=NoticeExpectations(cancelled=True)),
        said=replace(GOOD, cancelled_ns=3 * S, approved_ns=None),
    ),
}


@pytest.mark.parametrize("name", CUT)
def test_an_announcement_that_was_interrupted_has_not_failed(name: str, tmp_path: Path) -> None:
    """At whatever event of its history, by a signal or by the end of the process."""
    history = read_history(write(tmp_path, "whole", CUT[name]))
    assert judge(history)[0].outcome is Outcome.PASSED
    for count in range(1, len(history.entries)):
        entries = history.entries[:count]
        end = Entry(count, entries[-1].at, RunEnded(interrupted=True, failure="by a signal"))
        ended = replace(history, entries=(*entries, end))
        killed = replace(history, entries=entries, complete=False, damage="cut off")
        run = judge(ended if count % 2 else killed)[0]
        assert run.outcome is Outcome.INCONCLUSIVE
        assert [f.metric for f in run.findings if f.outcome is Outcome.FAILED] == []


def test_a_rollout_that_was_cut_off_proves_nothing(tmp_path: Path) -> None:
    run = judged(write(tmp_path, "cut", Made(cut=2)))
    assert outcomes(run, "rollout") == [Outcome.INCONCLUSIVE]
    assert outcomes(run, "cycles") == [Outcome.INCONCLUSIVE]
    assert run.outcome is Outcome.INCONCLUSIVE


def test_a_rollout_that_an_error_stopped_has_not_failed(tmp_path: Path) -> None:
    folder = write(tmp_path, "error", Made(bad=2))
    edited(folder, lambda event: event.update(ok=True, why="") if event["kind"] == "gate" else None)
    run = judged(folder)
    assert outcomes(run, "rollout") == [Outcome.INCONCLUSIVE]


def test_a_stop_that_was_not_seen_proves_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path, "whole", Made())
    edited(folder, lambda event: event["kind"] not in ("stop", "resume") or event["guest"] != "web-3")
    run = judged(folder)
    assert outcomes(run, "one domain at a time") == [Outcome.INCONCLUSIVE]
    assert run.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("limit_ns", "wanted"), [(20 * MS, "passed"), (MS, "failed"), (8 * MS, "inconclusive")]
)
def test_the_skew_is_held_against_its_limit(tmp_path: Path, limit_ns: int, wanted: str) -> None:
    expect = replace(EXPECT, skew_ns=limit_ns)
    for name, made in (("rollout", Made(expect=expect)), ("at-once", Made(rollout=None, expect=expect))):
        found = outcomes(judged(write(tmp_path, name, made)), "stop skew")
        assert len(found) == (4 if name == "rollout" else 1)
        if name == "rollout":
            assert {outcome.value for outcome in found} == {wanted}


def test_refusals_and_restarts_belong_to_the_event_of_their_group(tmp_path: Path) -> None:
    history = read_history(write(tmp_path, "r", Made((("web", 1, 2),), rollout=None)))
    end, first = history.entries[-1], next(history.of(EventHappened))
    extra = [
        Entry(number, end.at, EventHappened(Happening(end.at, kind, group, guest=guest), first.cycle))
        for number, (kind, guest, group) in enumerate((
            (Kind.REFUSED, "web-0", "web"), (Kind.REFUSED, "web-1", "web"), (Kind.RESTARTED, "", "web"),
            (Kind.REFUSED, "db-0", "db"),
        ))
    ]  # fmt: skip
    event = judge(replace(history, entries=(*history.entries, *extra)))[0].events[0]
    assert (event.refused, event.restarts) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "member"),
    [("announced", "events"), ("notice", "happening"), ("rollout", "by"), ("wave", "domains"),
     ("gate", "took_ns"), ("rollout-end", "ended")],
)  # fmt: skip
def test_an_event_that_is_damaged_is_named(tmp_path: Path, kind: str, member: str) -> None:
    folder = write(tmp_path, "d", Made((("web", 2, 1),)))
    edited(folder, lambda event: event.update({member: {"no": 1}}) if event["kind"] == kind else None)
    with pytest.raises(RecordError, match=f"damaged: {kind}: {member}"):
        read_history(folder)


@pytest.mark.parametrize("kind", ["rollout", "wave"])
def test_a_gate_of_a_rollout_or_a_wave_that_was_not_begun_is_damage(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path, "d", Made((("web", 2, 1),)))
    history = read_history(edited(folder, lambda event: event["kind"] != kind))
    with pytest.raises(RecordError, match="is damaged: its rollout or its wave was not begun"):
        judge(history)


def test_what_was_to_be_announced_and_was_not_is_not_green(tmp_path: Path) -> None:
    folder = write(tmp_path, "n", Made((("web", 1, 1),), rollout=None))
    edited(folder, lambda event: event["kind"] not in ("announced", "notice"))
    assert outcomes(judged(folder), "announcement") == [Outcome.INCONCLUSIVE]


def test_an_event_that_is_still_shown_fails(tmp_path: Path) -> None:
    said = replace(GOOD, gone=False)
    run = judged(write(tmp_path, "still", Made((("web", 1, 1),), rollout=None, said=said)))
    assert outcomes(run, "gone") == [Outcome.FAILED]


def test_an_event_without_an_acknowledgement_passes_where_none_is_expected(tmp_path: Path) -> None:
    said = replace(GOOD, approved_ns=None, notice_ns=500 * MS)
    expect = replace(EXPECT, notice=NoticeExpectations(acknowledged=False, started_seen=True))
    made = Made((("web", 1, 1),), rollout=None, said=said, expect=expect)
    run = judged(write(tmp_path, "nobody", made))
    assert run.outcome is Outcome.PASSED
    after = run.events[0].after_not_before
    assert after is not None
    assert after.low_ns > 0
    assert after.low_ns >= fleets.SHOWN_NS


def test_what_the_real_controller_and_service_journal_is_judged(tmp_path: Path) -> None:
    """A simulated fleet under the real controller, its handlers at the real machine of the service."""
    specs = [replace(spec, availability_set="web") for spec in fleet(4, 2)]
    lab = AnnouncedFleet(specs, Announcement())
    rollout = Rollout(gates=(fleets.CLOCK,))
    notice = NoticeExpectations(acknowledged=True, seen=True, started_seen=True, kept=True)
    expect = replace(EXPECT, notice=notice, tolerance_ns=100 * MS, skew_ns=100 * MS)
    spec = replace(lab.cycle, announce=lab.announcement)
    plan = Plan("sim", "", "00", tuple(specs), ResyncMechanism.AGENT, spec, expect, rollout=rollout)
    with FileJournal(tmp_path, lab.world) as journal:
        journal.append(RunStarted(SCHEMA, "sim", plan, Host()))
        lab.world.append = journal.append  # type: ignore[method-assign]
        lab.run(rollout)
        journal.append(RunEnded(interrupted=False, failure=""))
    run = judged(tmp_path)
    # These guests have no sampler, so nothing tells the gap; all else is known.
    assert {f.metric for f in run.findings if f.outcome is not Outcome.PASSED} == {"closure"}
    assert {"one domain at a time", "stop skew", "acknowledged"} <= {f.metric for f in run.findings}


def test_a_guest_and_its_wave_have_one_verdict(tmp_path: Path) -> None:
    """V7: a pause longer than announced is the guest's and its wave's; the others have passed, and a wave's
    pause is a spread."""
    expect = replace(EXPECT, notice=NoticeExpectations(kept=True))

    def longer(o: Observation) -> Observation:
        one = cycle(o.method, o.cycle, 12 * S)
        assert o.stop is not None
        assert one.stop is not None
        by = o.stop.called.raw_ns - one.stop.called.raw_ns
        return fleets.moved(one, by, o.guest) if o.guest == "web-1" else o

    made = Made((("web", 2, 2),), expect=expect, change=longer)
    run = judged(write(tmp_path, "one-verdict", made))
    outcomes = {guest.name: guest.cycles[0].outcome for guest in run.guests}
    assert outcomes == dict.fromkeys(("web-0", "web-2", "web-3"), Outcome.PASSED) | {"web-1": Outcome.FAILED}
    one, two = run.rollouts[0].waves
    assert (one.outcome, two.outcome) == (Outcome.FAILED, Outcome.PASSED)
    assert one.why.startswith("web-1 paused for 12")
    assert two.why == ""
    assert one.pause is not None
    assert one.pause.low_ns < 2100 * MS < 11 * S < one.pause.high_ns
