"""Folders: the project's recipes and playbooks, the lab's state, the image cache."""

from __future__ import annotations

import os
from pathlib import Path

from lab.errors import MachineError

_DATA = Path(__file__).resolve().parents[1] / "data"
"""In an installed wheel; pyproject.toml puts the folders there."""

CLONE = None if _DATA.is_dir() else _DATA.parents[1]
"""The clone that this is run from; None for an installed wheel."""

RECIPES = (CLONE or _DATA) / "images"
PLAYBOOKS = (CLONE or _DATA) / "playbooks"


def playbook_folders() -> tuple[Path, Path]:
    """Where a playbook's name is looked up: the current folder, then the shipped playbooks. MachineError when
    the current folder has been removed."""
    try:
        return Path.cwd(), PLAYBOOKS
    except FileNotFoundError as error:
        hint = "change to another folder"
        raise MachineError("the current folder does not exist any more", hint=hint) from error


def default_home() -> Path:
    """The XDG state folder. The launcher installs its private chronyd there by default."""
    import platformdirs

    return platformdirs.user_state_path("freezelab")


def home_path() -> Path:
    """The state folder, whether it exists or not: $FREEZELAB_HOME, else the XDG state folder."""
    named = os.environ.get("FREEZELAB_HOME")
    return Path(named).absolute() if named else default_home()


def home() -> Path:
    """The state folder, created if needed. MachineError when that fails."""
    return made(home_path())


def made(path: Path, *, private: bool = False) -> Path:
    """The folder `path`, created if needed. private: only this user enters a new one. MachineError when that
    fails."""
    try:
        path.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"the folder cannot be created: {error.strerror}",
            where=str(path),
            hint="set FREEZELAB_HOME to a writable folder",
        ) from error
    return path
