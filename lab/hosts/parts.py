"""What runs over hosts have in common: the playbook that goes out, and the one record that is made of the
parts that come back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.core.history import SCHEMA, CellReached, Host, RunEnded, RunStarted
from lab.core.parallel_cells import part_of
from lab.core.plan import Plan
from lab.errors import Interrupted
from lab.hosts import cell_task
from lab.process.clock import HostClock
from lab.record.index import index_of, judged
from lab.record.journal import FileJournal, History, read_history
from lab.record.parts import write_merged
from lab.record.run import Run, write
from lab.session import paths
from lab.session.run import RunStopped


def packed(folder: Path) -> bytes:
    """A playbook's folder as a tar.gz. MachineError when it cannot be packed."""
    with tempfile.TemporaryDirectory() as work:
        archive = Path(work) / "playbook.tar.gz"
        cell_task.pack(folder, ".", archive)
        return archive.read_bytes()


def folder_of(run: str) -> Path:
    """The folder of a run over hosts until it has its record. Its name is left out where runs are listed."""
    return paths.made(paths.home() / "runs") / f".{run}"


def without_record(
    folder: Path, plan: Plan, cells: Sequence[str], tags: tuple[str, ...], host: Host, why: str, failure: str
) -> History:
    """Write the record of a part of which there is none, in `folder`, which is named like it. plan: the whole
    run's. why: the reason at each cell. failure: the part's own, "" when each cell has it."""
    shutil.rmtree(folder, ignore_errors=True)  # of a record that is of no use
    folder.mkdir()
    with FileJournal(folder, HostClock()) as journal:
        journal.append(RunStarted(SCHEMA, folder.name, part_of(plan, cells), host, None, tags, plan))
        for cell in cells:
            journal.append(CellReached(cell, why))
        journal.append(RunEnded(interrupted=False, failure=failure))
    return read_history(folder)


def finished(
    histories: Sequence[History], plan: Plan, run_id: str, interrupted: Interrupted | None
) -> tuple[Run, Path]:
    """Merge the parts' histories in folder_of(run_id), give that its name, and judge it. RunStopped after an
    interrupt."""
    folder = folder_of(run_id)
    write_merged(histories, plan, run_id, folder)
    folder = folder.rename(folder.with_name(run_id))
    run = judged(folder, index_of(paths.home()))
    write(run, folder)
    if interrupted is not None:
        raise RunStopped(interrupted, run, folder, interrupted.exit_code)
    return run, folder
