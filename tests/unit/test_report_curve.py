"""The resync curve as people see it."""

from __future__ import annotations

import re

import pytest

from lab.core.clock import Interval
from lab.core.resync import Reached
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.record.run import (
    Moved,
    PointRecord,
)
from lab.report.curve import show_curve
from lab.report.page import Page
from lab.report.resyncs import measured
from tests.unit.builders import curve, cycle, forecast, guest, resync, run
from tests.unit.consoles import output, plain, shown, terminal, widest

MS, S = NS_PER_MS, NS_PER_S


def plotted(
    points: list[PointRecord], steps: tuple[Moved, ...] = (), until: int = 8 * S, tolerance: int = 100 * MS
) -> list[str]:
    console = terminal(80)
    show_curve(Page(console), points, steps, until, tolerance, 0)
    return output(console).replace(NBSP, " ").splitlines()


def rows_with_dots(lines: list[str]) -> list[int]:
    return [i for i, line in enumerate(lines) if re.search(r"[\u2801-\u28ff]", line)]


def test_a_step_is_marked_and_both_levels_are_drawn() -> None:
    points = list(curve(-5006, 0.3, 2000))
    lines = plotted(points, (Moved(2 * S, 5 * S),))
    at = next(line for line in lines if "▲" in line).index("▲")
    first, last = rows_with_dots(lines)[0], rows_with_dots(lines)[-1]
    high = [i for i, c in enumerate(lines[first]) if "\u2801" <= c <= "\u28ff"]
    low = [i for i, c in enumerate(lines[last]) if "\u2801" <= c <= "\u28ff"]
    assert max(high) <= at + 1
    assert min(low) >= at - 1
    assert "10 s" in lines[0]


def test_the_tolerance_is_a_line_on_its_own_power_of_ten() -> None:
    lines = plotted(list(curve(-5006, 0.3, 2000)))
    line = next(line for line in lines if "╌" in line)
    assert line.lstrip().startswith("100 ms┤")
    assert line.endswith("± 100 ms")


def test_hours_have_their_place_on_the_scale() -> None:
    """They were drawn on the line of 100 s."""
    lines = plotted([PointRecord(at * MS, 7_194 * S, 7_195 * S) for at in range(0, 8000, 50)])
    (row,) = rows_with_dots(lines)
    assert lines[0].lstrip().startswith("2.8 h┤")
    assert row <= 1


@pytest.mark.parametrize("half_ms", [0.2, 5, 80])
def test_wide_bounds_are_drawn_as_wide_as_they_are(half_ms: float) -> None:
    points = [
        PointRecord(at * MS, round((-300 - half_ms) * MS), round((-300 + half_ms) * MS))
        for at in range(0, 8000, 50)
    ]
    dots = sum(
        bin(ord(c) & 0xFF).count("1") for line in plotted(points) for c in line if "\u2800" < c <= "\u28ff"
    )
    columns = 2 * max(len(re.findall("[\u2801-\u28ff]", line)) for line in plotted(points))
    assert (dots > columns) == (half_ms > 50)


def test_bounds_that_contain_zero_reach_down_to_the_axis() -> None:
    points = [PointRecord(at * MS, -400_000, 500_000) for at in range(0, 8000, 50)]
    lines = plotted([PointRecord(0, -3 * S, -3 * S), *points[1:]])
    axis = next(i for i, line in enumerate(lines) if "└" in line)
    assert rows_with_dots(lines)[-1] == axis - 1


def test_nothing_is_joined_over_a_second_without_a_reading() -> None:
    points = [PointRecord(0, -S, -S), PointRecord(500 * MS, -S, -S), PointRecord(6 * S, -S, -S)]
    line = next(line for line in plotted(points) if re.search(r"[\u2801-\u28ff]", line))
    body = line.split("┤")[1] if "┤" in line else line.split("│")[1]
    assert " " in body.rstrip()


@pytest.mark.parametrize("until", [MS, 999 * MS, S, 3 * S, 7_900 * MS, 64 * S, 3600 * S])
@pytest.mark.parametrize("width", [64, 80, 120])
def test_a_plot_fits_its_page_and_names_the_end_of_its_time(until: int, width: int) -> None:
    console = terminal(width)
    points = [PointRecord(until * i // 40, -S, -S) for i in range(41)]
    show_curve(Page(console), points, (), until, 100 * MS, 14)
    assert widest(output(console)) <= width


def test_a_single_run_has_a_plot_and_the_times_to_each_limit() -> None:
    reached = (Reached(S, Interval(0, 140 * MS)), Reached(MS, None))
    made = run(guest("web-0", cycle(resync=resync(reached=reached, forecast=forecast(True, "as predicted")))))
    text = shown(made, 80)
    assert re.search(r"100 ms┤.*╌.* ± 100 ms", text)
    assert "reached       within 1 s after 0.14 s, 1 ms not reached" in text
    assert "predicted     as predicted  one step at once" in text
    assert "┤" not in plain(made)
    assert "reached       within 1 s after 0.14 s" in plain(made)
    several = shown(run(guest("web-0", cycle(0), cycle(1))), 80)
    assert "┤" not in several


def test_a_clock_that_was_in_time_and_went_out_again_is_told() -> None:
    points = (
        *curve(-5006, 0.3, 130, 3000),
        PointRecord(3 * S, 180 * MS, 181 * MS),
        PointRecord(3_100 * MS, 0, MS),
    )
    went = cycle(resync=resync(curve=points))
    assert "in time after 0.14 s, out again until 3.0 s" in plain(run(guest("web-0", went)))
    assert measured(went)[0].endswith(", out again")
    assert measured(went)[1] != ""
    assert "out again" not in plain(run())
