"""`freezelab merge`: one record of runs that had parts of a playbook's cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.core.plan import Plan
from lab.errors import UsageError
from lab.record.index import index_of, judged
from lab.record.journal import is_written, read_history
from lab.record.parts import whole_plan, write_merged
from lab.record.run import Run
from lab.session.paths import home
from lab.session.run_folders import find_run, name_of, new_run_folder


def merged(which: Sequence[str]) -> tuple[Run, Path, Plan]:
    """Merge runs, named as find_run() takes them, into a new one. Returns it as it is judged, its folder and
    its plan. RecordError for a run that cannot be read, UsageError for runs that do not belong together."""
    folders = [find_run(one) for one in which]
    for folder in folders:
        if is_written(folder):
            hint = f"freezelab report {name_of(folder)} --watch waits for it"
            raise UsageError("it is in progress", where=folder.name, hint=hint)
    histories = [read_history(folder) for folder in folders]
    plan = whole_plan(histories)
    run_id, folder = new_run_folder(home(), plan.name)
    write_merged(histories, plan, run_id, folder)
    return judged(folder, index_of(home())), folder, plan
