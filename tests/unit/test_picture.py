"""The README's picture is made from a real run, and needs nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.picture import picture
from tests.unit.real_histories import unpacked


def test_a_picture_holds_the_report_and_loads_nothing(tmp_path: Path) -> None:
    svg = picture(unpacked("suspend", tmp_path))
    shown = " ".join(ET.fromstring(svg).itertext())  # noqa: S314 - our own
    assert "verdict" in shown
    assert "passed" in shown
    assert not re.search(r"url\(\"|href=|@import", svg)
