"""Output of `freezelab doctor`: one line for each check, and under a failing one how to correct it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console

from lab.core.machine_check import MachineCheck
from lab.report.page import Page

_MARKS = {True: ("ok", "green"), False: ("BAD", "bold red"), None: ("note", "yellow")}


def render_checks(checks: Sequence[MachineCheck], console: Console) -> None:
    """Print the checks and their overall result."""
    page = Page(console)
    width = max(cell_len(check.name) for check in checks)
    for check in checks:
        mark, style = _MARKS[check.ok]
        page.labelled(f"{mark:<5}{check.name}", check.result, label_style=style, width=width + 5)
        if check.fix and check.ok is not True:
            page.labelled("", f"fix: {check.fix}", style="dim", width=width + 5)
    page.blank()
    bad = sum(check.ok is False for check in checks)
    if bad:
        page.parts([f"{bad} of {len(checks)} checks failed"], "bold red")
    else:
        page.parts(["this machine can run freezelab"], "bold green")
