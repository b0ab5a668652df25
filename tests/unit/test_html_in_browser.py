"""A run's page in a real browser: at three widths, light, dark and printed, with scripts and without."""

from __future__ import annotations

import base64
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from lab.core.verdict import Outcome
from lab.record.journal import read_history
from lab.record.run import judge
from lab.report.html.run_page import write_html
from tests.unit.browsers import PageView, chromium
from tests.unit.builders import cycle, finding, guest, run
from tests.unit.real_histories import unpacked

SEEN = ("rollout", "tolerance", "resync-cells", "interrupted")
"""Announced and in waves, a workload and its search, a matrix, and one that did not end."""


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageView]:
    with chromium(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name in SEEN:
        folder = tmp_path_factory.mktemp(name)
        history = read_history(unpacked(name, folder))
        write_html(judge(history)[0], history.start.plan, folder / "run.html")
        found[name] = folder / "run.html"
    return found


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("width", [375, 768, 900, 1280])
def test_a_page_fits_its_window_and_asks_for_nothing(
    view: PageView, pages: dict[str, Path], name: str, width: int
) -> None:
    view.open(pages[name], width)
    assert view.run("return window.innerWidth") == width
    assert view.overflow() == 0
    view.unfold()
    assert view.overflow() == 0
    assert view.beyond() == []
    assert view.requests() == []
    small = view.run(
        "return [...document.querySelectorAll('figure > svg')]"
        ".map(e => e.getBoundingClientRect()).filter(r => r.width < 40 || r.right > innerWidth + 1).length"
    )
    assert small == 0


def test_the_texts_beside_labels_stand_in_one_column(view: PageView, pages: dict[str, Path]) -> None:
    view.open(pages["resync-cells"], 1280)
    view.unfold()
    columns = view.run(
        "return [...document.querySelectorAll('dl.facts')].filter(e => e.checkVisibility())"
        ".map(e => [...e.querySelectorAll('dd')].map(d => Math.round(d.getBoundingClientRect().left)))"
    )
    assert max(len(column) for column in columns) > 1
    assert all(len(set(column)) == 1 for column in columns)


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(view: PageView, pages: dict[str, Path], name: str, dark: bool) -> None:
    view.open(pages[name], dark=dark)
    assert view.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    view.unfold()
    assert view.violations() == []


def test_axe_finds_what_is_wrong(view: PageView, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text('<html lang="en"><title>x</title><main><h1>x</h1><p style="color:#aaa">pale</p></main>')
    view.open(path)
    assert any(one.startswith("color-contrast") for one in view.violations())


def test_every_picture_has_a_name_and_a_text(view: PageView, pages: dict[str, Path]) -> None:
    view.open(pages["rollout"])
    named = view.run(
        "return [...document.querySelectorAll('figure > svg')].map(e => [e.getAttribute('role'),"
        " e.querySelector('title').textContent, e.querySelector('desc').textContent])"
    )
    assert len(named) > 8
    assert all(role == "img" and title and len(text) > 20 for role, title, text in named)
    lanes = next(text for _, title, text in named if title == "Timeline of web-0")
    assert "lag: 504.5 ± 0.4 ms" in lanes and "gap:" in lanes and "silence:" in lanes


def test_a_page_is_whole_without_scripts(tmp_path: Path, pages: dict[str, Path]) -> None:
    """Cards open by key, and a cell of the table opens its card."""
    probe = tmp_path / "probe.html"
    probe.write_text("<title>no</title><script>document.title = 'scripts run'</script>")
    with chromium(tmp_path, scripts=False) as view:
        view.open(probe)
        assert view.driver.title == "no"
        view.open(pages["resync-cells"])
        assert "3 of 19 checks undecided" in view.driver.find_element(By.TAG_NAME, "header").text
        cards = view.driver.find_elements(By.CSS_SELECTOR, "details.card")
        first = cards[0].find_element(By.TAG_NAME, "summary")
        assert cards[0].get_attribute("open") is None
        first.send_keys(Keys.ENTER)
        assert cards[0].get_attribute("open") == "true"
        cell = view.driver.find_element(By.LINK_TEXT, "never")
        target = (cell.get_attribute("href") or "").partition("#")[2]
        cell.click()
        assert view.driver.find_element(By.ID, target).is_displayed()


def test_files_are_taken_from_the_page(tmp_path: Path, pages: dict[str, Path]) -> None:
    (tmp_path / "files").mkdir()
    with chromium(tmp_path, scripts=False) as view:
        view.open(pages["rollout"])
        for link in view.driver.find_elements(By.CSS_SELECTOR, ".files a"):
            link.click()
        deadline = time.monotonic() + 30
        wanted = {"run.json", "findings.csv", "cycles.csv", "parts.csv"}
        while {one.name for one in (tmp_path / "files").iterdir()} != wanted:
            assert time.monotonic() < deadline, sorted((tmp_path / "files").iterdir())
            time.sleep(0.1)
    record = json.loads((tmp_path / "files/run.json").read_text())
    rows = list(csv.DictReader((tmp_path / "files/cycles.csv").open()))
    of_record = [one["pause"]["value_ns"] for each in record["guests"] for one in each["cycles"]]
    assert [int(row["pause_ns"]) for row in rows] == of_record
    assert len(list(csv.DictReader((tmp_path / "files/findings.csv").open()))) == len(record["findings"])


HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script></title></svg>"


def test_markup_of_guests_is_shown_and_not_run(view: PageView, tmp_path: Path) -> None:
    given = cycle(patch=HOSTILE, kernel_stalls=(HOSTILE,), problems=(HOSTILE,), called_off=HOSTILE)
    made = run(guest(HOSTILE, given))
    found = replace(finding(Outcome.FAILED, "pause"), guest=HOSTILE, why=HOSTILE, measured=HOSTILE)
    write_html(replace(made, findings=(found,), id=HOSTILE), None, tmp_path / "run.html")
    view.open(tmp_path / "run.html")
    view.unfold()
    assert view.run("return document.title") == "first-freeze: passed"
    assert view.run("return document.querySelectorAll('img, script').length") == 0
    assert HOSTILE in view.driver.find_element(By.TAG_NAME, "main").text
    assert view.requests() == [] and view.overflow() == 0


@pytest.mark.parametrize("name", SEEN)
def test_a_page_prints(view: PageView, pages: dict[str, Path], name: str) -> None:
    view.open(pages[name], dark=True)
    view.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert view.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    view.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    made = view.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(made["data"]).startswith(b"%PDF")
