"""How much faster a matrix is on several hosts, from what its cells took in an earlier run."""

from __future__ import annotations

from lab.core.placement import HostsForecast, forecasts
from lab.core.plan import Plan
from lab.record.cell_times import CellTimes, cell_times
from lab.session.run_folders import name_of, run_folders


def known_times(plan: Plan) -> CellTimes | None:
    """What the plan's cells took in the latest run that reached them all; None when there is none."""
    return cell_times(run_folders(), plan) if plan.cells else None


def over_hosts(plan: Plan) -> tuple[list[HostsForecast], str]:
    """A forecast for some numbers of hosts, and the run that it is from; [] without one."""
    known = known_times(plan)
    return (forecasts(known.batches), name_of(known.run)) if known is not None else ([], "")
