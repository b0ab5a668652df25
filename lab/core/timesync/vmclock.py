"""What chronyd does that is told of a disruption by vmclock.

QEMU's vmclock has no time (hw/acpi/vmclock.c: counter_id is VMCLOCK_COUNTER_INVALID), so it corrects nothing.
Its disruption_marker moves when a guest goes on from a state that was sent or saved (vmclock_post_load); a
suspend, and a signal that stops QEMU, leave it. The watcher (guest/inside/vmclock_watch.py) reads it once a
period, and then runs `chronyc burst`: chronyd polls after INITIAL_DELAY and at least SAMPLING_RANDOMNESS more
(chrony, ntp_core.c, NCR_InitiateSampleBurst), and steps by that one sample.

Status keys: `marker` its value; `period_ns` of the watcher.
"""

from __future__ import annotations

from dataclasses import replace

from lab.core.clock import Interval
from lab.core.resync import Correction
from lab.core.timesync import chrony
from lab.core.timesync.chronyconf import parse
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import number
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S

MARKER, PERIOD = "marker", "period_ns"

POLLED_NS = 5 * NS_PER_S
"""From the marker's move to the step: the start of chronyc, chronyd's 0.2 s, one round trip, and two more of
its polls (2 s each) where the first answers are not taken."""

SOURCES = (
    "QEMU hw/acpi/vmclock.c (vmclock_post_load)",
    "chrony ntp_core.c (NCR_InitiateSampleBurst); chronyc(1): burst",
)


def forecast(setup: Setup, at: Situation) -> Forecast:
    alone = chrony.forecast(setup, at)
    if at.right:
        return alone
    if not at.migrated:
        return replace(alone, text=f"vmclock's marker does not move in a stop: {alone.text}")
    make = parse(setup.config).makestep
    if make is None or at.off.low_ns <= make.threshold_s * NS_PER_S:
        return replace(alone, within=None, text=f"polled at once by vmclock's watcher, then: {alone.text}")
    period = number(setup.status, PERIOD) or 10 * NS_PER_MS
    within = Interval(0, period + POLLED_NS)
    text = f"stepped when vmclock's watcher has told chronyd{at.until(within)}"
    return Forecast(True, Correction.STEP, within, Interval(-SOURCE_NS, SOURCE_NS), text, SOURCES)
