"""Predictions, curves, claims, effects and the lab's own accuracy, as people see them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.core.clock import Interval
from lab.core.effects import Backward, Timers
from lab.core.quantities import format_at_latest, format_at_least, format_between
from lab.core.resync import Reached
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.record.run import (
    AuditRecord,
    Calibration,
    CellRecord,
    CycleRecord,
    EffectsRecord,
    LeftOutRecord,
    Moved,
    Offsets,
    PointRecord,
    Run,
)
from lab.report.claims import claim_text
from lab.report.curve import show_curve
from lab.report.junit import write_junit
from lab.report.page import Page
from lab.report.resyncs import measured, place, predicted, rank, verdict
from lab.report.terminal import render
from tests.unit.builders import curve, cycle, forecast, guest, ms, resync, run, stays_behind
from tests.unit.consoles import output, pipe, terminal, widest

MS, S = NS_PER_MS, NS_PER_S


def shown(made: Run, width: int = 100, colour: bool = False) -> str:
    console = terminal(width, colour)
    render(made, console)
    return output(console).replace(NBSP, " ")


def plain(made: Run) -> str:
    console = pipe()
    render(made, console)
    return output(console)


# -- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-3 * S, -3 * S, "3 s behind"),
        (-S, 0, "0–1 s behind"),
        (-S - 200 * MS, 5 * MS, "0–1.2 s behind"),
        (-20 * MS, 20 * MS, "± 20 ms"),
        (-1200 * MS, 505 * MS, "± 1.2 s"),
        (-400 * MS, -100 * MS, "0.1–0.4 s behind"),
        (100 * MS, 400 * MS, "0.1–0.4 s ahead"),
        (-1000 * MS, 100 * MS, "0.1 s ahead to 1 s behind"),
        (0, 0, "± 0 ms"),
    ],
)
def test_where_an_offset_is_predicted(low: int, high: int, text: str) -> None:
    assert place(Interval(low, high)) == text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "step ≤ 2 s"),
        ({"correction": "slew", "within": Interval(30 * S, 36 * S)}, "slew not before 30 s"),
        ({"correction": "slew", "within": Interval(5 * S, 7_100 * MS)}, "slew 5–7.1 s"),
        ({"within": Interval(32 * S, 2048 * S)}, "step not before 32 s"),
        ({"within": Interval(0, 2048 * S)}, "step ≤ 35 min"),
        ({"within": None}, "step"),
        ({"correction": None}, "repaired ≤ 2 s"),
        ({"residual": Interval(-S, 0)}, "step ≤ 2 s → 0–1 s behind"),
        ({"correction": "none", "within": None, "residual": Interval(0, 0)}, "nothing to repair"),
        (
            {"repaired": False, "correction": "none", "within": None, "residual": Interval(-3 * S, -3 * S)},
            "stays 3 s behind",
        ),
        (
            {"repaired": False, "correction": None, "within": None, "residual": Interval(-3 * S, -3 * S)},
            "stays 3 s behind",
        ),
        ({"repaired": None, "correction": None, "within": None, "residual": None}, "open"),
    ],
)
def test_a_prediction_in_few_words(changes: dict[str, object], text: str) -> None:
    said = forecast(True, "as predicted", **changes)
    assert predicted(resync(forecast=said)) == text  # watched for 8 s


def test_without_a_forecast_what_was_predicted_is_told_as_it_was() -> None:
    assert predicted(resync()) == "one step at once, to the agent's latency"
    assert predicted(resync(predicted="")) == "–"


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (cycle(), "step 0.14 s → +0.3 ± 0.4 ms"),
        (cycle(resync=resync(time_ns=4_120 * MS, correction="slew")), "slew 4.2 s → +0.3 ± 0.4 ms"),
        (cycle(resync=resync(correction="none")), "right, +0.3 ± 0.4 ms"),
        (cycle(resync=resync(correction=None)), "in time 0.14 s → +0.3 ± 0.4 ms"),
        (stays_behind(), "5.0 s behind after 7.9 s"),
        (
            cycle(
                offset=Offsets(None, None, ms(-303.2, 0.4)),
                resync=resync(outcome="not synced", time_ns=None),
            ),
            "step → 303 ms behind after 7.9 s",
        ),
        (cycle(resync=resync(outcome="undecided", time_ns=None)), "step → +0.3 ± 0.4 ms after 7.9 s"),
        (cycle(offset=Offsets()), "not measured"),
        (cycle(resync=None), "not measured"),
    ],
)
def test_a_measurement_in_few_words(seen: CycleRecord, text: str) -> None:
    assert measured(seen)[0].replace(NBSP, " ") == text


@pytest.mark.parametrize("ns", [1, MS, 7 * MS, 99 * MS, 100 * MS, 140 * MS, S - 1, S, 9_999 * MS, 36_140 * MS,
                                119 * S, 120 * S, 121 * S, 2048 * S, 7000 * S, 11_830 * S])  # fmt: skip
def test_limits_are_rounded_outwards(ns: int) -> None:
    def back(text: str) -> float:
        units = {"ms": MS, "s": S, "min": 60 * S, "h": 3600 * S}
        words = text.split()
        return sum(float(n) * units[u] for n, u in zip(words[::2], words[1::2], strict=True))

    least, most = format_at_least(ns, coarse=True), format_at_latest(ns, coarse=True)
    assert back(least) <= ns <= back(most)
    assert back(most) <= max(ns * 1.5, ns + MS)


@pytest.mark.parametrize(
    ("agrees", "words", "style"),
    [
        (True, "as predicted", "green"),
        (False, "surprise: slewed", "bold magenta"),
        (None, "not yet, as predicted", "cyan"),
        (None, "undecided: seldom read", "yellow"),
    ],
)
def test_only_what_came_as_predicted_is_green(agrees: bool | None, words: str, style: str) -> None:
    assert verdict(forecast(agrees, words)) == (words, style)
    assert verdict(None)[1] != "green"


def test_a_surprise_is_looked_at_first_and_what_agrees_last() -> None:
    given = [
        (True, "as predicted"),
        (None, "not yet, as predicted"),
        (None, "undecided"),
        (False, "surprise"),
    ]
    ranks = [rank(forecast(*one)) for one in given]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 4


# -- the table ------------------------------------------------------------------------------------


def matrix(*cells: tuple[str, str, CycleRecord | None], **changes: object) -> Run:
    """A run with cells of (mechanism, hold, cycle); None: refused."""
    made, guests = [], []
    for mechanism, hold, seen in cells:
        name = f"{hold}-{mechanism}"
        outcome = Outcome.INCONCLUSIVE if seen is None else seen.outcome
        made.append(
            CellRecord(
                name, {"hold": hold, "resync": mechanism}, outcome, "suspend", 512 << 20, 1, f"hold {hold}",
                mechanism, 0 if seen is None else 1, 1, (), "" if seen else "refused: no", seen is None,
            )
        )  # fmt: skip
        cycles = () if seen is None else (replace(seen, cell=name),)
        guests.append(replace(guest("web-0"), cycles=cycles, cell=name))
    return replace(run(*guests), cells=tuple(made), **changes)  # type: ignore[arg-type]


def one(agrees: bool | None, words: str, **changes: object) -> CycleRecord:
    return cycle(resync=resync(forecast=forecast(agrees, words), **changes))


RIGHT = cycle(
    resync=resync(
        forecast=forecast(True, "as predicted", correction="none", within=None),
        correction="none",
        time_ns=5 * MS,
    )
)


def test_rows_are_grouped_by_mechanism_in_the_order_of_the_playbook() -> None:
    made = matrix(
        ("push", "500ms", one(True, "as predicted")), ("agent", "500ms", one(True, "as predicted")),
        ("push", "3s", one(True, "as predicted")), ("agent", "3s", None),
    )  # fmt: skip
    lines = shown(made, 80).splitlines()
    begin = next(i for i, line in enumerate(lines) if line.lstrip().startswith("pause"))
    heads = [line.split("  ")[0] for line in lines[begin + 1 : begin + 7]]
    assert heads == ["push", "", "", "agent", "", ""]
    assert [line.split()[0] for line in lines[begin + 2 : begin + 4]] == ["0.5", "3"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_not_yet_is_never_shown_as_passed(width: int) -> None:
    made = matrix(
        ("timesyncd", "3s", one(None, "not yet, as predicted")), ("agent", "3s", one(True, "as predicted"))
    )
    text = shown(made, width, colour=True)
    for line in text.splitlines():
        if "not yet" in line and "cell" not in line:
            assert "\x1b[32m" not in line  # green
    assert re.search("36m(1 )?not yet", text)
    assert widest(shown(made, width)) <= width


def test_every_row_says_it_all_where_there_is_no_terminal() -> None:
    made = matrix(
        ("timesyncd", "3s", one(None, "not yet, as predicted")), ("none", "3s", stays_behind()),
        ("chrony", "3s", one(False, "surprise: slewed, step predicted", correction="slew")),
    )  # fmt: skip
    rows = [line for line in plain(made).splitlines() if re.match("timesyncd|none|chrony ", line)]
    assert len(rows) == 3
    assert "not yet, as predicted" in rows[0]
    assert "surprise: slewed, step predicted" in rows[2]


def test_pauses_that_needed_no_repair_share_a_row() -> None:
    made = matrix(*(("chrony", hold, RIGHT) for hold in ("500ms", "3s", "20s")))
    text = shown(made, 80)
    assert re.search(r"^ +all +nothing to repair +right, within 0.70 ms +as predicted$", text, re.M)
    failed = matrix(
        ("chrony", "500ms", RIGHT), ("chrony", "3s", replace(RIGHT, outcome=Outcome.FAILED)),
        ("chrony", "20s", one(False, "surprise: stepped")),
    )  # fmt: skip
    assert len(re.findall(r"nothing to repair", shown(failed, 80))) == 2


def test_cells_are_counted_by_their_verdicts() -> None:
    made = matrix(
        ("agent", "3s", one(True, "as predicted")), ("push", "3s", one(True, "as predicted")),
        ("ntpd", "3s", one(None, "not yet, as predicted")), ("chrony", "3s", one(False, "surprise: slewed")),
        ("chrony-phc", "3s", None),
    )  # fmt: skip
    assert "5 cells: 1 surprise, 1 refused, 1 not yet, 2 as predicted" in plain(made)


def test_of_hundreds_of_cells_those_are_shown_that_tell_most() -> None:
    cells = [("agent", f"{i}ms", one(True, "as predicted")) for i in range(300)]
    cells[250] = ("push", "250ms", one(False, "surprise: slewed"))
    text = shown(matrix(*cells), 80)
    assert len(text.splitlines()) < 170
    assert "push" in text
    assert "300 cells: 1 surprise, 299 as predicted" in text


def test_what_the_plan_left_out_is_told_with_its_reason() -> None:
    left = LeftOutRecord({"hold": "3s", "resync": "push"}, "excluded by the playbook")
    made = matrix(("agent", "3s", one(True, "as predicted")), left_out=(left,))
    assert "1 combination left out  excluded by the playbook: 3s · push" in shown(made)


def test_a_matrix_without_mechanisms_has_its_own_table() -> None:
    made = matrix(("agent", "3s", one(True, "as predicted")))
    other = replace(made, cells=(replace(made.cells[0], values={"hold": "3s"}),))
    assert "in time by" in plain(other)
    assert "in time by" not in plain(made)


# -- the curve ------------------------------------------------------------------------------------


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


# -- claims ---------------------------------------------------------------------------------------

HELD = AuditRecord("adjtimex", 41, 41, 0, 0, 0, 0, 0)
WRONG = AuditRecord(
    "chronyc tracking", 41, 40, 9, 4_310 * MS, 4_590 * MS, 4_978 * MS, 0,
    "claimed ± 2.1 ms, was 4 980.3 ± 0.4 ms behind",
)  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (4_310 * MS, 4_590 * MS, "4.3–4.6 s"), (4_300 * MS, 4_300 * MS, "4.3 s"), (0, 90 * MS, "0–90 ms"),
        (0, 1_010 * MS, "0.0–1.1 s"), (999_999, 1_000_001, "0–2 ms"),
    ],
)  # fmt: skip
def test_a_length_between_two_bounds(low: int, high: int, text: str) -> None:
    assert format_between(low, high) == text


def test_a_source_is_told_in_one_line() -> None:
    assert claim_text(WRONG)[0].startswith(
        "claimed ± 2.1 ms, was 4 980.3 ± 0.4 ms behind; wrong for 4.3–4.6 s"
    )
    assert claim_text(HELD)[0] == "never understated its error (41 claims)"
    assert claim_text(replace(HELD, judged=0)) == ("41 claims, none could be judged", "yellow")
    said = "claimed to be unsynchronised for up to 3.00 s (41 claims, none judged)"
    assert claim_text(replace(HELD, judged=0, unsynced_ns=3 * S)) == (said, "")
    assert "claimed to be unsynchronised for up to 3.00 s" in claim_text(replace(HELD, unsynced_ns=3 * S))[0]


def test_a_single_run_tells_every_source() -> None:
    text = shown(run(guest("web-0", cycle(audits=(WRONG, HELD)))), 120)
    assert re.search(r"^claims +chronyc tracking +claimed ± 2.1 ms.*wrong for 4.3–4.6 s", text, re.M)
    assert re.search(r"^ +adjtimex +never understated its error \(41 claims\)", text, re.M)


def test_a_matrix_tells_the_wrong_ones_and_counts_the_others() -> None:
    good, bad = one(True, "as predicted"), one(True, "as predicted")
    made = matrix(
        ("agent", "3s", replace(good, audits=(HELD,))), ("chrony", "3s", replace(bad, audits=(WRONG, HELD)))
    )
    text = plain(made)
    assert "wrong claims  3s-chrony: chronyc tracking claimed ± 2.1 ms" in text
    assert "no other claim understated the error: 82 claims by adjtimex" in text
    right = matrix(
        ("agent", "3s", replace(good, audits=(HELD,))), ("push", "3s", replace(good, audits=(HELD,)))
    )
    assert "wrong claims" not in plain(right)
    assert "claims        no claim understated the error: 82 claims by adjtimex" in plain(right)


# -- effects --------------------------------------------------------------------------------------

FLEET = Timers("timerfd realtime", 64, 1093, ((MS, 1000), (10 * MS, 29), (S, 0), (1 << 62, 64)), 3 * S, 64, 0)
EFFECTS = EffectsRecord(
    (FLEET,), 2000, 0, 0, ms(-2, 1), ms(3, 1), 0,
    (Backward("monotonic", 0, 1, 1000, 0, 0), Backward("realtime", 1, 0, 1000, 0, 0)),
)  # fmt: skip


def with_effects(**changes: object) -> Run:
    seen = replace(EFFECTS, **changes)  # type: ignore[arg-type]
    return run(guest("web-0", cycle(effects=seen)))


def test_timers_have_a_histogram() -> None:
    text = plain(with_effects())
    head, row = (
        next(line for line in text.splitlines() if line.startswith(s)) for s in ("timers,", "timerfd")
    )
    assert re.split(r" {2,}", head) == ["timers, late by", "≤ 1 ms", "≤ 10 ms", "> 1 s", "worst", "at once"]
    assert re.split(r" {2,}", row) == ["timerfd realtime", "1000", "29", "64", "3.0 s", "64 of 64"]
    fine = replace(
        FLEET, buckets=((MS, 7), (2 * MS, 3), (5 * MS, 2), (10 * MS, 1), (20 * MS, 0), (60 * S, 0))
    )
    head, row = (
        next(line for line in plain(with_effects(timers=(fine,))).splitlines() if line.startswith(s))
        for s in ("timers,", "timerfd")
    )
    assert re.split(r" {2,}", head)[1:3] == ["≤ 1 ms", "≤ 10 ms"]
    assert re.split(r" {2,}", row)[1:3] == ["7", "6"]
    early = replace(FLEET, early=3)
    assert re.search(r"at once +early$", plain(with_effects(timers=(early,))), re.M)


def test_clocks_that_went_backward_are_told_with_their_evidence() -> None:
    assert "backward      monotonic: never, in 1000 checks, all from vCPU to vCPU" in plain(with_effects())
    wrong = (Backward("monotonic", 0, 1, 1000, 2, 40_000), Backward("monotonic", 0, 0, 500, 0, 0))
    text = plain(with_effects(clocks=wrong))
    assert "backward      monotonic: 2 of 1500 checks, by at most 0.04 ms (vCPU 0 to 1)" in text


@pytest.mark.parametrize(
    ("gained", "text"),
    [
        (0, "equal to MONOTONIC"),
        (3 * S, "gained 3.0 s compared with MONOTONIC"),
        (-3 * S, "lost 3.0 s compared with MONOTONIC"),
    ],
)
def test_boottime_against_monotonic(gained: int, text: str) -> None:
    assert f"boottime      {text}" in plain(with_effects(boot_minus_mono_ns=gained))
    assert "boottime" not in plain(with_effects(boot_minus_mono_ns=None))


def test_the_rtc_against_realtime() -> None:
    assert "RTC - REALTIME -2.0 ± 1.0 ms before, +3.0 ± 1.0 ms after" in plain(with_effects())
    behind = cycle(effects=replace(EFFECTS, rtc_after=ms(-3000, 1)))
    several = plain(run(guest("web-0", cycle(effects=EFFECTS), replace(behind, index=1))))
    assert several.count("RTC - REALTIME") == 1 + 1  # -2 and +3 are apart by more than their bounds, too
    still = plain(
        run(guest("web-0", *(cycle(i, effects=replace(EFFECTS, rtc_after=ms(-1, 1))) for i in (0, 1))))
    )
    assert "constant distance from REALTIME in all 2 cycles" in still


def test_a_single_step_is_shown_only_where_there_was_one() -> None:
    def report_of(count: int | None) -> str:
        steps = None if count is None else tuple(Moved(i * 10**9, 10**9 * (count - i)) for i in range(count))
        largest = 10**9 * (count or 4)
        return plain(run(guest("web-0", cycle(resync=resync(steps=steps, step_ns=largest)))))

    assert ", one step of +1000.0 ms" in report_of(1)
    assert ", 4 steps, the largest of +4000.0 ms" in report_of(4)
    assert ", a step of +4000.0 ms" in report_of(None)


def test_an_agent_that_ended_with_an_error_and_set_the_clock_is_told_so() -> None:
    """Its hwclock hangs, or is missing: agents 10.0 and 11.1 have set the clock all the same."""
    said = "failed: the agent's guest-set-time ended with an error: Guest agent is not responding"
    for outcome, time_ns, was_set in (
        ("synced", 57 * MS, True),
        ("not synced", None, False),
        ("undecided", None, True),  # late, by a busy host
    ):
        correction = "step" if was_set else "none"
        one = cycle(resync=resync(said=said, outcome=outcome, time_ns=time_ns, correction=correction))
        text = " ".join(plain(run(guest("web-0", one))).split())
        assert ("is not responding; the clock was set nevertheless" in text) is was_set
        assert "is not responding" in text


def test_kernel_lines_are_quoted_as_evidence() -> None:
    line = "watchdog: BUG: soft lockup - CPU#0 stuck for 23s!"
    made = run(guest("web-0", cycle(0, kernel_stalls=(line,)), cycle(1, kernel_stalls=(line,))))
    assert f"kernel log    {line} (cycle 0 and 1 more)" in plain(made)


def test_harmless_kernel_lines_are_told_after_those_that_are_not() -> None:
    bad, note = (
        "watchdog: BUG: soft lockup - CPU#0 stuck for 23s!",
        "clocksource: Switched to clocksource tsc",
    )
    text = plain(run(guest("web-0", cycle(kernel_stalls=(bad,), kernel_notes=(note,)))))
    assert f"kernel log    {bad}\n              {note} (harmless)" in text


def test_hostile_words_of_guests_do_not_reach_the_terminal() -> None:
    bad = "\x1b[2J[red]\u202e"
    seen = cycle(
        kernel_stalls=(bad,), audits=(replace(WRONG, source=bad, example=bad),),
        effects=replace(EFFECTS, timers=(replace(FLEET, kind=bad),)),
        resync=resync(forecast=forecast(False, bad, text=bad), program=bad),
    )  # fmt: skip
    for made in (run(guest("web-0", seen)), matrix(("chrony", "3s", seen))):
        for text in (shown(made), plain(made)):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


# -- accuracy -------------------------------------------------------------------------------------

CALIBRATED = Calibration("2026-11-20T10:00:00+00:00", 40, 100_000, 900_000, 1.0, 7 * MS, 240_000)


def test_the_last_calibration_is_quoted() -> None:
    line = plain(run(calibration=CALIBRATED)).splitlines()[2]
    assert line == (
        "calibrated 2026-11-20: bias +0.1 ms · spread 0.90 ms · 40/40 covered · noise 7.0 ms"
        " · offsets to ± 0.24 ms"
    )


def test_one_that_does_not_hold_or_is_missing_is_a_warning_with_its_remedy() -> None:
    stale = shown(run(calibration=replace(CALIBRATED, stale="of another machine")), colour=True)
    assert "33mthe calibration is out of date: of another machine: run freezelab calibrate" in stale
    assert "33mthis machine has no calibration: run freezelab calibrate" in shown(run(), colour=True)


# -- JUnit ----------------------------------------------------------------------------------------


def test_junit_has_predictions_as_properties_and_no_case_of_them(tmp_path: Path) -> None:
    seen = replace(one(None, "not yet, as predicted"), audits=(WRONG,))
    made = replace(matrix(("timesyncd", "3s", seen)), calibration=CALIBRATED)
    write_junit(made, tmp_path / "j.xml")
    tree = ET.fromstring((tmp_path / "j.xml").read_text(encoding="utf-8"))  # noqa: S314 - ours
    known = {p.get("name"): p.get("value") or "" for p in tree.iter("property")}
    assert known["resync.3s-timesyncd.web-0.0"].endswith("; not yet, as predicted")
    assert known["claim.3s-timesyncd.web-0.0.chronyc tracking"].startswith("claimed ± 2.1 ms")
    assert known["calibration.noise_ns"] == str(7 * MS)
    assert not [case for case in tree.iter("testcase") if "predicted" in (case.get("name") or "")]


def test_a_cycle_without_an_offset_has_no_resync() -> None:
    """One that ended in its freeze: nothing came from nothing to nothing."""
    nothing = cycle(
        offset=Offsets(None, None, None),
        resync=resync(outcome="undecided", said="", time_ns=None, curve=(), reached=()),
    )
    text = shown(run(guest("web-0", nothing)))
    assert "resync        not measured\n" in text
    assert "not measured to not measured" not in text
