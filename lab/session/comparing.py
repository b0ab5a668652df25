"""Runs to compare, by id, folder or file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.core.comparison import RunComparison, RunFigures, compare_runs
from lab.errors import UsageError
from lab.record.figures import figures_of
from lab.record.run import load
from lab.session.run_folders import figures, find_run


def compared(which: Sequence[str]) -> tuple[list[RunFigures], list[RunComparison]]:
    """The runs, and each but the first compared with the first. A run.json that is given as a file counts as
    it is; other runs are judged from their histories.

    UsageError for fewer than two runs, one that is named twice, and runs with nothing in common. RecordError
    when one cannot be read."""
    if len(which) < 2:
        raise UsageError("one run has nothing to be compared with", hint="freezelab compare RUN RUN")
    paths = [Path(name) if Path(name).is_file() else find_run(name) for name in which]
    for at, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:at]]:
            raise UsageError("the same run twice", where=str(path))
    folders = [path for path in paths if not path.is_file()]
    judged = dict(zip(folders, figures(folders), strict=True))
    runs = [judged[path] if path in judged else figures_of(load(path)) for path in paths]
    baseline, *others = runs
    comparisons = []
    for run in others:
        try:
            comparisons.append(compare_runs([baseline], run))
        except ValueError:
            raise UsageError(
                f"{run.id!r} is a run of {run.playbook!r}, and has no cell of the baseline's, "
                f"a run of {baseline.playbook!r}",
                hint="compare runs of one playbook, or matrices that have cells in common",
            ) from None
    return runs, comparisons
