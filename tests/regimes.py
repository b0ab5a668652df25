"""Which regimes a measured cycle may have on a busy or slow host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.core.pause import MOST_SHARE
from lab.process.pace import PACE


def slow_host() -> bool:
    """Whether this host runs guests on KVM far more slowly than usual ones do, as where KVM is emulated. A
    guest stands there while its clocks run, by tenths of a second, so that bounds are wide, and regimes
    mixed."""
    return PACE.factor >= 2


def possible_regimes(cycle: Mapping[str, Any], happened: str) -> set[str | None]:
    """The regimes that a cycle of a run's JSON may have if `happened`, "resumed" or "jumped", is what its
    guest went through: that one, and None where the bounds of its lag are too wide for the rule of
    lab.core.pause. A guest that resumed on a slow host may be "mixed", too."""
    host, lag = cycle["witnesses"]["hypervisor"], cycle["witnesses"]["lag"]
    if happened == "resumed":
        decided = MOST_SHARE * lag["low_ns"] >= (MOST_SHARE - 1) * host["high_ns"]
    else:
        decided = lag["low_ns"] <= 0 <= lag["high_ns"] and MOST_SHARE * lag["high_ns"] <= host["low_ns"]
    mixed = {"mixed"} if happened == "resumed" and slow_host() else set()
    return {happened, *mixed, *(set() if decided else {None})}
