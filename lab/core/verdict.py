"""Outcomes and findings: never green by accident (jepsen's checker lattice: worst wins)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Outcome(StrEnum):
    PASSED = "passed"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"

    @property
    def exit_code(self) -> int:
        return {"passed": 0, "failed": 1, "inconclusive": 3}[self.value]


_ORDER = (Outcome.PASSED, Outcome.INCONCLUSIVE, Outcome.FAILED)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst outcome; inconclusive without any: if nothing was checked, nothing passed."""
    return max(outcomes, key=_ORDER.index, default=Outcome.INCONCLUSIVE)


@dataclass(frozen=True)
class Finding:
    """The result of comparing one expectation with one measurement. cycle: -1 for the whole run, or the whole
    cell. cell: of the matrix, "" without one. failed_as_expected: it had to fail (core.expected_failure) and
    did, so it is passed; `why` says how it failed."""

    guest: str
    cycle: int
    metric: str
    expectation: str
    measured: str
    outcome: Outcome
    why: str = ""
    cell: str = ""
    failed_as_expected: bool = False

    def undecided(self, why: str) -> Finding:
        """The finding, inconclusive because of `why` in place of failed."""
        if self.outcome is not Outcome.FAILED:
            return self
        return replace(self, outcome=Outcome.INCONCLUSIVE, why=why)


def at_most(limit: int | float, low: int | float, high: int | float) -> Outcome:
    """Does a value that lies in [low, high] stay at or below the limit?"""
    if high <= limit:
        return Outcome.PASSED
    return Outcome.FAILED if low > limit else Outcome.INCONCLUSIVE


def at_least(limit: int | float, low: int | float, high: int | float) -> Outcome:
    """Does a value that lies in [low, high] reach the limit?"""
    if low >= limit:
        return Outcome.PASSED
    return Outcome.FAILED if high < limit else Outcome.INCONCLUSIVE
