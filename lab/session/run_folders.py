"""Folders of runs: a new one, and those of old runs."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import MachineError, RecordError
from lab.record import EVENTS
from lab.record.index import EVERY_RUN, RunFilter, RunSummary, figures_of_runs, index_of, summaries
from lab.session.paths import home, home_path, made

if TYPE_CHECKING:
    from lab.core.comparison import RunFigures


def new_run_id(name: str) -> str:
    """A run's id. It sorts by time and contains the playbook's name."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{moment}-{name[:40]}-{secrets.token_hex(2)}"


def new_run_folder(home: Path, name: str, run_id: str = "", *, private: bool = True) -> tuple[str, Path]:
    """A new run's id and folder. run_id: a new_run_id() that was made before. private: False lets other users
    enter it: QEMU of a libvirt of the system may run as one."""
    run_id = run_id or new_run_id(name)
    folder = made(home / "runs") / run_id
    try:
        folder.mkdir(mode=0o700 if private else 0o777)
    except OSError as error:
        raise MachineError(
            f"the run's folder cannot be created: {error.strerror}", where=str(folder)
        ) from error
    return run_id, folder


def run_folders() -> list[Path]:
    """Run folders, the latest first: ids begin with the time."""
    runs = home() / "runs"
    found = (p for p in runs.glob("*") if not p.name.startswith(".") and p.is_dir())
    return sorted(found, key=lambda p: p.name, reverse=True)


def find_run(which: str | None) -> Path:
    """The folder of the run named by its folder's name, by the unambiguous beginning or end of one, by the id
    in its record when its folder has another name, or by path; the last run for None. RecordError when there
    is none."""
    if which is not None and (Path(which) / EVENTS).exists():
        return _by_path(which)
    if which is not None and ("/" in which or which in (".", "..")):
        if not Path(which).is_dir():
            raise RecordError("no such folder", where=which)
        return _by_path(which)
    # Listings do without what reads histories.
    from lab.record.journal import has_id

    folders = run_folders()
    if which is None:
        if not folders:
            raise RecordError("no runs yet", where=str(home() / "runs"), hint="freezelab run")
        return folders[0]
    exact = [f for f in folders if f.name == which]
    near = exact or [f for f in folders if f.name.startswith(which) or f.name.endswith(which)]
    near = near or [f for f in folders if has_id(f, which)]
    if len(near) == 1:
        return near[0]
    if near:
        raise RecordError(f"{len(near)} runs match {which!r}", hint=f"the latest is {near[0].name}")
    raise RecordError(
        f"there is no run {which!r}", where=str(home() / "runs"), hint="freezelab history lists them"
    )


def _by_path(which: str) -> Path:
    """The path; of a run of the state folder the one that run_folders() has."""
    path = Path(which)
    here = home_path() / "runs" / os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - of a link its own name
    return here if here.exists() and here.samefile(path) else path


def name_of(folder: Path) -> str:
    """How a run's folder is named in a command, so that find_run() finds it: a run of the state folder by its
    name, any other by its path; as a word for a shell."""
    here = folder.parent == home_path() / "runs" and not folder.name.startswith("-")
    return shlex.quote(folder.name if here else str(folder))


def latest(
    most: int, wanted: RunFilter = EVERY_RUN, unread: Callable[[Path], object] = lambda _: None
) -> list[tuple[Path, RunSummary]]:
    """The latest runs that are wanted, as this build judges them, and their folders; those that cannot be
    read are left out, and `unread` is called with each."""
    return summaries(run_folders(), most, index_of(home()), wanted, unread)


def figures(folders: Sequence[Path]) -> list[RunFigures]:
    """What is compared of runs. RecordError when one cannot be read."""
    return figures_of_runs(folders, index_of(home()))
