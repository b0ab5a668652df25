"""Warnings that follow from a plan's own numbers, before anything is done."""

from __future__ import annotations

from lab.core.patch import HoldPatch
from lab.core.plan import Plan
from lab.core.units import format_duration


def overruns(plan: Plan) -> list[str]:
    """Holds that are longer than the budget: such a patch never succeeds. That may be intended, so it is not
    an error."""
    found = {
        (cell.cycle.patch.duration_ns, cell.cycle.budget_ns): None
        for cell in plan.parts
        if isinstance(cell.cycle.patch, HoldPatch)
        and cell.cycle.method.freezes
        and cell.cycle.patch.duration_ns >= cell.cycle.budget_ns
    }
    return [
        f"the budget of {format_duration(budget)} ends the hold of {format_duration(length)}, "
        "so its patch fails in every cycle"
        for length, budget in found
    ]
