"""What is compared of a run: taken from its record, written into the index and read back."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from lab.core.comparison import FigureKey, FigureKind, VerdictKey, compare_runs
from lab.core.drift import Drift
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.record.figures import figures_of, from_text, to_text
from lab.record.journal import read_history
from lab.record.model import Drifts, Measure, Run
from lab.record.run import judge
from tests.unit.builders import RUNS, control, cycle, guest, ms, resync, run
from tests.unit.real_histories import NAMES, unpacked


def real(name: str, folder: Path) -> Run:
    return judge(read_history(unpacked(name, folder)))[0]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    found = figures_of(real(name, tmp_path))
    assert from_text(to_text(found)) == found
    assert all(0 <= low <= value <= high for values in found.figures.values() for low, value, high in values)


@pytest.mark.parametrize("name", RUNS)
def test_hostile_names_are_read_back(name: str) -> None:
    found = figures_of(RUNS[name]())
    text = to_text(found)
    assert text.isascii()
    assert from_text(text) == found


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "null", '["' + "a" * 9 + '"]', "[" * 100_000])
def test_a_damaged_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's are among them
        from_text(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_beside_itself_shows_no_change(name: str, tmp_path: Path) -> None:
    found = figures_of(real(name, tmp_path))
    beside = compare_runs([found], found)
    assert beside.regressed == ()
    assert beside.verdicts == ()
    assert beside.differs == ()


def test_figures_of_a_cycle() -> None:
    found = figures_of(run(guest())).figures
    (pause,) = found[FigureKey("", FigureKind.PAUSE)]
    assert list(pause) == [5005.85 * NS_PER_MS, 5006.4 * NS_PER_MS, 5006.95 * NS_PER_MS]
    (offset,) = found[FigureKey("", FigureKind.OFFSET_AT_RESUME)]
    assert list(offset) == [5005.4 * NS_PER_MS, 5006.1 * NS_PER_MS, 5006.8 * NS_PER_MS]
    (final,) = found[FigureKey("", FigureKind.FINAL_OFFSET)]
    assert list(final) == [0, 0.3 * NS_PER_MS, 0.7 * NS_PER_MS]
    (in_time,) = found[FigureKey("", FigureKind.IN_TIME)]
    assert list(in_time) == [90 * NS_PER_MS, 140 * NS_PER_MS, 140 * NS_PER_MS]
    assert found[FigureKey("", FigureKind.DRIFT)] == [(0, 2.1, 20.1)]


def test_guests_that_are_frozen_together_are_one_value() -> None:
    slow = replace(cycle(), pause=ms(7000, 0.5))
    made = run(guest("web-0", cycle(), cycle(1)), guest("web-1", slow, cycle(1)))
    values = figures_of(made).figures[FigureKey("", FigureKind.PAUSE)]
    assert [value for _, value, _ in values] == [7000 * NS_PER_MS, cycle(1).pause.value_ns]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "changes",
    [{"called_off": "why"}, {"disturbed": "why"}, {"resumed_by": "dead-man"}, {"cancelled": True}],
)
def test_cycles_that_did_not_go_as_planned_are_no_figures(changes: dict[str, object]) -> None:
    made = run(guest("web-0", replace(cycle(), **changes), control(1)))  # type: ignore[arg-type]
    assert figures_of(made).figures == {}


def test_a_clock_that_never_came_back_took_longer_than_the_watch() -> None:
    late = resync(outcome="not synced", time_ns=None, time_low_ns=None)
    ((low, value, high),) = figures_of(run(guest("web-0", replace(cycle(), resync=late)))).figures[
        FigureKey("", FigureKind.IN_TIME)
    ]
    assert 7 * NS_PER_S < low < 8 * NS_PER_S
    assert value == high == inf
    unknown = resync(outcome="undecided", time_ns=None, time_low_ns=None)
    undecided = figures_of(run(guest("web-0", replace(cycle(), resync=unknown)))).figures
    assert FigureKey("", FigureKind.IN_TIME) not in undecided


def test_verdicts_of_all_cycles() -> None:
    found = figures_of(RUNS["many_cycles"]()).verdicts
    key = next(key for key in found if Outcome.FAILED in found[key])
    assert isinstance(key, VerdictKey)
    assert key.guest == "web-0"


def test_a_search_for_a_tolerance_is_compared_by_what_it_found(tmp_path: Path) -> None:
    found = figures_of(real("tolerance", tmp_path)).figures
    assert found == {
        FigureKey("", FigureKind.TOLERANCE, "udp-echo"): [(2_830_000_000, 3_095_000_000, 3_360_000_000)]
    }


def test_cells_have_their_own_figures(tmp_path: Path) -> None:
    found = figures_of(real("matrix", tmp_path))
    assert set(found.cells) == {"save-restore", "guest-sleep"}
    assert {key.cell for key in found.figures} == set(found.cells)
    assert found.machine.cpu == "AMD EPYC"
    assert (found.machine.cpus, found.machine.memory_gib) == (2, 24)


@pytest.mark.parametrize(
    "pause",
    [Measure(5, 6, 7), Measure(5, 4, 3), Measure(10**400, 1, 10**400), Measure(1 << 70, 1 << 70, 1 << 70)],
)
def test_what_nothing_can_measure_is_a_damaged_record(pause: Measure) -> None:
    with pytest.raises(RecordError, match="damaged: pause"):
        figures_of(run(guest("web-0", replace(cycle(), pause=pause))))


def test_a_drift_that_is_no_number_is_a_damaged_record() -> None:
    nothing = Drifts(None, Drift(nan, -1.0, 1.0, NS_PER_S))
    with pytest.raises(RecordError, match="damaged: drift"):
        figures_of(run(guest("web-0", replace(cycle(), drift=nothing))))
