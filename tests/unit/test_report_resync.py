"""Forecasts, measurements and the table of resync mechanisms, as people see them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab.core.clock import Interval
from lab.core.quantities import format_at_latest, format_at_least
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.record.run import (
    CycleRecord,
    LeftOutRecord,
    Offsets,
)
from lab.report.junit import write_junit
from lab.report.resyncs import measured, place, predicted, rank, verdict
from tests.unit.builders import (
    CALIBRATED,
    WRONG_AUDIT,
    compared,
    cycle,
    forecast,
    guest,
    ms,
    resync,
    resync_matrix,
    run,
    stays_behind,
)
from tests.unit.consoles import plain, shown, widest

MS, S = NS_PER_MS, NS_PER_S


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


RIGHT = cycle(
    resync=resync(
        forecast=forecast(True, "as predicted", correction="none", within=None),
        correction="none",
        time_ns=5 * MS,
    )
)


def test_rows_are_grouped_by_mechanism_in_the_order_of_the_playbook() -> None:
    made = resync_matrix(
        ("push", "500ms", compared(True, "as predicted")), ("agent", "500ms", compared(True, "as predicted")),
        ("push", "3s", compared(True, "as predicted")), ("agent", "3s", None),
    )  # fmt: skip
    lines = shown(made, 80).splitlines()
    begin = next(i for i, line in enumerate(lines) if line.lstrip().startswith("pause"))
    heads = [line.split("  ")[0] for line in lines[begin + 1 : begin + 7]]
    assert heads == ["push", "", "", "agent", "", ""]
    assert [line.split()[0] for line in lines[begin + 2 : begin + 4]] == ["0.5", "3"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_not_yet_is_never_shown_as_passed(width: int) -> None:
    made = resync_matrix(
        ("timesyncd", "3s", compared(None, "not yet, as predicted")),
        ("agent", "3s", compared(True, "as predicted")),
    )
    text = shown(made, width, colour=True)
    for line in text.splitlines():
        if "not yet" in line and "cell" not in line:
            assert "\x1b[32m" not in line  # green
    assert re.search("36m(1 )?not yet", text)
    assert widest(shown(made, width)) <= width


def test_every_row_says_it_all_where_there_is_no_terminal() -> None:
    made = resync_matrix(
        ("timesyncd", "3s", compared(None, "not yet, as predicted")), ("none", "3s", stays_behind()),
        ("chrony", "3s", compared(False, "surprise: slewed, step predicted", correction="slew")),
    )  # fmt: skip
    rows = [line for line in plain(made).splitlines() if re.match("timesyncd|none|chrony ", line)]
    assert len(rows) == 3
    assert "not yet, as predicted" in rows[0]
    assert "surprise: slewed, step predicted" in rows[2]


def test_pauses_that_needed_no_repair_share_a_row() -> None:
    made = resync_matrix(*(("chrony", hold, RIGHT) for hold in ("500ms", "3s", "20s")))
    text = shown(made, 80)
    assert re.search(r"^ +all +nothing to repair +right, within 0.70 ms +as predicted$", text, re.M)
    failed = resync_matrix(
        ("chrony", "500ms", RIGHT), ("chrony", "3s", replace(RIGHT, outcome=Outcome.FAILED)),
        ("chrony", "20s", compared(False, "surprise: stepped")),
    )  # fmt: skip
    assert len(re.findall(r"nothing to repair", shown(failed, 80))) == 2


def test_cells_are_counted_by_their_verdicts() -> None:
    made = resync_matrix(
        ("agent", "3s", compared(True, "as predicted")), ("push", "3s", compared(True, "as predicted")),
        ("ntpd", "3s", compared(None, "not yet, as predicted")),
        ("chrony", "3s", compared(False, "surprise: slewed")),
        ("chrony-phc", "3s", None),
    )  # fmt: skip
    assert "5 cells: 1 surprise, 1 refused, 1 not yet, 2 as predicted" in plain(made)


def test_of_hundreds_of_cells_those_are_shown_that_tell_most() -> None:
    cells = [("agent", f"{i}ms", compared(True, "as predicted")) for i in range(300)]
    cells[250] = ("push", "250ms", compared(False, "surprise: slewed"))
    text = shown(resync_matrix(*cells), 80)
    assert len(text.splitlines()) < 170
    assert "push" in text
    assert "300 cells: 1 surprise, 299 as predicted" in text


def test_what_the_plan_left_out_is_told_with_its_reason() -> None:
    left = LeftOutRecord({"hold": "3s", "resync": "push"}, "excluded by the playbook")
    made = resync_matrix(("agent", "3s", compared(True, "as predicted")), left_out=(left,))
    assert "1 combination left out  excluded by the playbook: 3s · push" in shown(made)


def test_a_matrix_without_mechanisms_has_its_own_table() -> None:
    made = resync_matrix(("agent", "3s", compared(True, "as predicted")))
    other = replace(made, cells=(replace(made.cells[0], values={"hold": "3s"}),))
    assert "in time by" in plain(other)
    assert "in time by" not in plain(made)


# -- JUnit ----------------------------------------------------------------------------------------


def test_junit_has_predictions_as_properties_and_no_case_of_them(tmp_path: Path) -> None:
    seen = replace(compared(None, "not yet, as predicted"), audits=(WRONG_AUDIT,))
    made = replace(resync_matrix(("timesyncd", "3s", seen)), calibration=CALIBRATED)
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
