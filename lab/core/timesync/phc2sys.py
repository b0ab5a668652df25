"""How phc2sys handles an offset (linuxptp 4.2 and 4.4, pi.c, pi_sample; phc2sys(8)).

With a step threshold (-S, in seconds; 0, the default, is none) an update beyond it starts the servo anew. The
next one is the first of two that give a frequency, at least 0.016/ki seconds apart, and at the second of them
the clock is stepped: so at the third update in all, unless -R is above 18 a second. Between updates it sleeps
by CLOCK_MONOTONIC, which stands still with the guest, so the first one comes within a period of the resume.

-F counts for the first update since phc2sys was started, and not after a pause. Without -S, and below it, the
servo slews, by 10 % at most: the kernel's bounds of the tick (clockadj.c, clockadj_max_freq; adjtimex(2)).

Other servos (-E), and a file of options (-f), have other rules.

Status keys: none.
"""

from __future__ import annotations

import math
import shlex
from fractions import Fraction

from lab.core.clock import Interval
from lab.core.quantities import format_about
from lab.core.resync import Correction
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import real
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S

APART_S = Fraction(16, 1000)
"""The least time between its frequency's two updates, times ki (pi.c, freq_est_interval)."""

MOST_APART_S = Fraction(1000)

KI = Fraction(3, 10)
"""The default of -I (phc2sys.c)."""

LATE_NS = NS_PER_S
"""What an update may be late on a busy host: an estimate."""

SETTLES_NS = 60 * NS_PER_S
"""In which the servo has slewed less than a second: an estimate."""

LEAST, MOST = 9, 20
"""How many times the offset a slew takes, at 10 %: less what is left at its end, and with what it goes too
far and comes back."""

SOURCES = ("phc2sys(8): -S, -F, -R, -I", "linuxptp pi.c (pi_sample), clockadj.c (clockadj_max_freq)")

_LONG = {"step_threshold": "S", "pi_integral_const": "I", "clock_servo": "E"}


def options(config: str) -> dict[str, str]:
    """The values of OPTIONS in the configuration, by letter; the last of each counts."""
    lines = (line.partition("=") for line in config.splitlines())
    found = [value for name, _, value in lines if name.strip() == "OPTIONS"]
    try:
        words = shlex.split(shlex.split(found[-1])[0]) if found else []
    except (ValueError, IndexError):
        words = []
    values: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            name = _LONG.get(name, name)
        elif len(word) > 1 and word[0] == "-" and not word[1].isdigit():
            name, value = word[1], word[2:]
        else:
            value = word
        values[name] = value
    return values


def _updates(rate: Fraction, ki: Fraction) -> int:
    """The number of updates from the first one after the pause to the step."""
    apart_s = min(MOST_APART_S, APART_S / ki) if ki > 0 else MOST_APART_S
    return 2 + max(1, math.ceil(apart_s * rate))


def forecast(setup: Setup, at: Situation) -> Forecast:
    given = options(setup.config)
    step, rate, ki = (real(given.get(name, "")) for name in "SRI")
    step, rate, ki = step or Fraction(0), rate or Fraction(1), KI if ki is None else ki
    left = Interval(-SOURCE_NS, SOURCE_NS)
    if at.right:
        return Forecast(True, Correction.NONE, None, left, "nothing to repair", SOURCES)
    if given.get("E", "pi") != "pi" or ("f" in given and not step):
        which = "its servo is not pi" if given.get("E", "pi") != "pi" else "its options are in a file"
        return Forecast(None, None, None, None, f"open: {which}", SOURCES)
    if step and at.off.low_ns > step * NS_PER_S:
        updates = _updates(rate, ki)
        period_ns = int(NS_PER_S / rate)
        within = Interval((updates - 1) * period_ns * 9 // 10, updates * period_ns + LATE_NS)
        text = f"stepped at update {updates}{at.until(within)}"
        return Forecast(True, Correction.STEP, within, left, text, SOURCES)
    slews = not step or at.off.high_ns + NS_PER_MS < step * NS_PER_S
    least = max(0, LEAST * (at.off.low_ns - SOURCE_NS)) if slews else 0
    within = Interval(least, SETTLES_NS + MOST * at.off.high_ns)
    how = "slewed" if slews else "stepped or slewed"
    why = f"{'below' if slews else 'about'} {format_about(int(step * NS_PER_S))}" if step else "no -S"
    text = f"{how} by its servo{at.until(within)}: {why}"
    return Forecast(True, Correction.SLEW if slews else None, within, left, text, SOURCES)
