"""What runs over hosts have in common: the playbook that goes out, and the one record that is made of the
parts that come back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab.core.clock import Stamp
from lab.core.history import SCHEMA, CellReached, HistoryEvent, Host, RunEnded, RunStarted
from lab.core.parallel_cells import part_of
from lab.core.plan import Plan
from lab.errors import Interrupted, RecordError, UsageError
from lab.hosts import cell_task
from lab.process.clock import HostClock
from lab.record.index import index_of, judged
from lab.record.journal import FileJournal, History, read_history
from lab.record.parts import parts_of, write_merged
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


def parts_folder(run: str) -> Path:
    """The folder in it for the records of its parts, created if needed."""
    return paths.made(paths.made(folder_of(run), private=True) / "parts")


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


def complete_parts(run: Path, plan: Plan) -> list[tuple[Path, History]]:
    """The parts of an earlier run over hosts in which all cells were run to their end: their folders, and
    their histories with the hosts that the run's record has. run: its folder. UsageError for one of another
    plan, or one that has no parts, or all of them."""
    history = read_history(run)
    start = history.start
    if (start.plan.digest, _counts(start.plan)) != (plan.digest, _counts(plan)):
        raise UsageError("it is of another playbook, or has other counts of cycles", where=start.id)
    parts = parts_of(history)
    if not parts:
        raise UsageError("it is no run over hosts", where=start.id, hint="leave out --resume")
    found = []
    for part, _ in parts:
        folder = run / "parts" / part.run
        try:
            one = read_history(folder)
        except RecordError:
            continue
        if _is_complete(one):
            first, *more = one.entries
            named = replace(one.start, whole=plan, host=part.host)
            found.append((folder, replace(one, entries=(replace(first, event=named), *more))))
    if len(found) == len(parts):
        raise UsageError("it lacks no cell", where=start.id, hint=f"freezelab report {start.id}")
    return found


def _counts(plan: Plan) -> list[tuple[str, int, int]]:
    return [(cell.id, cell.repeat, cell.control) for cell in plan.cells]


def _is_complete(history: History) -> bool:
    """Whether it came to its end, and none of its cells was left out."""
    ends = list(history.of(RunEnded))
    ended = bool(ends) and not ends[-1].interrupted and not ends[-1].failure
    return ended and not history.damage and not any(one.skipped for one in history.of(CellReached))


def finished(
    histories: list[History],
    plan: Plan,
    run_id: str,
    interrupted: Interrupted | None,
    span: tuple[Stamp, Stamp],
    own: Sequence[tuple[HistoryEvent, Stamp]] = (),
) -> tuple[Run, Path]:
    """Merge the parts' histories in folder_of(run_id), give that its name, and judge it. The list is emptied,
    so that they do not take memory beside the merged one. span: when it began and ended here, whose clock is
    no host's. own: events of the controller. RunStopped after an interrupt."""
    folder = folder_of(run_id)
    write_merged(histories, plan, run_id, folder, own, span)
    histories.clear()
    folder = folder.rename(folder.with_name(run_id))
    run = judged(folder, index_of(paths.home()))
    write(run, folder)
    if interrupted is not None:
        raise RunStopped(interrupted, run, folder, interrupted.exit_code)
    return run, folder
