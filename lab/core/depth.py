"""How deep the lab looks into a guest, and what each depth can bound (docs/measuring.md, "Depths")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.clock import GuestClock
from lab.core.mechanism import UNSEEN
from lab.core.quantities import format_about
from lab.core.units import NS_PER_MS, NS_PER_S


class Depth(StrEnum):
    """What looks into a guest. AUTO: the first of the others that there is."""

    AUTO = "auto"
    PYTHON = "python"
    SHELL = "shell"
    AGENT = "agent"


@dataclass(frozen=True)
class ProbeLimits:
    """What limits the readings of one guest. resolution_ns: of the clocks that are read. steady: a value of
    GuestClock, the clock that stands in the place of MONOTONIC_RAW; "": there is none. period_ns: the guest's
    pause between two samples, where a shell takes them; 0: not known."""

    resolution_ns: int = 1
    steady: str = GuestClock.RAW
    period_ns: int = 0


COARSE_NS = 2 * NS_PER_MS
"""From this resolution on the report names it: a reading over SSH or the agent takes as long by itself. Of
the agents only Windows' has such a one."""

_REAL_ALONE = (
    "there is no lag, no gap and no silence, so the closure and the regime are not decided, and the pause is "
    "what QEMU says"
)


def bounds(depth: Depth, limits: ProbeLimits) -> str:
    """What a depth can and cannot bound in a guest with these limits, for the report; "" where it bounds
    everything."""
    if depth is Depth.AGENT:
        coarse = f"{_to(limits)} ({UNSEEN})" if _to(limits) else ""
        return f"the guest's REALTIME alone is read, by guest-get-time{coarse}; {_REAL_ALONE}"
    if depth is not Depth.SHELL:
        return ""
    to = _to(limits) or ", to some milliseconds"
    if not limits.steady:
        return f"a shell reads the guest's REALTIME alone{to}; {_REAL_ALONE}"
    period = limits.period_ns or 100 * NS_PER_MS
    sampled = f"samples them every {format_about(period)}: no gap below {format_about(3 * period)} is seen"
    if limits.resolution_ns >= NS_PER_S:
        return f"a shell reads the guest's clocks{to}, and no lag to less than 2 s; it {sampled}"
    return (
        f"a shell reads the guest's clocks{to}, and {sampled}; its steadiest clock may be slewed, so lag is "
        "bounded to a tenth of the time from the readings to the freeze, and in regime jumped to a tenth of "
        "the pause"
    )


def _to(limits: ProbeLimits) -> str:
    """The resolution in words where it matters."""
    if limits.resolution_ns >= NS_PER_S:
        return " in whole seconds, as its date has no %N, so that no offset is bounded to less than 1 s"
    return f", to {format_about(limits.resolution_ns)}" if limits.resolution_ns >= COARSE_NS else ""
