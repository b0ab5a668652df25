"""What a run measured, in the properties of its JUnit file, and totals of announcements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.core.clock import Interval
from lab.core.verdict import Outcome
from lab.record.event_timelines import totals_of
from lab.record.model import EventRecord, EventTotals
from lab.record.run import Run
from lab.report.cells import show_cells
from lab.report.junit import write_junit
from lab.report.notices import approvals
from lab.report.page import Page
from tests.unit.builders import RUNS, cycle, resync_matrix
from tests.unit.consoles import output, pipe


def properties(made: Run, folder: Path) -> dict[str, str]:
    write_junit(made, folder / "j.xml")
    tree = ET.fromstring((folder / "j.xml").read_text(encoding="utf-8"))  # noqa: S314 - ours
    found = [(each.get("name") or "", each.get("value") or "") for each in tree.iter("property")]
    assert len(dict(found)) == len(found), "a property is there twice"
    return dict(found)


def test_pause_and_offsets_have_their_bounds(tmp_path: Path) -> None:
    made = RUNS["many_cycles"]()
    found = properties(made, tmp_path)
    pause, offset = made.guests[0].cycles[7].pause, made.guests[0].cycles[7].offset.at_resume
    assert pause is not None and offset is not None
    assert found["pause.web-0.7.value_ns"] == str(pause.value_ns)
    assert int(found["pause.web-0.7.low_ns"]) < pause.value_ns < int(found["pause.web-0.7.high_ns"])
    assert found["offset.web-0.7.at_resume.low_ns"] == str(offset.low_ns)


def test_what_was_not_measured_has_no_property(tmp_path: Path) -> None:
    found = properties(RUNS["inconclusive"](), tmp_path)
    assert not [name for name in found if name.startswith(("pause.", "offset."))]


def test_events_and_waves_of_a_fleet(fleet_runs: dict[str, Run], tmp_path: Path) -> None:
    made = fleet_runs["rolled_out"]
    found = properties(made, tmp_path)
    event = made.events[0]
    assert event.approved is not None
    assert found[f"event.{event.id}.approved.guest"] == event.approved.guest
    assert found[f"event.{event.id}.resources"] == ", ".join(event.resources)
    assert found[f"event.{event.id}.kept"] == "true"
    assert found["wave.1.events.approved"] == found["wave.1.events.count"]
    assert int(found["wave.1.pause.low_ns"]) > 0


def test_a_matrix_with_announcements(fleet_runs: dict[str, Run], tmp_path: Path) -> None:
    made = resync_matrix(("agent", "5 s", cycle()), ("none", "5 s", cycle()))
    announced = totals_of(fleet_runs["rolled_out"].events)
    made = replace(made, cells=(replace(made.cells[0], events=announced), made.cells[1]))
    found = properties(made, tmp_path)
    assert found[f"cell.{made.cells[0].id}.events.count"] == str(len(fleet_runs["rolled_out"].events))
    console = pipe()
    show_cells(Page(console), made)
    rows = [line.split() for line in output(console).splitlines()]
    assert [word for word in rows[0] if word in ("notice", "approved")] == ["notice", "approved"]
    assert "all" in rows[1]
    assert "all" not in rows[2]


def _event(like: EventRecord, **changes: object) -> EventRecord:
    return replace(like, **changes)  # type: ignore[arg-type]


def test_totals_take_the_worst(fleet_runs: dict[str, Run]) -> None:
    good = _event(
        fleet_runs["acknowledged"].events[0], kept=True, given_ns=900, refused=0, state="over",
        after_not_before=Interval(-20, -10), outcome=Outcome.PASSED,
    )  # fmt: skip
    long = _event(
        good, kept=False, given_ns=500, refused=3, after_not_before=Interval(5, 6), outcome=Outcome.FAILED
    )
    ignored = _event(
        good, seen=None, approved=None, released=None, kept=None, given_ns=None, after_not_before=None
    )
    off = _event(ignored, state="cancelled")
    assert totals_of([]) is None
    assert totals_of([good, long, ignored, off]) == EventTotals(
        4, 2, 2, 1, 500, Interval(5, 6), False, 3, Outcome.FAILED
    )
    assert [totals_of(each).kept for each in ([good], [good, ignored], [good, off], [off])] == [  # type: ignore[union-attr]
        True, None, True, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("approved", "cancelled", "text"),
    [(3, 0, "all"), (2, 1, "all"), (1, 2, "yes"), (1, 0, "1 of 3"), (0, 3, "called off")],
)
def test_approvals_in_a_word(approved: int, cancelled: int, text: str) -> None:
    assert approvals(EventTotals(3, 3, approved, cancelled, 1, None, True, 0, Outcome.PASSED))[0] == text
