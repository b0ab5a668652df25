"""Negative controls: runs that pass when their checks fail.

A finding that has to fail and does is passed; one that has to fail and passes is failed; inconclusive stays
inconclusive. Everything else (the verdicts of a cycle and a run, JUnit, the exit code) follows from the worst
finding as usual.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from lab.core.verdict import Finding, Outcome

OUTCOME = "outcome"
"""The metric of the finding that reports whether anything failed at all."""


class Failure(StrEnum):
    """The checks that a playbook can list as failures: the metrics of findings."""

    PATCH = "patch"
    FREEZE = "freeze"
    MEMORY = "memory"
    BUDGET = "budget"
    REGIME = "regime"
    PAUSE = "pause"
    STALL = "stall"
    IN_TIME = "in time"
    RESYNC = "resync"
    RESYNC_AGAIN = "resync again"
    FINAL_OFFSET = "final offset"
    DRIFT = "drift"
    BOOT_ID = "boot id"
    KERNEL_LOG = "kernel log"
    MONOTONIC = "monotonic"
    ACKNOWLEDGED = "acknowledged"
    SEEN = "seen"
    SEEN_AS_STARTED = "seen as Started"
    PAUSE_ANNOUNCED = "pause announced"
    CANCELLED = "cancelled"
    NOTICE = "notice"
    HANDLER = "handler"
    GATES = "gates"
    ROLLOUT = "rollout"
    ONE_DOMAIN_AT_A_TIME = "one domain at a time"
    STOP_SKEW = "stop skew"
    RESUME_SKEW = "resume skew"


@dataclass(frozen=True)
class MustFail:
    """The checks that have to fail. metrics: all of these, and no others; (): any at least one."""

    metrics: tuple[Failure, ...] = ()

    def judged(self, found: Iterable[Finding]) -> list[Finding]:
        """The findings, with the outcome of those that have to fail inverted."""
        return [self._judged(one) for one in found]

    def _judged(self, one: Finding) -> Finding:
        named = one.metric in self.metrics
        if one.outcome is Outcome.FAILED and (named or not self.metrics):
            return replace(one, outcome=Outcome.PASSED, failed_as_expected=True)
        if one.outcome is Outcome.PASSED and named:
            why = f"{one.metric} has to fail, but holds ({one.measured})"
            return replace(one, outcome=Outcome.FAILED, why=why)
        return one

    def missing(self, judged: Iterable[Finding], cell: str = "") -> list[Finding]:
        """Findings for checks that had to fail but were not made, or for a run in which nothing failed.
        judged: all findings of a cell."""
        known = list(judged)
        if self.metrics:
            metrics = {one.metric for one in known}
            return [
                Finding("", -1, metric.value, "fails", "not checked", Outcome.INCONCLUSIVE,
                        f"{metric.value} has to fail, but was not checked", cell)
                for metric in self.metrics if metric.value not in metrics
            ]  # fmt: skip
        if any(one.failed_as_expected for one in known):
            return []
        if any(one.outcome is Outcome.INCONCLUSIVE for one in known):
            return []
        why = "a check has to fail, but none did"
        return [Finding("", -1, OUTCOME, "failed", "passed", Outcome.FAILED, why, cell)]
