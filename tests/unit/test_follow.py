"""A run in progress, read from its history as it grows."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.record.follow import FollowedRun
from lab.record.journal import EVENTS, read_history
from lab.record.model import CycleRecord, Measure, Run
from lab.record.run import judge
from tests.unit.real_histories import unpacked
from tests.unit.replayed import replayed

ONE_CYCLE_EACH = ["suspend", "announced", "reboot", "in-place", "matrix", "rollout", "cancelled"]
"""Histories in which no guest has two cycles: the judge knows no more in the end."""


def cycles_of(run: Run) -> dict[tuple[str, str, int], CycleRecord]:
    return {(guest.cell, guest.name, c.index): c for guest in run.guests for c in guest.cycles}


@pytest.mark.parametrize("name", ONE_CYCLE_EACH)
def test_a_cycle_is_judged_as_soon_as_it_has_ended(tmp_path: Path, name: str) -> None:
    followed = FollowedRun(tmp_path / "run")
    seen = [one for _ in replayed(name, tmp_path / "run") for one in followed.update()]
    whole, _ = judge(read_history(tmp_path / "run"))
    assert {(one.cell, one.guest, one.cycle.index): one.cycle for one in seen} == cycles_of(whole)
    live = followed.run()
    assert live is not None
    assert cycles_of(live) == cycles_of(whole)
    assert live.events == whole.events
    assert (live.id, live.host.kernel, live.complete) == (whole.id, whole.host.kernel, False)
    assert followed.ended
    assert followed.problem == ""


@pytest.mark.parametrize("name", ["control-cycles", "calibration", "tolerance"])
def test_bounds_of_one_cycle_by_itself_hold_those_of_all_together(tmp_path: Path, name: str) -> None:
    followed = FollowedRun(unpacked(name, tmp_path))
    followed.update()
    live = followed.run()
    assert live is not None
    whole, _ = judge(read_history(tmp_path))
    for key, cycle in cycles_of(whole).items():
        alone = cycles_of(live)[key]
        offsets = zip(vars(cycle.offset).values(), vars(alone.offset).values(), strict=True)
        for one, other in [(cycle.pause, alone.pause), *offsets]:
            assert (one is None) == (other is None)
            if isinstance(one, Measure) and isinstance(other, Measure):
                assert other.low_ns <= one.high_ns and one.low_ns <= other.high_ns, (key, one, other)
        assert [getattr(alone, f.name) for f in fields(alone) if f.name in ("method", "control", "cell")] == [
            getattr(cycle, f.name) for f in fields(cycle) if f.name in ("method", "control", "cell")
        ]


def test_guests_that_stand_still_now(tmp_path: Path) -> None:
    followed, counts = FollowedRun(tmp_path / "run"), []
    for _ in replayed("suspend", tmp_path / "run"):
        followed.update()
        counts.append(len(followed.frozen))
    assert set(counts) == {0, 1}
    assert counts[-1] == 0


def test_a_line_may_come_in_pieces(tmp_path: Path) -> None:
    content = (unpacked("suspend", tmp_path) / EVENTS).read_bytes()
    (tmp_path / EVENTS).unlink()
    followed = FollowedRun(tmp_path)
    step = len(content) // 40 + 1
    with (tmp_path / EVENTS).open("ab", buffering=0) as file:
        for place in range(0, len(content), step):
            file.write(content[place : place + step])
            followed.update()
    assert [one.cycle.outcome for one in followed.cycles] == [Outcome.PASSED]


def test_nothing_is_known_before_the_first_line(tmp_path: Path) -> None:
    (tmp_path / EVENTS).touch()
    followed = FollowedRun(tmp_path)
    assert followed.update() == []
    assert followed.run() is None


def test_a_history_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read: No such file"):
        FollowedRun(tmp_path).update()


def test_damage_is_left_to_the_judge_of_the_whole(tmp_path: Path) -> None:
    lines = (unpacked("suspend", tmp_path) / EVENTS).read_bytes().split(b"\n")
    lines[5:5] = [b"\xff\x00 no event", b"[]", b'{"seq": 5, "kind": 7}']
    (tmp_path / EVENTS).write_bytes(b"\n".join(lines))
    followed = FollowedRun(tmp_path)
    followed.update()
    assert len(followed.cycles) == 1


def test_a_cycle_that_cannot_be_judged_is_told(tmp_path: Path) -> None:
    text = (unpacked("matrix", tmp_path) / EVENTS).read_text()
    first = text.index('"kind":"cycle"')
    cell = text.index('"cell":"', first) + len('"cell":"')
    (tmp_path / EVENTS).write_text(text[:cell] + "nowhere-" + text[cell:])
    followed = FollowedRun(tmp_path)
    followed.update()
    assert "nowhere-" in followed.problem
    assert len(followed.cycles) == 1


def test_it_reads_only_what_is_new(tmp_path: Path) -> None:
    followed = FollowedRun(unpacked("suspend", tmp_path))
    followed.update()
    size = (tmp_path / EVENTS).stat().st_size
    with (tmp_path / EVENTS).open("r+b") as file:  # what was read already is of no interest
        os.pwrite(file.fileno(), b"x" * 100, 0)
    assert followed.update() == []
    assert (tmp_path / EVENTS).stat().st_size == size
