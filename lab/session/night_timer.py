"""A night that is run every night: its units installed, shown and removed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.errors import FreezelabError, UsageError
from lab.host import night_units
from lab.host.night_units import NightJob
from lab.image.store import default_cache
from lab.session.paths import CLONE, home

_PASSED_ON = ("PATH", "FREEZELAB_VENV")
"""Variables that a night has as they are now: a user's systemd has others."""


def night_job(at: str, arguments: Sequence[str]) -> NightJob:
    """The job that runs `freezelab nightly run ARGUMENTS` every night. UsageError for an invalid time, or a
    text that no unit can have."""
    hour, minute = night_units.parse_time(at)
    environment = {
        night_units.HOME: str(home().absolute()),
        "FREEZELAB_CACHE": str(default_cache().absolute()),
        **{name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)},
    }
    job = NightJob(hour, minute, (*_program(), "nightly", "run", *arguments), environment)
    night_units.service_text(job)  # a name that no unit can have is told of on every machine
    return job


def install(job: NightJob) -> list[str]:
    """Write the units and start the timer. Returns the files. An error leaves no unit."""
    folder = night_units.unit_folder()
    night_units.write_units(job, folder)
    try:
        night_units.start_timer()
    except FreezelabError:
        night_units.remove_units(folder)
        raise
    return [str(folder / name) for name in (night_units.SERVICE, night_units.TIMER)]


def remove() -> list[str]:
    """Remove the units of this state folder; the files that went. UsageError when they are another's."""
    folder = night_units.unit_folder()
    there = night_units.installed_home(folder)
    if there and not night_units.is_home(there, str(home().absolute())):
        raise UsageError(
            f"the night that is installed is of another state folder: {there}", where=str(folder)
        )
    return night_units.remove_units(folder)


def _program() -> tuple[str, ...]:
    """The command in this clone, which sets itself up again when its files change, or that of a wheel."""
    if CLONE is not None and (launcher := CLONE / "freezelab").is_file():
        return (str(launcher),)
    return (str(Path(sys.executable).with_name("freezelab")),)
