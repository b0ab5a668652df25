"""A night in a real systemd of a user: what is installed is what is run."""

from __future__ import annotations

from pathlib import Path

from lab.host.night_units import SERVICE, TIMER
from tests.host.systemd_lab import outcome_of
from tests.unit.hostile_words import HOSTILE


def test_systemd_runs_the_night_with_its_very_words_and_forgets_it_when_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    program = Path(__file__).with_name("night_timer_inside.py")
    seen = outcome_of("user", program, tmp_path, [str(tmp_path / "own")])
    assert seen["argv"] == list(HOSTILE)
    assert seen["environment"] == seen["wanted"]
    assert seen["missed"]
    first, second = seen["next"]
    assert " 03:07:00 " in first and " 04:08:00 " in second
    home = str(tmp_path / "own/50% off/a b")
    assert seen["homes"] == [home, home]
    assert seen["refusal"].startswith("the night that is installed is of another state folder: ")
    assert (seen["removed"], seen["left"], seen["after"]) == ([TIMER, SERVICE], [], "not-found")
