"""Folders on a host in which a run over hosts has its playbook: `.of-RUN` beside the records, for one user,
with the id of the process that removes it. `recover` does so when that has been killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lab.session.paths import home, made

PID = ".pid"
_MAKING_S = 60.0


def work_folder(run: str) -> Path:
    """The path. Such names are left out where runs are listed."""
    return home() / "runs" / f".of-{run}"


def made_work_folder(run: str) -> Path:
    """The folder, new and of this process."""
    folder = work_folder(run)
    made(folder.parent)
    folder.mkdir(mode=0o700)
    (folder / PID).write_text(f"{os.getpid()}\n")
    return folder


def left(state: Path) -> list[Path]:
    """Those whose processes have ended. state: the state folder."""
    return [folder for folder in (state / "runs").glob(".of-*") if _is_left(folder)]


def _is_left(folder: Path) -> bool:
    try:
        os.kill(int((folder / PID).read_text()), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    except (OSError, ValueError, OverflowError):  # it is being made, or was not to its end
        return folder.is_dir() and time.time() - folder.stat().st_mtime > _MAKING_S
    return False
