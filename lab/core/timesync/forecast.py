"""Forecasts: what follows from a mechanism's rules before the freeze."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.resync import Correction


@dataclass(frozen=True)
class Forecast:
    """The forecast for a pause.

    repaired: the offset is corrected to `residual`; None when the rules do not decide. correction: how the
    larger part is corrected; None when the rules do not decide. within: from the resume to the correction,
    earliest and latest; None when there is none, or no such bound. residual: the offset (guest minus host)
    afterwards or, without a correction, where it stays. once: a single step is the whole action. latency_ns:
    the part of the residual's lower end that is an estimate: how long the host's time takes to the guest's
    clock. text: one line for people. sources: the source of each rule (man page, RFC, source file).
    """

    repaired: bool | None
    correction: Correction | None
    within: Interval | None
    residual: Interval | None
    text: str
    sources: tuple[str, ...] = ()
    once: bool = False
    latency_ns: int = 0
