"""The report of a run as an SVG picture, for the README.

    python -m tests.picture RUN docs/report.svg

RUN is a run's folder, as `freezelab run` leaves it. The picture holds the terminal's text and nothing from
elsewhere: no font is loaded, and a viewer's own monospace font is set to the same width.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from lab.record.journal import read_history
from lab.record.run import judge
from lab.report.terminal import render

WIDTH = 112
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


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(picture(Path(sys.argv[1])), encoding="utf-8")
