"""What run.json says of forecasts, curves, claims, effects and the lab's calibration."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.history import SetupRead
from lab.core.verdict import Outcome
from lab.record.journal import read_history
from lab.record.run import CycleRecord, Run, judge
from tests.unit.histories import ALL, resync_matrix, slewed, stepped
from tests.unit.journalled import CALIBRATION, edited
from tests.unit.simulation import MS, S


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {make.__name__: judge(read_history(make(folder)))[0] for make in (resync_matrix, slewed, stepped)}


def cycles(run: Run) -> dict[str, CycleRecord]:
    return {guest.cell: cycle for guest in run.guests for cycle in guest.cycles}


def test_every_freeze_has_its_forecast_and_how_the_two_stand(runs: dict[str, Run]) -> None:
    found = cycles(runs["resync_matrix"])
    assert len(found) == 16
    said = {cell: c.resync.forecast for cell, c in found.items() if c.resync is not None}
    assert all(one is not None and one.text for one in said.values())
    verdicts = {cell: (one.agrees, one.verdict) for cell, one in said.items() if one is not None}
    assert verdicts["suspend-3s-none"] == (True, "as predicted")
    assert verdicts["suspend-3s-agent"] == (True, "as predicted")
    assert verdicts["suspend-3s-timesyncd"] == (None, "not yet, as predicted")
    assert verdicts["suspend-3s-chrony-distribution"] == (None, "not yet, as predicted")
    agrees, words = verdicts["suspend-200ms-chrony-frozen"]
    assert agrees is False
    assert words.startswith("surprise: ")


def test_a_resync_that_was_asked_for_as_predicted_is_a_check_and_not_yet_has_not_passed(
    runs: dict[str, Run],
) -> None:
    found = {f.cell: f for f in runs["resync_matrix"].findings if f.metric == "resync"}
    assert len(found) == 16
    assert found["suspend-3s-none"].outcome is Outcome.PASSED
    assert found["suspend-3s-timesyncd"].outcome is Outcome.INCONCLUSIVE
    assert found["suspend-3s-timesyncd"].why.startswith("not yet, as predicted (stepped at its next poll")
    assert found["suspend-200ms-chrony-frozen"].outcome is Outcome.FAILED
    outcomes = {cell.id: cell.outcome for cell in runs["resync_matrix"].cells}
    assert all(outcomes[cell] is finding.outcome for cell, finding in found.items())
    assert not [f for f in runs["slewed"].findings if f.metric == "resync"]  # nobody asked


def test_a_forecast_names_its_sources_and_is_of_the_configuration_in_the_guest(runs: dict[str, Run]) -> None:
    resync = cycles(runs["resync_matrix"])["suspend-3s-chrony"].resync
    assert resync is not None
    assert resync.forecast is not None
    assert resync.forecast.sources
    assert "makestep 1.0 -1" in resync.config
    assert resync.program == "chronyd 4.3"


def test_the_way_back_is_told_in_steps_limits_and_rates(runs: dict[str, Run]) -> None:
    back = cycles(runs["slewed"])[""].resync
    assert back is not None
    assert back.tolerance_ns == 100 * MS
    assert back.steps == ()
    assert back.slew_ppm is not None
    assert 75_000 < back.slew_ppm <= 83_400  # made with 83333 ppm
    times = {r.limit_ns: r.time for r in back.reached}
    assert list(times) == [S, 100 * MS, 10 * MS, MS]
    known = [time.high_ns for time in times.values() if time is not None]
    assert known == sorted(known)
    over = cycles(runs["stepped"])[""].resync
    assert over is not None
    assert over.steps is not None
    assert [step.by_ns > 0 for step in over.steps] == [True, False]
    assert 120 * MS <= over.steps[0].at_ns <= over.steps[1].at_ns <= over.curve[-1].at_ns


def test_claims_that_were_wrong_are_told_with_how_long_and_by_how_much(runs: dict[str, Run]) -> None:
    found = cycles(runs["resync_matrix"])
    (wrong,) = found["suspend-3s-chrony-distribution"].audits
    assert wrong.source == "chronyc tracking"
    assert 0 < wrong.wrong <= wrong.judged <= wrong.claims
    # It said so while it was 3 s behind, but for the second in which it said that it was not synchronised.
    assert 3 * S < wrong.wrong_low_ns <= wrong.wrong_high_ns < 5 * S
    assert 2_900 * MS < wrong.worst_ns < 3 * S
    assert 0 < wrong.unsynced_ns < 2 * S
    assert wrong.example
    (right,) = found["suspend-3s-agent"].audits
    assert (right.wrong, right.wrong_high_ns, right.worst_ns, right.example) == (0, 0, 0, "")


def test_effects_are_of_before_the_pause_and_of_what_came_of_it(runs: dict[str, Run]) -> None:
    seen = cycles(runs["slewed"])[""].effects
    assert seen is not None
    assert seen.rtc_before is not None
    assert seen.rtc_after is not None
    assert (seen.rtc_before.value_ns, seen.rtc_before.low_ns, seen.rtc_before.high_ns) == (
        -2 * MS,
        -3 * MS,
        -MS,
    )
    assert seen.rtc_after.value_ns == 3 * MS
    assert seen.looks == sum(one.looks for one in seen.clocks)
    assert [fleet.at_once for fleet in seen.timers] == [5, 64, 4]
    assert all(sum(n for _, n in fleet.buckets) == fleet.count for fleet in seen.timers)


def test_the_calibration_at_the_time_of_the_run_and_what_was_left_out(runs: dict[str, Run]) -> None:
    assert runs["resync_matrix"].calibration is not None
    assert runs["resync_matrix"].calibration.noise_ns == CALIBRATION["noise_ns"]
    assert runs["slewed"].calibration is not None
    assert runs["slewed"].calibration.stale
    (left,) = runs["resync_matrix"].left_out
    assert left.values == {"method": "sigstop", "hold": "3s", "resync": "push"}
    assert left.why == "excluded by the playbook"


def test_a_calibration_of_another_version_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    folder = stepped(tmp_path)

    def judged(calibration: object) -> Run:
        edited(
            folder,
            lambda event: event.update(calibration=calibration) if event["kind"] == "run-start" else None,
        )
        return judge(read_history(folder))[0]

    assert judged({**CALIBRATION, "temperature": 300}).calibration == judged(CALIBRATION).calibration
    assert judged({"made": "2026-11-17"}).calibration is None
    assert judged(None).calibration is None
    edited(folder, lambda event: event.pop("calibration", None) is None or None)
    assert judge(read_history(folder))[0].calibration is None


def test_a_history_from_before_set_ups_is_judged_by_the_labs_own_configuration(tmp_path: Path) -> None:
    history = read_history(ALL["upgrade"](tmp_path))
    assert not list(history.of(SetupRead))
    resync = judge(history)[0].guests[0].cycles[0].resync
    assert resync is not None
    assert resync.forecast is not None
    assert (resync.program, resync.config) == ("", "")
