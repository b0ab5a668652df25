"""The report of a run as a picture, for the README.

    python -m tests.picture RUN docs/report.svg
    python -m tests.picture RUN docs/report-page.webp

RUN is a run's folder, as `freezelab run` leaves it. The SVG holds the terminal's text and nothing from
elsewhere: no font is loaded, and a viewer's own monospace font is set to the same width. The other one is the
beginning of the page of `report --html` in chromium.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from lab.record.journal import read_history
from lab.record.run import judge
from lab.report.html.run_page import write_html
from lab.report.terminal import render
from tests.unit.browsers import chromium

WIDTH = 112
PAGE_WIDTH, PAGE_HEIGHT = 1100, 1150
_FONTS = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)


def picture(run: Path) -> str:
    console = Console(
        file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, color_system="truecolor",
        highlight=False, markup=False, emoji=False,
    )  # fmt: skip
    judged, _ = judge(read_history(run))
    render(judged, console, Path("~/.local/state/freezelab/runs") / judged.id)
    return console.export_svg(
        title="./freezelab run", code_format=_FONTS.sub("", CONSOLE_SVG_FORMAT), unique_id="freezelab"
    )


def page_picture(run: Path) -> bytes:
    history = read_history(run)
    judged, _ = judge(history)
    with tempfile.TemporaryDirectory(prefix="fl-") as folder, chromium(Path(folder)) as view:
        page = Path(folder) / "run.html"
        write_html(judged, history.start.plan, page)
        view.open(page, PAGE_WIDTH)
        shown = {"x": 0, "y": 0, "width": PAGE_WIDTH, "height": PAGE_HEIGHT, "scale": 1}
        asked = {"format": "webp", "quality": 80, "captureBeyondViewport": True, "clip": shown}
        return base64.b64decode(view.driver.execute_cdp_cmd("Page.captureScreenshot", asked)["data"])


if __name__ == "__main__":
    if sys.argv[2].endswith(".webp"):
        Path(sys.argv[2]).write_bytes(page_picture(Path(sys.argv[1])))
    else:
        Path(sys.argv[2]).write_text(picture(Path(sys.argv[1])), encoding="utf-8")
