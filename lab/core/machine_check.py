"""One check of `freezelab doctor`: whether this machine has what a run needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MachineCheck:
    """One thing that was looked at. ok: None where a lack is no failure. fix: what mends it."""

    name: str
    ok: bool | None
    result: str
    fix: str = ""
