"""How OpenNTPD handles an offset (Debian's 6.2p3 and 7.9p1; usr.sbin/ntpd: client.c, ntp.c, ntpd.c, ntpd.h).

It never steps but with -s at its start. A correction is adjtime(3) by the median of its peers' offsets, which
Linux slews by 500 ppm, and a frequency of at most 500 ppm beside it.

A peer's offset is taken from eight answers, the one with the shortest delay; it and all older ones are used
up then (client_update). So after a pause an old answer may be taken once more, and the new offset at the
latest when all eight are new: 16 answers.

It asks every 30 s times a scale (scale_interval): 1 beyond 50 ms, 50 below 1 ms (update_scale), and up to a
tenth longer; every 5 s until a peer is trusted.

Status keys, all optional: `poll_s` the interval that it reports.
"""

from __future__ import annotations

from lab.core.clock import Interval
from lab.core.resync import Correction
from lab.core.timesync.forecast import Forecast
from lab.core.timesync.situation import SOURCE_NS, Situation
from lab.core.timesync.texts import number, switches, words
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_S

NORMAL_S, MOST_SCALE = 30, 50
ANSWERS = 16
SLEW_PPM, FREQUENCY_PPM = 500, 500

SOURCES = (
    "ntpd(8) and ntpd.conf(5) of OpenNTPD",
    "OpenNTPD client.c (client_update), ntp.c (update_scale, scale_interval), ntpd.c (ntpd_adjtime)",
    "adjtime(3): Linux slews by 500 ppm",
)


def forecast(setup: Setup, at: Situation) -> Forecast:
    if at.right:
        left = Interval(-SOURCE_NS, SOURCE_NS)
        return Forecast(True, Correction.NONE, None, left, "nothing to repair", SOURCES)
    if not any(line[0] in ("server", "servers") for line in words(setup.config, "#")):
        text = f"left {at.side}: no server"
        return Forecast(False, Correction.NONE, None, -at.lost, text, SOURCES)
    reported = number(setup.status, "poll_s")
    poll_ns = NS_PER_S * (reported or NORMAL_S * MOST_SCALE)
    answered = ANSWERS * (poll_ns + max(5 * NS_PER_S, poll_ns // 10))
    latest = answered + at.off.high_ns * (1_000_000 // SLEW_PPM)
    earliest = at.off.low_ns * (1_000_000 // (SLEW_PPM + FREQUENCY_PPM))
    within = Interval(min(earliest, latest), latest)
    over = max(SOURCE_NS, at.off.high_ns // 2)
    text = f"slewed by adjtime, 0.5 ms a second{at.until(within)}: OpenNTPD never steps once it runs"
    if "s" in switches(setup.status.get("options", ""), "fp"):
        text += " (-s steps at its start)"
    return Forecast(True, Correction.SLEW, within, Interval(-over, over), text, SOURCES)
