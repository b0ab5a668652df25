"""The page of the last nights, and its JUnit file: every verdict, hostile names, nothing but text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from junitparser import JUnitXml

from lab.core.night import NightCheck, NightVerdict, PlaybookNight, worst_verdict
from lab.core.verdict import Outcome
from lab.errors import MachineError, RecordError
from lab.record.nights import SCHEMA, Night
from lab.report.html.nights import nights_page, write_nights_page
from lab.report.night_junit import write_night_junit
from tests.unit.browsers import chromium
from tests.unit.html_pages import ReadPage

MARKUP = '<b id="x" onclick="stop()">bold</b><script>document.title = "changed"</script>'


def part(verdict: NightVerdict, name: str = "first-freeze", why: str = "") -> PlaybookNight:
    check = NightCheck("pause", verdict, "306 ms", "604 ms", why)
    outcome = Outcome.PASSED if verdict in (NightVerdict.PASSED, NightVerdict.FAILED) else None
    return PlaybookNight(name, verdict, "r-1", outcome, 62 * 10**9, 900 * 10**9, ("r-0",), (check,))


def night(number: int, *parts: PlaybookNight) -> Night:
    at = f"2026-11-{30 - number}T02:00:00+00:00"
    return Night(SCHEMA, f"n{number}", at, at, worst_verdict(p.verdict for p in parts), parts)


EVERY = [
    night(number, part(verdict, why="" if verdict is NightVerdict.PASSED else f"because {number}"))
    for number, verdict in enumerate(NightVerdict)
]


def test_every_night_is_a_row_and_what_did_not_pass_is_told() -> None:
    page = ReadPage(nights_page(EVERY, [], running=False))
    assert page.mistakes() == []
    assert page.tags["tr"] == 1 + len(EVERY)
    assert "passed 1 of 6 nights" in page.shown
    for number, verdict in enumerate(NightVerdict):
        assert verdict.value in page.shown
        assert (f"because {number}" in page.shown) is (verdict is not NightVerdict.PASSED)
        assert (f"#night-n{number}" in page.references) is (verdict is not NightVerdict.PASSED)


def test_pages_without_nights_and_with_one_under_way() -> None:
    assert "no nights yet" in ReadPage(nights_page([], [], running=False)).shown
    begun = Night(SCHEMA, "n", "2026-11-30T02:00:00+00:00", None, None, (part(NightVerdict.PASSED),))
    assert "under way" in ReadPage(nights_page([begun, *EVERY], [], running=True)).shown
    assert "cut off" in ReadPage(nights_page([begun, *EVERY], [], running=False)).shown
    damaged = [RecordError("damaged: x", where="/n/<i>")]
    assert (
        "1 night cannot be read: /n/<i>: damaged: x"
        in ReadPage(nights_page([], damaged, running=False)).shown
    )


def test_markup_is_text_and_what_reorders_a_line_is_left_out() -> None:
    given = [
        night(1, replace(part(NightVerdict.FAILED, MARKUP, MARKUP), notes=(MARKUP, "a\u202eb\x1b[1mc\x00")))
    ]
    text = nights_page(given, [], running=False)
    page = ReadPage(text)
    assert page.mistakes() == []
    assert page.shown.count('document.title = "changed"') >= 4
    assert not set(text) & set("\u202e\x1b\x00")


def test_junit_has_a_case_for_each_check(tmp_path: Path) -> None:
    for one in EVERY:
        write_night_junit(one, tmp_path / "junit.xml")
        (suite,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
        kinds = {case.name: [type(each).__name__ for each in case.result] for case in suite}
        (checked,) = one.playbooks
        expected = {NightVerdict.PASSED: [], NightVerdict.FAILED: ["Failure"]}.get(checked.verdict, ["Error"])
        assert kinds == {"run": [], "pause": expected}
        assert (suite.time, suite.tests) == (62.0, 2)


def test_junit_of_what_was_ended_is_an_error_that_says_why(tmp_path: Path) -> None:
    ended = PlaybookNight("first-freeze", NightVerdict.ERROR, why=f"ended at its limit {MARKUP}\x00")
    write_night_junit(night(1, ended), tmp_path / "junit.xml")
    (suite,) = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    (case,) = suite
    assert (suite.errors, suite.failures) == (1, 0)
    assert case.result[0].message == f"ended at its limit {MARKUP}"


def test_a_folder_that_cannot_be_written_is_named() -> None:
    path = Path("/proc/nowhere/file")
    with pytest.raises(MachineError, match="cannot be written") as caught:
        write_nights_page(EVERY, [], path, running=False)
    assert caught.value.where == str(path)
    with pytest.raises(MachineError, match="cannot be written"):
        write_night_junit(EVERY[0], path)


def test_nights_of_several_playbooks_fit_a_window(tmp_path: Path) -> None:
    names = ("first-freeze", "in-place-vs-save", "update-domains-with-etcd", "my-app")
    nights = [night(at, *(part(verdict, name) for name in names)) for at, verdict in enumerate(NightVerdict)]
    path = tmp_path / "nights.html"
    write_nights_page(nights, [], path, running=False)
    with chromium(tmp_path) as view:
        for width in (375, 900, 1280):
            view.open(path, width, dark=width == 900)
            assert view.overflow() == 0
            assert view.beyond() == []
            assert view.violations() == []
