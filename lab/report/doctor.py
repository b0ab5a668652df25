"""What `freezelab doctor` prints: one line a check, and under a failing one how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from lab.core.machine_check import MachineCheck

_MARKS = {True: ("ok", "green"), False: ("BAD", "bold red"), None: ("note", "yellow")}


def render_checks(checks: Sequence[MachineCheck], console: Console) -> None:
    """Print the checks and, last, what they come to."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark, style = _MARKS[check.ok]
        line = Text.assemble((f"{mark:<5}", style), f"{check.name:<{width}}  {check.result}")
        console.print(line)
        if check.fix and check.ok is not True:
            console.print(Text(f"     {'':<{width}}  fix: {check.fix}", style="dim"))
    bad = sum(check.ok is False for check in checks)
    if bad:
        console.print(Text(f"\n{bad} of {len(checks)} checks failed", style="bold red"))
    else:
        console.print(Text("\nthis machine can run freezelab", style="bold green"))
