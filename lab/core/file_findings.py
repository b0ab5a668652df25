"""Findings on file systems that were frozen: for how long they stood still, and who thawed them."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core.cycle_findings import CycleFindings
from lab.core.quantities import format_interval, format_seconds
from lab.core.units import format_duration
from lab.core.verdict import Finding, Outcome, at_most


class FileFindings(CycleFindings):
    """The findings `file systems` and `stall`."""

    def file_systems(self) -> Iterator[Finding]:
        """Whether they stood still within the budget, as a writer in the guest felt it as well, and were
        thawed by those who should."""
        obs, stall = self.obs, self.result.stall
        if not obs.method.traits.freezes_files or obs.stop is None or (obs.called_off and stall is None):
            return
        metric, expectation = "file systems", f"frozen for at most {format_duration(obs.budget_ns)}"
        if stall is None:
            why = "it is not known how long the file systems were frozen"
            yield self._finding(metric, expectation, "not measured", Outcome.INCONCLUSIVE, why)
            return
        text = format_interval(stall.felt or stall.calls)
        outcome, why = at_most(obs.budget_ns, stall.calls.low_ns, stall.calls.high_ns), ""
        if obs.writes is not None and obs.writes.thawed:
            outcome = Outcome.FAILED
            why = "its agent did not thaw: the lab's writer in the guest did"
        elif outcome is not Outcome.PASSED:
            why = f"file systems were frozen for {format_seconds(stall.calls.high_ns)}, over the budget"
        elif stall.felt is None:
            outcome, why = Outcome.INCONCLUSIVE, "no writer in the guest shows that they stood still"
        elif not stall.agrees:
            outcome = Outcome.INCONCLUSIVE
            why = (
                f"a writer stood still for {format_interval(stall.felt)}, by the agent's calls it was "
                f"{format_interval(stall.calls)}"
            )
        yield self._finding(metric, expectation, text, outcome, why)

    def stall(self) -> Iterator[Finding]:
        """Whether file systems stood still for no longer than expected."""
        limit, stall = self.expect.stall_at_most_ns, self.result.stall
        if limit is None or not self.obs.method.traits.freezes_files or self.obs.stop is None:
            return
        expectation = f"at most {format_duration(limit)}"
        if stall is None:
            why = "it is not known how long the file systems were frozen"
            yield self._finding("stall", expectation, "not measured", Outcome.INCONCLUSIVE, why)
            return
        value = stall.felt or stall.calls
        outcome = at_most(limit, value.low_ns, value.high_ns)
        text = format_interval(value)
        why = "" if outcome is Outcome.PASSED else f"file systems stood still for {text}, over {expectation}"
        yield self._finding("stall", expectation, text, outcome, why)
