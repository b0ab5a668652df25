"""What a guest's clocks lose in a pause through which their clocksource's counter runs on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from lab.core.clock import Interval
from lab.core.plan import GuestSpec
from lab.core.timeline import Observation
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.verdict import Finding, Outcome

_WRAPS_NS = {
    "acpi_pm": (1 << 24) * NS_PER_S // 3_579_545,
    "hpet": (1 << 32) * 10,
}
"""The periods after which counters wrap, which a reading cannot detect. acpi_pm: 24 bits at 3.579545 MHz
(Linux, drivers/clocksource/acpi_pm.c, ACPI_PM_MASK; include/linux/acpi_pmtmr.h, PMTMR_TICKS_PER_SEC). hpet:
32 bits (arch/x86/kernel/hpet.c, HPET_MASK) of 10 ns each (QEMU, include/hw/timer/hpet.h, HPET_CLK_PERIOD)."""

_LOOK_NS = 100 * NS_PER_MS
"""How long before the stop the guest's kernel may last have read the counter. With the lab's sampler in the
guest it is never idle for longer than some milliseconds, except on a busy host."""

_HALF, _SEVEN_EIGHTHS = Fraction(1, 2), Fraction(7, 8)
_VERSION = re.compile(r"([0-9]+)\.([0-9]+)")


def _believed(kernel: str) -> tuple[Fraction, Fraction]:
    """The largest share of the period that a kernel accepts as elapsed time between two readings, as bounds.
    A larger difference counts as a step backward, and no time passes. Half of it in Linux 6.1
    (kernel/time/timekeeping_internal.h, clocksource_delta: the mask's highest bit), seven eighths in 6.12 and
    7.3 (kernel/time/clocksource.c, clocksource_update_max_deferment: max_raw_delta). kernel: its release,
    such as "6.1.0-18-amd64"; "" when it is not known."""
    match = _VERSION.match(kernel)
    if match is None:
        return _HALF, _SEVEN_EIGHTHS
    share = _SEVEN_EIGHTHS if (int(match[1]), int(match[2])) >= (6, 12) else _HALF
    return share, share


def limit_ns(clocksource: str, kernel: str = "") -> int | None:
    """The longest stop in which a guest certainly loses no time; None without such a limit."""
    turn = _WRAPS_NS.get(clocksource)
    return None if turn is None else int(turn * _believed(kernel)[0]) - _LOOK_NS


def lost(clocksource: str, pause: Interval, kernel: str = "") -> Interval:
    """What the guest's clocks lose over a `pause` through which their counter runs on: whole periods (Linux,
    kernel/time/timekeeping_internal.h, clocksource_delta: the difference of two readings is taken modulo the
    counter's width; where it is not accepted, the clocks stand still until the period is over, see `stands`).
    kernel: the guest's release."""
    turn = _WRAPS_NS.get(clocksource)
    if turn is None:
        return Interval(0, 0)
    least, most = (int(turn * (1 - share)) for share in reversed(_believed(kernel)))
    return Interval((pause.low_ns + least) // turn * turn, (pause.high_ns + _LOOK_NS + most) // turn * turn)


def stands(clocksource: str, pause: Interval, kernel: str = "") -> bool:
    """True when the clocks may stand still after the resume as well: until the counter has wrapped, or until
    somebody sets them. Then they have lost the pause and a tick, and no period (Linux,
    kernel/time/timekeeping.c, timekeeping_forward_now: the last reading is replaced in any case)."""
    turn = _WRAPS_NS.get(clocksource)
    if turn is None:
        return False
    first, last = pause.low_ns, pause.high_ns + _LOOK_NS
    return last // turn > first // turn or Fraction(last % turn, turn) > _believed(kernel)[0]


READ_AGAIN = "kvm-clock"
"""The clocksource that QEMU reads again when it writes the state of a guest that ran until the migration had
stopped it, after the rest of its memory was sent (QEMU, hw/i386/kvm/clock.c, kvmclock_pre_save). The TSC and
QEMU's own timers are read at the stop (target/i386/kvm/kvm.c, kvm_get_tsc; softmmu/cpu-timers.c)."""


def lost_in_migration(clocksource: str, pause: Interval) -> Interval | None:
    """What a guest's clocks lose in the pause of a live migration, where that is less than the pause: they
    run on while the rest of its memory is sent. None where they stand still throughout."""
    return Interval(0, max(0, pause.high_ns)) if clocksource == READ_AGAIN else None


STATE_OUT = "state out"
"""The step in which QEMU writes a guest's device state."""


def ran_on(obs: Observation) -> Interval:
    """For how long a guest's clocks may have run after the stop of an exchange in place, in host time: from
    QEMU's stop, after which it flushes the guest's disks, until it has read READ_AGAIN, also when the guest
    then goes back to the old process. [0, 0] where they stand still from the stop on, as with a guest that
    was stopped before its state was asked for."""
    none = Interval(0, 0)
    if not obs.method.traits.stopped_by_migration or obs.stop is None or obs.proof is not None:
        return none
    if obs.facts_before is None or obs.facts_before.clocksource != READ_AGAIN:
        return none
    written = [step.ended_raw_ns for step in obs.steps if step.name == STATE_OUT]
    return Interval(0, max(0, written[0] - obs.stop.called.raw_ns)) if written else none


def why(clocksource: str) -> str:
    """The reason, in words."""
    turn = round(_WRAPS_NS[clocksource], -7)
    return f"{clocksource} wraps every {format_duration(turn)}"


def chosen(kernel_options: tuple[str, ...]) -> str:
    """The clocksource that a kernel's command line selects, "" when it selects none (Linux,
    Documentation/admin-guide/kernel-parameters.txt, clocksource=): the last option counts."""
    words = [option.partition("=")[2] for option in kernel_options if option.startswith("clocksource=")]
    return words[-1] if words else ""


OPTION = "kernel option"
"""The metric of the finding below."""


def option_findings(guests: Sequence[GuestSpec], cycles: Sequence[Observation], cell: str) -> list[Finding]:
    """Checks that each guest uses the clocksource that its kernel options select. The kernel silently ignores
    one that it does not have (kvm-clock without KVM); the measurement is then of another clock than the
    playbook intends. cycles: those of the cell."""
    found = []
    for guest in guests:
        wanted = chosen(guest.kernel_options)
        first = next(
            (obs.facts_before for obs in cycles if obs.guest == guest.name and obs.facts_before), None
        )
        if not wanted or first is None:
            continue
        outcome, why = Outcome.PASSED, ""
        if first.clocksource != wanted:
            outcome = Outcome.INCONCLUSIVE
            why = f"clocksource={wanted} had no effect: the guest uses {first.clocksource}"
        found.append(
            Finding(guest.name, -1, OPTION, f"clocksource={wanted}", first.clocksource, outcome, why, cell)
        )
    return found
