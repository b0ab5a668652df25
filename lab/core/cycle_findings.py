"""What all findings of one guest's cycle have in common: whose they are, and how an interval is shown."""

from __future__ import annotations

from lab.core.clock import Interval
from lab.core.plan import Expectations
from lab.core.result import CycleResult
from lab.core.units import format_bounded
from lab.core.verdict import Finding, Outcome


def shown(interval: Interval | None, *, signed: bool = False) -> str:
    """An interval for people: "5 006.4 ± 0.6 ms"."""
    if interval is None:
        return "not measured"
    return format_bounded(interval.mid_ns, interval.low_ns, interval.high_ns, signed=signed)


class CycleFindings:
    """Holds one guest's cycle against what was expected of it. A method for each expectation; it yields
    nothing where there is nothing to say."""

    def __init__(self, result: CycleResult, expect: Expectations) -> None:
        self.result, self.expect, self.obs = result, expect, result.observation

    def _finding(
        self, metric: str, expectation: str, measured: str, outcome: Outcome, why: str = ""
    ) -> Finding:
        return Finding(
            self.obs.guest, self.obs.cycle, metric, expectation, measured, outcome, why, self.obs.cell
        )
