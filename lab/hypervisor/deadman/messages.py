"""Rescues as JSON objects, by which the controller describes them to the dead-man."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lab.hypervisor.deadman.guest_process import MonitorAddress
from lab.hypervisor.deadman.peer import AbortMigration
from lab.hypervisor.deadman.rescue import Continue, HandOver, Migration, Relaunch, Restore, ResumePlan, Wake
from lab.hypervisor.deadman.thaw import ThawFiles

RESCUES: dict[str, type[ResumePlan]] = {
    kind.__name__: kind
    for kind in (Continue, Wake, HandOver, Migration, AbortMigration, Restore, Relaunch, ThawFiles)
}


def to_message(rescue: ResumePlan) -> dict[str, Any]:
    """A rescue as a JSON object."""
    return {"way": type(rescue).__name__, **asdict(rescue)}


def from_message(message: dict[str, Any]) -> ResumePlan:
    """The rescue of a JSON object. KeyError or TypeError when a controller of this version cannot have sent
    it."""
    values = dict(message)
    kind = RESCUES[values.pop("way")]
    for name in ("monitor", "successor"):
        if name in values:
            values[name] = MonitorAddress(**values[name])
    return kind(**values)
