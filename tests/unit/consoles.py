"""Consoles to print to and what was printed on them: a terminal of a given width, and a pipe."""

from __future__ import annotations

import io
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console

from lab.core.units import NBSP
from lab.record.run import Run
from lab.report.terminal import render

FOLDER = Path("/var/lib/freezelab/runs/20261122-224358-first-freeze-c105")


def terminal(width: int, colour: bool = False) -> Console:
    """A console that believes to be a terminal of that width, without colours."""
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        color_system="standard" if colour else None,
        legacy_windows=False,
        _environ={},
    )


def pipe() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, _environ={})


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def widest(text: str) -> int:
    return max(map(cell_len, text.splitlines()))


def page(made: Run, console: Console, *, verbose: bool = True) -> str:
    """The report of a run, as it stands on the console: all sections, or one screen."""
    render(made, console, FOLDER, verbose=verbose)
    return output(console)


def shown(made: Run, width: int = 100, colour: bool = False) -> str:
    """All sections of the report on a terminal, with ordinary spaces."""
    console = terminal(width, colour)
    render(made, console, verbose=True)
    return output(console).replace(NBSP, " ")


def plain(made: Run) -> str:
    """All sections of the report in a pipe."""
    console = pipe()
    render(made, console, verbose=True)
    return output(console)
