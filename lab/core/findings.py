"""Compares expectations with measurements, one Finding each. What cannot be decided is inconclusive, and so
is what was not measured."""

from __future__ import annotations

from lab.core.file_findings import FileFindings
from lab.core.guest_findings import GuestFindings
from lab.core.pause_findings import PauseFindings
from lab.core.plan import Expectations
from lab.core.rescue import CUT_OFF, RAN
from lab.core.result import CycleResult
from lab.core.resync_findings import ResyncFindings
from lab.core.verdict import Finding, Outcome, worst


def findings(result: CycleResult, expect: Expectations) -> list[Finding]:
    """All findings of one guest's cycle."""
    pause, resync = PauseFindings(result, expect), ResyncFindings(result, expect)
    guest, files = GuestFindings(result, expect), FileFindings(result, expect)
    checks = (
        pause.observed, pause.patch, pause.freeze, pause.memory, pause.back, pause.budget, pause.closure,
        pause.regime, pause.pause, pause.vcpus_at_rest, files.file_systems, files.stall, resync.in_time,
        resync.as_predicted, resync.final_offset, resync.drift, guest.same_boot, guest.kernel_log,
        guest.effects,
    )  # fmt: skip
    found = [finding for check in checks for finding in check()]
    return [undone(finding, result.disturbed) for finding in found] if result.disturbed else found


CERTAIN = frozenset({"budget", "memory", "freeze", "patch", "monotonic", "boot id", "kernel log"})
"""Checks that fail even a cycle that was disturbed, because they report an observed event. The patch does not
count where the guest was resumed early: the patch may have been ended for that reason."""


def undone(finding: Finding, why: str) -> Finding:
    """The finding of a cycle that was disturbed because of `why`: it is never failed by what was not done."""
    certain = CERTAIN if why in (CUT_OFF, RAN) else CERTAIN - {"patch"}
    return finding if finding.metric in certain else finding.undecided(f"{why}; {finding.why}")


def outcome_of(given: list[Finding]) -> Outcome:
    """The worst outcome of a cycle's or a run's findings."""
    return worst(f.outcome for f in given)
