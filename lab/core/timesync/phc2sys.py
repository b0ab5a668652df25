"""How phc2sys handles an offset (linuxptp 4.2, pi.c, pi_sample; phc2sys(8)). Not seen: it needs ptp_kvm.

With a step threshold (-S, in seconds; 0, the default, is none) an update beyond it starts the servo anew; the
second one after that steps the clock. Without one, and below it, the servo slews, at -R updates a second.

Status keys: none.
"""

from __future__ import annotations

import shlex
from fractions import Fraction
from itertools import pairwise

from lab.core.clock import Interval
from lab.core.quantities import format_about
from lab.core.resync import Correction
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import real
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_S

UPDATES = 4
"""Those of a step, and one in progress."""

SETTLES_NS = 60 * NS_PER_S
"""In which the servo has slewed less than a second: an estimate."""

SOURCES = ("phc2sys(8): -S, -R", "linuxptp pi.c (pi_sample)")


def options(config: str) -> list[str]:
    """The words of OPTIONS in the configuration."""
    lines = (line.partition("=") for line in config.splitlines())
    found = [value for name, _, value in lines if name.strip() == "OPTIONS"]
    try:
        return shlex.split(shlex.split(found[-1])[0]) if found else []
    except (ValueError, IndexError):
        return []


def forecast(setup: Setup, at: Situation) -> Forecast:
    given = {name: real(value) for name, value in pairwise(options(setup.config))}
    step, rate = given.get("-S") or Fraction(0), given.get("-R") or Fraction(1)
    left = Interval(-SOURCE_NS, SOURCE_NS)
    if at.right:
        return Forecast(True, Correction.NONE, None, left, "nothing to repair", SOURCES)
    if step and at.off.low_ns > step * NS_PER_S:
        within = Interval(0, int(UPDATES * NS_PER_S / rate) + NS_PER_S)
        text = f"stepped at its third update{at.until(within)}"
        return Forecast(True, Correction.STEP, within, left, text, SOURCES)
    within = Interval(0, SETTLES_NS + 20 * at.off.high_ns)
    why = f"below {format_about(int(step * NS_PER_S))}" if step else "no -S"
    text = f"slewed by its servo{at.until(within)}: {why}"
    return Forecast(True, None if step else Correction.SLEW, within, left, text, SOURCES)
