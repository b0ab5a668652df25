"""One check of `freezelab doctor`: whether this machine has what a run needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MachineCheck:
    """The result of one check. ok: None where a lack is not a failure. fix: how to correct it."""

    name: str
    ok: bool | None
    result: str
    fix: str = ""
