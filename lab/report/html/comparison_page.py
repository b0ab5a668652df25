"""The page of a comparison: what the terminal shows, with all figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lab.core.comparison import RunComparison, RunFigures
from lab.report.comparison import headline, show_comparison, show_runs
from lab.report.files import write_whole
from lab.report.html.blocks import printed
from lab.report.html.document import PageSection, page
from lab.report.text import cleaned


def write_comparison(runs: Sequence[RunFigures], comparisons: Sequence[RunComparison], path: Path) -> None:
    """Write the page, whole or not at all. MachineError when it cannot be written."""
    write_whole(path, comparison_page(runs, comparisons).encode())


def comparison_page(runs: Sequence[RunFigures], comparisons: Sequence[RunComparison]) -> str:
    """The page. runs: the baseline first."""
    runs, comparisons = cleaned(list(runs)), cleaned(list(comparisons))
    several = len(comparisons) > 1
    sections = [PageSection("runs", "Runs", printed(partial(show_runs, runs=runs)))]
    for at, comparison in enumerate(comparisons, 1):
        sections.append(
            PageSection(
                f"run-{at}",
                f"Run {at} beside the baseline" if several else "Beside the baseline",
                printed(partial(show_comparison, comparison=comparison, every=True)),
                lead=comparison.run,
            )
        )
    verdict = " · ".join(headline(comparisons[0])) if len(comparisons) == 1 else ""
    title = (
        f"{comparisons[0].run} beside {runs[0].id}" if len(comparisons) == 1 else f"Runs beside {runs[0].id}"
    )
    return page(title, None, verdict, sections, name=title)
