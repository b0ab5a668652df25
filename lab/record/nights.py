"""The record of nights: NIGHTS/ID/night.json in the state folder, and beside it what each run printed.

A night's record is written when it begins and after each playbook, so a night that was killed has one, too.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from lab.core.night import NightVerdict, PlaybookNight
from lab.errors import MachineError, RecordError
from lab.record.state_files import read_json, write_json

SCHEMA = "freezelab.night/1"
NIGHT, JUNIT, PAGE = "night.json", "junit.xml", "nights.html"

MOST = 366
"""Older nights are removed; `history prune` removes runs."""


@dataclass(frozen=True)
class Night:
    """A night. started, ended: ISO 8601, UTC; ended and verdict are None while it is under way.
    playbooks: in the order in which they were run."""

    schema: str
    id: str
    started: str
    ended: str | None
    verdict: NightVerdict | None
    playbooks: tuple[PlaybookNight, ...] = ()

    @property
    def exit_code(self) -> int:
        """Of the command. One that was cut off has the code of an error."""
        return (self.verdict or NightVerdict.ERROR).exit_code


def nights_folder(home: Path) -> Path:
    """The folder of all nights. home: the state folder."""
    return home / "nights"


def night_folder(home: Path, night: str) -> Path:
    """A night's own folder. night: its id."""
    return nights_folder(home) / night


def now_text() -> str:
    """The time as it is recorded."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def begin_night(home: Path) -> Night:
    """A new night with its folder. MachineError when it cannot be made."""
    name = f"{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    night = Night(SCHEMA, name, now_text(), None, None)
    try:
        write_night(home, night)
    except MachineError:
        with contextlib.suppress(OSError):
            night_folder(home, name).rmdir()
        raise
    return night


def write_night(home: Path, night: Night) -> None:
    """Replace the night's record. MachineError when it cannot be written: the old one stays."""
    write_json(night_folder(home, night.id) / NIGHT, asdict(night))


def read_night(folder: Path) -> Night:
    """The night in this folder. RecordError when there is none, or it is damaged."""
    from pydantic import TypeAdapter, ValidationError

    path = folder / NIGHT
    found = read_json(path)
    if found is None:
        raise RecordError("there is no night here", where=str(path))
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise RecordError(f"not a night of this freezelab ({SCHEMA})", where=str(path))
    try:
        return TypeAdapter(Night).validate_python(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RecordError(f"damaged: {place}: {first['msg']}", where=str(path)) from None


def read_nights(home: Path, most: int) -> tuple[list[Night], list[RecordError]]:
    """The last nights, the latest first, and why others of them cannot be read."""
    found: list[Night] = []
    damaged: list[RecordError] = []
    for folder in _folders(home):
        if len(found) + len(damaged) == most:
            break
        try:
            found.append(read_night(folder))
        except RecordError as error:
            damaged.append(error)
    return found, damaged


def last_took_ns(home: Path, playbook: str, most: int) -> list[int]:
    """How long the playbook took in the last nights in which it ended by itself."""
    ended = (part.took_ns for part in _parts(home, playbook) if part.outcome is not None)
    return list(islice(ended, most))


def prune_nights(home: Path) -> None:
    """Remove all but the last MOST nights. MachineError when one cannot be removed."""
    for folder in _folders(home)[MOST:]:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise MachineError(f"cannot be removed: {error.strerror}", where=str(folder)) from error


def _parts(home: Path, playbook: str) -> Iterator[PlaybookNight]:
    """The playbook's part of each night, the latest first."""
    for folder in _folders(home):
        with contextlib.suppress(RecordError):
            yield from (part for part in read_night(folder).playbooks if part.playbook == playbook)


def _folders(home: Path) -> list[Path]:
    """The nights' folders, the latest first: ids begin with the time."""
    with contextlib.suppress(OSError):
        folders = [path for path in nights_folder(home).iterdir() if path.is_dir()]
        return sorted(folders, key=lambda path: path.name, reverse=True)
    return []
