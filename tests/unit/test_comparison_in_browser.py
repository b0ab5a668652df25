"""A comparison's page in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.report.html.comparison_page import write_comparison
from tests.unit.browsers import PageView, chromium
from tests.unit.compared_runs import PAIRS, beside

SEEN = ("worse", "three", "cells", "hostile")


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageView]:
    with chromium(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.mark.parametrize("name", SEEN)
def test_a_page_fits_its_window_and_axe_finds_nothing(view: PageView, tmp_path: Path, name: str) -> None:
    path = tmp_path / "page.html"
    write_comparison(PAIRS[name], beside(PAIRS[name]), path)
    for width in (375, 768, 900, 1280):
        view.open(path, width, dark=width == 768)
        assert view.overflow() == 0
        if name != "hostile" or width <= 768:  # there a word is longer than any column
            assert view.beyond() == []
        assert view.requests() == []
        assert view.violations() == []
    assert "beside" in view.run("return document.querySelector('h1').textContent")
