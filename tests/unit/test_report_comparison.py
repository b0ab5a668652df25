"""Comparisons as they are shown: on terminals of three widths, in a pipe, as JSON and as a page."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from lab.record.comparison import comparison_of, comparison_schema, comparison_text
from lab.report.comparison import render_comparison
from lab.report.html.comparison_page import comparison_page, write_comparison
from tests.unit.compared_runs import PAIRS, beside
from tests.unit.consoles import output, pipe, terminal, widest
from tests.unit.html_pages import ReadPage


def shown(name: str, width: int = 100, *, every: bool = False) -> str:
    console = terminal(width)
    render_comparison(PAIRS[name], beside(PAIRS[name]), console, every=every)
    return output(console).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", PAIRS)
def test_it_fits_the_terminal(name: str, width: int) -> None:
    text = shown(name, width)
    assert widest(text) <= width
    assert "None" not in text
    assert "inf" not in text.replace("interval", "")
    assert "nan" not in text


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_in_a_name_reaches_the_terminal_or_the_page(name: str) -> None:
    text = shown(name)
    assert "\x1b" not in text
    assert "\u202e" not in text
    page = comparison_page(PAIRS[name], beside(PAIRS[name]))
    assert "\u202e" not in page
    read = ReadPage(page)
    assert read.mistakes() == []
    assert not read.unbalanced
    assert not read.handlers


@pytest.mark.parametrize("name", PAIRS)
def test_the_json_follows_its_schema(name: str) -> None:
    text = comparison_text(comparison_of(PAIRS[name], beside(PAIRS[name])))
    made = json.loads(text)
    jsonschema.validate(made, comparison_schema())
    assert [run["id"] for run in made["runs"]] == [run.id for run in PAIRS[name]]


def test_the_published_schema_is_that_of_the_program() -> None:
    path = Path(__file__).parents[2] / "docs" / "comparison.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == comparison_schema()


def test_what_is_worse_comes_first() -> None:
    text = shown("worse")
    assert "2 figures worse · 0 better · 1 verdict changed, 1 for the worse" in text
    row = next(line for line in text.splitlines() if line.startswith("pause"))
    assert row.endswith("WORSE")
    assert "+8.3 [+6.6, +10.1] ms" in row
    assert "failed 1, passed 3" in text


def test_another_machine_is_no_regression() -> None:
    text = shown("another-machine")
    assert "WORSE" not in text
    assert "figures of another machine by more than noise" in text
    assert "another one than the baseline's" in text
    assert "Intel(R) Xeon(R)" in text


def test_a_setting_and_a_playbook_that_differ_are_named() -> None:
    text = shown("another-setting")
    assert "qemu: 7.2.22, then 10.0.2" in text
    assert "its content differs" in text


def test_too_few_cycles_are_said_to_be_too_few() -> None:
    text = shown("few")
    assert "2 and 3 cycles of a figure cannot show any difference; 4 in each run could" in text
    assert "too few" in text
    assert "not complete" in text
    assert "tested" not in text


def test_what_the_bounds_hide() -> None:
    assert "within bounds: the values differ by more than noise, but not once their bounds count" in shown(
        "bounds"
    )


def test_a_clock_that_was_never_in_time() -> None:
    row = next(line for line in shown("never").splitlines() if line.startswith("in time after"))
    assert "over 8.00 s" in row
    assert "over +7 996.0 ms" in row
    assert "∞" not in row
    assert row.endswith("WORSE")


def test_a_difference_has_no_more_digits_than_the_bounds_warrant() -> None:
    row = next(line for line in shown("alike", 120).splitlines() if line.startswith("drift"))
    assert "+0 [-60, +60] ppm" in row


def test_cells_within_noise_are_counted_unless_all_are_asked_for() -> None:
    text = shown("cells")
    assert "all cells" in text
    assert "× 1." in text
    assert "36 with too few cycles · --all lists them" in text
    assert "gone          2 cells" in text
    # No row of all cells together has a level.
    assert "after" not in shown("cells", width=160).partition("all cells")[0]
    listed = shown("cells", every=True)
    assert "--all" not in listed
    assert "after" in shown("cells", every=True, width=160).partition("all cells")[0]
    assert listed.count("too few") == 36 + 6  # nor do six cells together show anything of six figures


def test_three_runs_stand_side_by_side() -> None:
    text = shown("three")
    head = next(line for line in text.splitlines() if line.startswith("median"))
    assert head.split() == ["median", "baseline", "run", "1", "run", "2"]


def test_without_a_terminal_a_row_is_a_line() -> None:
    console = pipe()
    render_comparison(PAIRS["worse"], beside(PAIRS["worse"]), console)
    row = next(line for line in output(console).splitlines() if line.startswith("pause"))
    assert "10, 10" in row
    assert "\N{NO-BREAK SPACE}" not in row


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "c.html"
    write_comparison(PAIRS["worse"], beside(PAIRS["worse"]), path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") or text.lstrip().startswith("<!doctype html>")
    assert "WORSE" in text
    assert text.rstrip().endswith("</html>")
