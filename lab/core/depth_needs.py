"""What of a cell cannot be done in a guest, because of the depth to which the lab looks into it."""

from __future__ import annotations

from lab.core.depth import Depth
from lab.core.plan import Cell, GuestSpec


def obstacle(depth: Depth, cell: Cell, spec: GuestSpec) -> str:
    """Why this cell's guest cannot be looked into by `depth`: what of it needs more; "" for nothing. AUTO, of
    which nothing is known yet, has no obstacles."""
    if depth is Depth.AGENT:
        what = _needs_ssh(cell, spec)
        return f"is looked into by its agent alone, and {what} needs SSH" if what else ""
    if depth is Depth.SHELL:
        what = _needs_python(cell, spec)
        return f"is looked into by a shell, and {what} needs python3" if what else ""
    return ""


def _needs_python(cell: Cell, spec: GuestSpec) -> str:
    """What of a cell is done in guests by a Python program, beside the probe; "" for nothing."""
    return _first({
        "effects": cell.cycle.effects,
        "load": bool(cell.cycle.load),
        "dirty_rate": cell.cycle.dirty is not None,
        "fill": bool(spec.fill),
        str(cell.resync): cell.resync.means.needs_python,
    })  # fmt: skip


def _needs_ssh(cell: Cell, spec: GuestSpec) -> str:
    """What of a cell is done in guests over SSH; "" for nothing."""
    return _first({
        "announce": cell.cycle.announce is not None,
        "effects": cell.cycle.effects,
        "load": bool(cell.cycle.load),
        "dirty_rate": cell.cycle.dirty is not None,
        "fill": bool(spec.fill),
        "setup": spec.setup.in_guest,
        "network: lab": spec.lab is not None,
        str(cell.resync): cell.resync.reads_rtc
        or (cell.resync.repairs and not cell.resync.uses_agent and not cell.resync.is_of_windows),
    })  # fmt: skip


def _first(asked: dict[str, bool]) -> str:
    return next((what for what, is_asked in asked.items() if is_asked), "")
