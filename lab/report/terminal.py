"""The report of a run, for a terminal or as plain lines: one screen (`summary`), or all sections.

All sections, from top to bottom: the run and its host, the table, details of its numbers, why something has
not passed, and the verdict as the last line.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console

from lab.record.model import Run
from lab.report.accuracy import show_accuracy
from lab.report.cells import show_cells, show_comparisons, show_left_out
from lab.report.cycles import show_cycles
from lab.report.header import show_header, show_interruption, show_verdict
from lab.report.network import show_network
from lab.report.notices import show_events
from lab.report.page import Page
from lab.report.predictions import show_predictions
from lab.report.reasons import show_reasons
from lab.report.resync_table import is_resync_matrix, show_resync_table
from lab.report.rollout import show_rollouts
from lab.report.sections import show_details
from lab.report.steps import show_steps
from lab.report.summary import show_summary
from lab.report.text import clean, cleaned
from lab.report.workloads import show_workloads


def render(
    run: Run, console: Console, folder: Path | None = None, *, verbose: bool = False, name: str = ""
) -> None:
    """Print the report of `run`: on one screen, or verbose with all sections. folder: the place of its
    history, printed below it. name: how commands find it; "": its id."""
    run = cleaned(run)
    name = clean(name) or shlex.quote(run.id)
    page = Page(console)
    if verbose:
        _all_sections(page, run, folder, name)
    else:
        show_summary(page, run, folder, name)


def _all_sections(page: Page, run: Run, folder: Path | None, name: str) -> None:
    show_interruption(page, run)
    show_header(page, run)
    show_accuracy(page, run)
    page.blank()
    if is_resync_matrix(run):
        show_resync_table(page, run)
    elif run.cells:
        show_cells(page, run)
    if run.cells:
        show_comparisons(page, run)
        show_left_out(page, [(tuple(one.values.values()), one.why) for one in run.left_out])
    else:
        show_cycles(page, run)
    show_rollouts(page, run)
    show_events(page, run)
    show_workloads(page, run)
    page.blank()
    show_network(page, run)
    show_details(page, run)
    if not is_resync_matrix(run):
        show_steps(page, run)
        show_predictions(page, run)
    show_reasons(page, run)
    page.blank()
    if folder is not None:
        command, path = f"freezelab report {name}", clean(str(folder))
        page.parts([command, path if len(path) <= page.width else ""], "dim")
    show_verdict(page, run)
