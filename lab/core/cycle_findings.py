"""The common base of the checks of one guest's cycle."""

from __future__ import annotations

from lab.core.plan import Expectations
from lab.core.result import CycleResult
from lab.core.verdict import Finding, Outcome


class CycleFindings:
    """Compares one guest's cycle with its expectations. Each expectation has a method, which yields nothing
    where there is nothing to report."""

    def __init__(self, result: CycleResult, expect: Expectations) -> None:
        self.result, self.expect, self.obs = result, expect, result.observation

    def _finding(
        self, metric: str, expectation: str, measured: str, outcome: Outcome, why: str = ""
    ) -> Finding:
        return Finding(
            self.obs.guest, self.obs.cycle, metric, expectation, measured, outcome, why, self.obs.cell
        )
