"""What a guest's clocksource does to its clocks while the guest is held and the counter runs on."""

from __future__ import annotations

from lab.core.clock import Interval
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration

_WRAPS_NS = {"acpi_pm": (1 << 24) * NS_PER_S // 3_579_545}
"""After how long a counter begins anew, and a look at it cannot tell. acpi_pm: 24 bits at 3.579545 MHz
(Linux, drivers/clocksource/acpi_pm.c, ACPI_PM_MASK; include/linux/acpi_pmtmr.h, PMTMR_TICKS_PER_SEC)."""

_LOOK_NS = 100 * NS_PER_MS
"""How long before it was held the guest's kernel may have looked at the counter last: with the lab's sampler
in the guest it is never idle for longer than some milliseconds, but on a busy host."""


def lost(clocksource: str, pause: Interval) -> Interval:
    """What the guest's clocks lose over a `pause` in which their counter runs on: whole turns of it (Linux,
    kernel/time/timekeeping_internal.h, clocksource_delta: the distance of two looks is taken modulo the
    counter's width; and where it is more than half of that, it is taken for a step backward, and for nothing:
    then the clocks stand still until the turn is over, see `stands`)."""
    turn = _WRAPS_NS.get(clocksource)
    if turn is None:
        return Interval(0, 0)
    half = turn // 2
    return Interval((pause.low_ns + half) // turn * turn, (pause.high_ns + _LOOK_NS + half) // turn * turn)


def stands(clocksource: str, pause: Interval) -> bool:
    """Whether the clocks may stand still after the resume as well."""
    turn = _WRAPS_NS.get(clocksource)
    if turn is None:
        return False
    first, last = 2 * pause.low_ns // turn, 2 * (pause.high_ns + _LOOK_NS) // turn
    return first % 2 == 1 or last > first


def why(clocksource: str) -> str:
    """The reason, for people."""
    turn = round(_WRAPS_NS[clocksource], -7)
    return f"{clocksource} begins anew every {format_duration(turn)}"
