"""What a plan's own numbers say of its outcome before anything is done."""

from __future__ import annotations

from lab.core.patch import HoldPatch
from lab.core.plan import Plan
from lab.core.units import format_duration


def overruns(plan: Plan) -> list[str]:
    """Holds that the budget ends: such a patch never succeeds. That may be meant, so it is no mistake."""
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
