"""How ntpd handles an offset (ntpsec 1.2.2, ntpd/ntp_loopfilter.c, local_clock; RFC 5905, section 11.3 and
appendix A.5.5.6).

Beyond the step threshold (128 ms) the first offset is ignored (SYNC to SPIK), and so are those that follow
until the stepout threshold (300 s; 900 s in RFC 5905, so that much is allowed for when it is not set) has
passed since the last update before them; the next one then steps the clock. Beyond the panic threshold (1000
s) ntpd ends. `tinker` sets all three, 0 switches a threshold off. Before its first stepout is over (FREQ,
without a driftfile) it waits in the same way.

Below the threshold the offset is slewed by a phase-locked loop whose time constant grows with the polling
interval: 2^(poll + 4) s in the daemon (CLOCK_PLL), 2^(poll + 2) s in the kernel (STA_NANO, SHIFT_PLL), at
most 500 ppm. The frequency moves too, by less than half of the offset over the next interval.

Of eight polls the one with the shortest round trip counts (RFC 5905, section 10, clock filter), so a new
offset is accepted after eight polls at the latest; the interval itself is dithered by some percent. Polls are
every 2^minpoll to 2^maxpoll s, 6 and 10 by default (ntp.conf(5)).

-x sets the step threshold to 600 s, where the configuration does not (ntpd(8)).

Status keys, all optional: `options` ntpd's command line; `hpoll` the current polling interval, a power of two
in seconds; `mu` seconds since the last answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from lab.core.clock import Interval
from lab.core.quantities import format_about
from lab.core.resync import Correction
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import number, real, switches, words
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_S

FILTER = 8
SPARE = 2
"""Polls beyond the filter's eight: the one whose offset was ignored, and one in progress."""
TIME_CONSTANTS = 4
LATE_NS = 10 * NS_PER_S
LONGEST_S = 900
"""RFC 5905's default of the stepout threshold; ntp.conf(5) has 300 s."""

STEP_S, SLEWING_S = Fraction(128, 1000), Fraction(600)
WITH_VALUE = "cDfiIklLpPrstuU"

STALE_NS = 60 * NS_PER_S
"""The largest age of its state at the freeze."""

LEAST_POLL, MOST_POLL = 0, 17

SOURCES = (
    "ntpd(8): -x; ntp.conf(5): minpoll, maxpoll, tinker step, stepout, panic",
    "ntpsec ntpd/ntp_loopfilter.c (local_clock)",
    "RFC 5905, section 11.3",
)


@dataclass(frozen=True)
class NtpConf:
    """Thresholds in seconds, 0 for none; step_s: of a clock that is behind, step_back_s: of one that is
    ahead. The stepout is None when it is not set. minpoll, maxpoll: those of the server with the longest
    interval."""

    servers: int = 0
    minpoll: int = 6
    maxpoll: int = 10
    step_s: Fraction = STEP_S
    step_back_s: Fraction = STEP_S
    stepout_s: Fraction | None = None
    panic_s: Fraction = Fraction(1000)


def _polls(given: dict[str, Fraction | None]) -> tuple[int, int]:
    low, high = given.get("minpoll"), given.get("maxpoll")
    least = min(max(6 if low is None else int(low), LEAST_POLL), MOST_POLL)
    return least, min(max(10 if high is None else int(high), least), MOST_POLL)


def parse(config: str, step_s: Fraction = STEP_S) -> NtpConf:
    """The directives that determine the correction after a pause. step_s: the step threshold where none is
    set."""
    made, polls = NtpConf(step_s=step_s, step_back_s=step_s), []
    for line in words(config, "#"):
        name, rest = line[0].lower(), line[1:]
        given = {a.lower(): real(b) for a, b in pairwise(rest)}
        if name in ("server", "pool", "peer") and rest:
            polls.append(_polls(given))
        elif name == "tinker":
            step = given.get("stepfwd", given.get("step"))
            back = given.get("stepback", given.get("step"))
            stepout, panic = given.get("stepout"), given.get("panic")
            made = replace(
                made,
                step_s=made.step_s if step is None else step,
                step_back_s=made.step_back_s if back is None else back,
                stepout_s=made.stepout_s if stepout is None else stepout,
                panic_s=made.panic_s if panic is None else panic,
            )
    if not polls:
        return made
    least, most = max(polls, key=lambda poll: poll[1])
    return replace(made, servers=len(polls), minpoll=least, maxpoll=most)


def forecast(setup: Setup, at: Situation) -> Forecast:
    slewing = switches(setup.status.get("options", ""), WITH_VALUE) & {"x", "slew"}
    conf = parse(setup.config, SLEWING_S if slewing else STEP_S)
    if at.right:
        left = Interval(-SOURCE_NS, SOURCE_NS)
        return Forecast(True, Correction.NONE, None, left, "nothing to repair", SOURCES)
    if not conf.servers:
        if not setup.config.strip():
            return Forecast(None, None, None, None, "open: its servers are not known", SOURCES)
        text = f"left {at.side}: no server"
        return Forecast(False, Correction.NONE, None, -at.lost, text, SOURCES)
    if conf.panic_s and at.off.high_ns > conf.panic_s * NS_PER_S:
        if at.off.low_ns <= conf.panic_s * NS_PER_S:
            return Forecast(None, None, None, None, "open: about the panic threshold", SOURCES)
        text = f"left {at.side}: ntpd ends beyond {float(conf.panic_s):g} s"
        return Forecast(False, Correction.NONE, None, -at.lost, text, SOURCES)
    return _repair(setup, conf, at)


def _repair(setup: Setup, conf: NtpConf, at: Situation) -> Forecast:
    poll, reported = conf.maxpoll, number(setup.status, "hpoll")
    if reported is not None and conf.minpoll <= reported <= conf.maxpoll:
        poll = min(conf.maxpoll, reported + 1)
    each = NS_PER_S << poll
    stepout = int((300 if conf.stepout_s is None else conf.stepout_s) * NS_PER_S)
    longest = LONGEST_S * NS_PER_S if conf.stepout_s is None else stepout
    stepped = longest + (FILTER + SPARE) * (each + each // 8) + LATE_NS
    step_s = conf.step_back_s if at.at_resume.low_ns > 0 else conf.step_s
    threshold = step_s * NS_PER_S if step_s else None
    if threshold is not None and at.off.low_ns > threshold:
        earliest, since = 0, number(setup.status, "mu")
        if since is not None:
            # The clock was updated by one of the filter's eight answers, perhaps not by the last.
            earliest = max(0, stepout - since * NS_PER_S - FILTER * each - STALE_NS)
        within = Interval(min(earliest, stepped), stepped)
        text = f"stepped after the stepout of {format_about(stepout)}{at.until(within)}"
        left = Interval(-SOURCE_NS, SOURCE_NS)
        return Forecast(True, Correction.STEP, within, left, text, SOURCES, once=True)
    # The daemon's loop is slower than the kernel's, and the rate is bounded.
    constants = TIME_CONSTANTS * (NS_PER_S << poll + 4)
    within = Interval(0, stepped + constants + at.off.high_ns * 2000)
    over = max(SOURCE_NS, at.off.high_ns // 2)
    left = Interval(-over, over)
    if threshold is None or at.off.high_ns < threshold:
        text = f"slewed, at most 0.5 ms a second{at.until(within)}"
        return Forecast(True, Correction.SLEW, within, left, text, SOURCES)
    text = f"stepped or slewed (about {format_about(int(threshold))}){at.until(within)}"
    return Forecast(True, None, within, left, text, SOURCES)
