"""The host's side of a playbook's setup: its files, and the values of its secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lab.core.plan import Plan
from lab.core.setup import Secret, SetupFile, SetupSpec
from lab.errors import UsageError

MOST_SECRET_BYTES = 1 << 20


def setup_obstacles(plan: Plan) -> list[UsageError]:
    """What the guests' setup lacks here: files that are missing, variables that are not set."""
    found: dict[str, UsageError] = {}
    for setup in _setups(plan):
        for error in (*map(_file_obstacle, setup.files), *map(_secret_obstacle, setup.secrets)):
            if error is not None:
                found.setdefault(str(error), error)
    return list(found.values())


def read_secrets(plan: Plan) -> dict[Secret, bytes]:
    """The values of all secrets. UsageError, a line for each obstacle, when the setup lacks anything."""
    if lacking := setup_obstacles(plan):
        lines = [str(error).replace("\n", "; ") for error in lacking]
        raise UsageError(
            "\n".join([lines[0], *(f"setup: {line.removeprefix('setup: ')}" for line in lines[1:])])
        )
    return {secret: _value(secret) for setup in _setups(plan) for secret in setup.secrets}


def _setups(plan: Plan) -> Iterator[SetupSpec]:
    yield from dict.fromkeys(guest.setup for cell in plan.parts for guest in cell.guests)


def _value(secret: Secret) -> bytes:
    if secret.variable:
        return os.environb[os.fsencode(secret.variable)]
    return Path(secret.file).read_bytes()


def _secret_obstacle(secret: Secret) -> UsageError | None:
    what = f"secret {secret.name}: "
    if secret.variable:
        if os.environ.get(secret.variable):
            return None
        return _lacking(f"{what}the variable {secret.variable} is not set", f"export {secret.variable}=…")
    try:
        path = Path(secret.file)
        if not path.is_file():
            return _lacking(f"{what}no file {secret.file}")
        with path.open("rb") as file:
            if len(file.read(MOST_SECRET_BYTES + 1)) > MOST_SECRET_BYTES:
                return _lacking(f"{what}{secret.file} is larger than 1 MiB")
    except (OSError, ValueError) as error:
        return _lacking(f"{what}{secret.file} cannot be read: {getattr(error, 'strerror', '') or error}")
    return None


def _file_obstacle(file: SetupFile) -> UsageError | None:
    if file.secret or not file.source:
        return None
    path = Path(file.source)
    try:
        if path.is_dir():
            return (
                _lacking(f"{path} is a folder, whose files keep their modes", "delete mode")
                if file.mode
                else None
            )
        if path.is_file() and os.access(path, os.R_OK):
            return None
        return _lacking(f"{path} cannot be read" if path.exists() else f"no file {path}")
    except (OSError, ValueError):  # a name too long, a zero byte
        return _lacking(f"no file {path}")


def _lacking(what: str, todo: str = "") -> UsageError:
    return UsageError(what, where="setup", hint=todo)
