"""A forecast: what a mechanism's rules say before the freeze."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.resync import Correction


@dataclass(frozen=True)
class Forecast:
    """What will come of a pause.

    repaired: whether the offset comes back to `residual`; None when the rules leave it open.
    correction: how it is moved, in the main; None when the rules leave it open.
    within: from the resume to when it is repaired, at the earliest and at the latest; None when it is not
    repaired, or there is no such bound. residual: where the offset (guest minus host) lies then, or, when not
    repaired, where it stays.
    once: one step is all that is done: where it leaves the clock, the clock is left.
    latency_ns: how much of the residual's lower end is only an estimate, of how long the host's word takes to
    the guest's clock.
    text: one line for people. sources: where each rule used is written (man page, RFC, source file).
    """

    repaired: bool | None
    correction: Correction | None
    within: Interval | None
    residual: Interval | None
    text: str
    sources: tuple[str, ...] = ()
    once: bool = False
    latency_ns: int = 0
