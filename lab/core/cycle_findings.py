"""What all findings of one guest's cycle have in common: whose they are."""

from __future__ import annotations

from lab.core.plan import Expectations
from lab.core.result import CycleResult
from lab.core.verdict import Finding, Outcome


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
